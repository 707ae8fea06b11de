// The way back through a graph. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Of an output that has `gradient` itself, of its shape and kind: the gradient with respect to `input` into `made`, null if the
// graph does not reach it, and those with respect to `count` leaves added to as many `sums`, fp32 and contiguous, of their shapes.
// The graph is gone afterwards.
int32_t torch_ext_gather_gradients(const at::Tensor* output, const at::Tensor* gradient, const at::Tensor* input,
                                   const at::Tensor* const* leaves, at::Tensor* const* sums, size_t count, at::Tensor** made,
                                   TorchExtMessage message) noexcept;
}
