// Numbers in four and eight bits, with a scale for each block: the formats of bitsandbytes. All tensors are dense, on
// the CPU. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Numbers in NF4: `out` [n], fp32 or bf16; `codes` [(n + 1) / 2], uint8, two numbers each, the first in the upper half;
// `scales`, fp32, one for 64 numbers; `values`, the 16 numbers of the codes.
int32_t torch_ext_dequantize_nf4(at::Tensor* out, const at::Tensor* codes, const at::Tensor* scales,
                                 const float* values, TorchExtMessage message) noexcept;

// The 256 numbers of the dynamic code, in ascending order.
int32_t torch_ext_dynamic_code(int32_t is_signed, float* values, TorchExtMessage message) noexcept;

// As torch_ext_adamw, with moments in the dynamic code, signed for the first and unsigned for the second: `first` and
// `second` [n], uint8, and their scales, fp32, one for 256 numbers.
int32_t torch_ext_adamw_8bit(at::Tensor* weights, const at::Tensor* gradient, at::Tensor* first, at::Tensor* second,
                             at::Tensor* first_scales, at::Tensor* second_scales, at::Tensor* copy,
                             const TorchExtAdamW* update, TorchExtMessage message) noexcept;
}
