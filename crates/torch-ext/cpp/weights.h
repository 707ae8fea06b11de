// Passes over all weights of a model: each reads and writes memory once. All tensors are dense, on the CPU, except
// where libtorch takes over. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// One AdamW update of fp32 tensors that are disjoint in memory. `copy`, fp32 or bf16 or null, receives the new weights.
// The gradient is not modified.
int32_t torch_ext_adamw(at::Tensor* weights, const at::Tensor* gradient, at::Tensor* exp_avg, at::Tensor* exp_avg_sq,
                        at::Tensor* copy, const TorchExtAdamW* update, TorchExtMessage message) noexcept;

// sum + addend, in place: `sum` fp32. By libtorch where a tensor is not dense or `addend` is neither fp32 nor bf16.
int32_t torch_ext_accumulate(at::Tensor* sum, const at::Tensor* addend, TorchExtMessage message) noexcept;

// The sum of the squares of an fp32 tensor.
int32_t torch_ext_squared_norm(const at::Tensor* x, double* sum, TorchExtMessage message) noexcept;

// `count` fp32 zeros in memory whose pages are not committed yet; the caller owns `out`.
int32_t torch_ext_untouched_zeros(int64_t count, at::Tensor** out, TorchExtMessage message) noexcept;
}
