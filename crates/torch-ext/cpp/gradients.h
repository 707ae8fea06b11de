// The way back through a graph. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Gradients with respect to `inputs` of an output that has `gradient` itself, of its shape and kind: into `made`, null for those
// that the graph does not reach. The graph is gone afterwards.
int32_t torch_ext_gradients(const at::Tensor* output, const at::Tensor* gradient, const at::Tensor* const* inputs, size_t count,
                            at::Tensor** made, TorchExtMessage message) noexcept;
}
