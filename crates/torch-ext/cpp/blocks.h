// The two blocks of a decoder layer, each x + f(norm(x)) as one node of a graph, with the bits that the composition of its
// parts has forwards. Callers check kinds, shapes, layout and device: as fused.h and attention.h. See shim.h for the rules of
// the surface.
#pragma once

#include "shim.h"

extern "C" {

// Weights as a checkpoint has them, [out, in]; biases may be null, all three or none.
struct TorchExtAttentionBlock {
  const at::Tensor *norm, *q_proj, *k_proj, *v_proj, *o_proj;
  const at::Tensor *q_bias, *k_bias, *v_bias;
  const at::Tensor *cos, *sin;  // [N, 1, d], without a gradient.
  const int64_t* trees;         // As in attention.h.
  size_t length;
  double eps;
};

struct TorchExtGatedBlock {
  const at::Tensor *norm, *gate_proj, *up_proj, *down_proj;
  double eps;
};

// x + o_proj(attention(turned q_proj(n), turned k_proj(n), v_proj(n))) with n = norm(x): x [N, hidden].
int32_t torch_ext_attention_block(const at::Tensor* x, const TorchExtAttentionBlock* block, at::Tensor** made,
                                  TorchExtMessage message) noexcept;

// x + down_proj(silu(gate_proj(n)) · up_proj(n)) with n = norm(x): x [N, hidden].
int32_t torch_ext_gated_block(const at::Tensor* x, const TorchExtGatedBlock* block, at::Tensor** made,
                              TorchExtMessage message) noexcept;
}
