// Attention of sequences of different lengths on a GPU, by libtorch's kernels, which check their operands. See shim.h
// for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// softmax(q · kᵀ / √d) · v per sequence: q [N, heads, d], k and v [M, kv_heads, d], of one kind (fp32 or bf16).
// `ends_q` and `ends_k`, int32 on the same GPU, are the cumulative lengths of the sequences among the N and the M. The
// last query of a sequence sees all of its keys, and each earlier one sees one key fewer. `out` receives a tensor like
// q, with libtorch's graph.
int32_t torch_ext_varlen_attention(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* ends_q, const at::Tensor* ends_k, int64_t longest_q,
                                   int64_t longest_k, at::Tensor** out, TorchExtMessage message) noexcept;
}
