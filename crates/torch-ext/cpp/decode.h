// Kernels for decoding one token at a time: products of few rows, and attention of one query per row. See shim.h for
// the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// out = x · weightᵀ, of [rows, in] and [outs, in], all dense and of one kind (fp32 or bf16).
int32_t torch_ext_decode_linear(at::Tensor* out, const at::Tensor* x, const at::Tensor* weight,
                                TorchExtMessage message) noexcept;

// out = softmax(q · kᵀ / √d) · v for one query per row: q and out [B, heads, d] dense, k and v [B, kv_heads, S, d] with
// dense columns that do not overlap, of one kind (fp32 or bf16). Row b sees the columns from first[b] on, at least the
// last one.
int32_t torch_ext_decode_attention(at::Tensor* out, const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* first, TorchExtMessage message) noexcept;
}
