// Where the gradients of leaves are gathered while a graph is differentiated. What a node computes of a leaf is made, handed on and
// then added to a sum; a node that knows the sum adds to it as it computes.
#pragma once

#include <ATen/core/Tensor.h>

namespace torch_ext {

// The sum, fp32 and contiguous, that the gradients of `leaf` are added to on this thread; null where there is none.
const at::Tensor* sum_of(const at::Tensor& leaf);

// sum + gradient, in place.
void add_to(const at::Tensor& sum, const at::Tensor& gradient);

}  // namespace torch_ext
