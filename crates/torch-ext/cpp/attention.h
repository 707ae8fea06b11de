// Attention of packed rows, with gradients. Callers check kinds, shapes, layout and device. See shim.h for the rules of the
// surface.
#pragma once

#include "shim.h"

extern "C" {

// softmax(q · kᵀ / √d) · v: q [N, heads, d], k and v [N, kv_heads, d], contiguous, of one kind (fp32 or bf16), d a multiple of
// 16. `trees` says for every row how many parts it has and how long each is, `length` numbers in all: a token of the first
// part sees that part up to itself, one of another sees the first and its own up to itself. The lengths sum up to N. `made`
// receives a tensor like q, with a graph where an operand wants a gradient; its gradients have none of their own.
int32_t torch_ext_tree_attention(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v, const int64_t* trees,
                                 size_t length, at::Tensor** made, TorchExtMessage message) noexcept;
}
