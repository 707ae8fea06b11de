// The sums that gradients of leaves are added to during a backward pass. A node that knows the sum adds to it as it
// computes, instead of returning a gradient that is added afterwards.
#pragma once

#include <ATen/core/Tensor.h>

namespace torch_ext {

// The sum, fp32 and contiguous, for the gradients of `leaf` on this thread; null where there is none.
const at::Tensor* sum_of(const at::Tensor& leaf);

}  // namespace torch_ext
