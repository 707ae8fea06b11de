// What training does with all weights at once, in one pass over memory each. Callers check kinds, shapes, layout and device;
// all tensors are contiguous, on the CPU. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// One update of AdamW of fp32 tensors; `copy`, fp32 or bf16, becomes the new weights unless it is null. The gradient stays as
// it is.
int32_t torch_ext_adamw(at::Tensor* weights, const at::Tensor* gradient, at::Tensor* exp_avg, at::Tensor* exp_avg_sq,
                        at::Tensor* copy, const TorchExtAdamW* update, TorchExtMessage message) noexcept;

// sum + addend, in place: `sum` fp32, `addend` fp32 or bf16.
int32_t torch_ext_accumulate(at::Tensor* sum, const at::Tensor* addend, TorchExtMessage message) noexcept;

// The sum of the squares of an fp32 tensor.
int32_t torch_ext_squared_norm(const at::Tensor* x, double* sum, TorchExtMessage message) noexcept;

// So many zeros in fp32, in memory that nobody has touched yet; `made` is the caller's.
int32_t torch_ext_untouched_zeros(int64_t count, at::Tensor** made, TorchExtMessage message) noexcept;
}
