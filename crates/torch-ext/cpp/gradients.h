// Backward passes with gradient sums. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Differentiates `output`, whose gradient is `gradient`. Stores the gradient of `input` in `out`, or null where the
// graph does not reach it, and adds those of `count` leaves to as many `sums`, fp32 and contiguous, of their shapes.
// Frees the graph.
int32_t torch_ext_gather_gradients(const at::Tensor* output, const at::Tensor* gradient, const at::Tensor* input,
                                   const at::Tensor* const* leaves, at::Tensor* const* sums, size_t count,
                                   at::Tensor** out, TorchExtMessage message) noexcept;
}
