// The two blocks of a decoder layer, each x + f(norm(x)) as one autograd node, whose forward pass is bitwise identical
// to the composed kernels. Operands as in fused.h and attention.h. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// Weights [out, in] as in a checkpoint; the biases are null, or none of them is.
struct TorchExtAttentionBlock {
  const at::Tensor *norm, *q_proj, *k_proj, *v_proj, *o_proj;
  const at::Tensor *q_bias, *k_bias, *v_bias;
  const at::Tensor *cos, *sin;  // [N, 1, d], without a gradient.
  const int64_t* lengths;       // As in attention.h.
  size_t count;
  double eps;
};

struct TorchExtGatedBlock {
  const at::Tensor *norm, *gate_proj, *up_proj, *down_proj;
  double eps;
};

// x + o_proj(attention(rotated q_proj(n), rotated k_proj(n), v_proj(n))) with n = norm(x): x [N, hidden].
int32_t torch_ext_attention_block(const at::Tensor* x, const TorchExtAttentionBlock* block, at::Tensor** out,
                                  TorchExtMessage message) noexcept;

// x + down_proj(silu(gate_proj(n)) · up_proj(n)) with n = norm(x): x [N, hidden].
int32_t torch_ext_gated_block(const at::Tensor* x, const TorchExtGatedBlock* block, at::Tensor** out,
                              TorchExtMessage message) noexcept;
}
