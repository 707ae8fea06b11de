// Calls a function on libtorch's threads. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Calls body(context, index) for each index below `count` in parallel, and returns after the last call. Each call has
// one thread, and the caller's gradient mode. `body` must not throw.
int32_t torch_ext_parallel_map(int64_t count, void (*body)(void* context, int64_t index), void* context,
                               TorchExtMessage message) noexcept;
}
