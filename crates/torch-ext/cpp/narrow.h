// What decoding one token at a time takes: products of few rows, and attention of one query. Callers check kinds, shapes,
// layout and device. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// 1 where the processor multiplies tiles of bf16, otherwise 0.
int32_t torch_ext_has_tiles(void) noexcept;

// out = x · weightᵀ, of `rows` by `in` and `outs` by `in`, all contiguous and of one kind (fp32 or bf16).
int32_t torch_ext_narrow_linear(at::Tensor* out, const at::Tensor* x, const at::Tensor* weight,
                                TorchExtMessage message) noexcept;

// out = softmax(q · kᵀ / √d) · v for one query a row: q and out [B, heads, d] contiguous, k and v [B, kv_heads, S, d] with
// rows of d in one piece, of one kind (fp32 or bf16). Row b sees the columns from first[b] on, at least the last one.
int32_t torch_ext_decode_attention(at::Tensor* out, const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* first, TorchExtMessage message) noexcept;
}
