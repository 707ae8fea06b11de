// Work of several parts that run beside each other. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Calls body(context, part) for each part below `count`, at once where libtorch has threads, and returns after the last. What
// libtorch computes for a part it computes on that part's thread, with gradients where the caller has them. Nothing is thrown by
// `body`.
int32_t torch_ext_side_by_side(int64_t count, void (*body)(void* context, int64_t part), void* context,
                               TorchExtMessage message) noexcept;
}
