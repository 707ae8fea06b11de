// Attention of rows with shared prefixes, with gradients. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// softmax(q · kᵀ / √d) · v: q [N, heads, d], k and v [N, kv_heads, d], dense, of one kind (fp32 or bf16), d a multiple
// of
// 16. `lengths` has `count` numbers: for every row its number of segments, then their lengths, which sum up to N. The
// first segment of a row is its prefix, with a causal mask; each further one is a continuation, which sees the prefix
// and itself with a causal mask. `out` receives a tensor like q, with a graph where an operand requires a gradient; its
// gradients have no graph.
int32_t torch_ext_shared_prefix_attention(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                          const int64_t* lengths, size_t count, at::Tensor** out,
                                          TorchExtMessage message) noexcept;
}
