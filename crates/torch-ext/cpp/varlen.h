// Attention of rows of any length on a GPU, by libtorch's own kernels. Callers check kinds, shapes and devices. See shim.h for
// the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// softmax(q · kᵀ / √d) · v, part by part: q [N, heads, d], k and v [M, kv_heads, d], of one kind (fp32 or bf16). `ends_q` and
// `ends_k`, int32 on the same GPU, say where parts begin and end among the N and the M; the last query of a part sees all keys of
// that part, and each one before it one fewer. `made` receives a tensor like q, with libtorch's own graph.
int32_t torch_ext_varlen_attention(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v, const at::Tensor* ends_q,
                                   const at::Tensor* ends_k, int64_t longest_q, int64_t longest_k, at::Tensor** made,
                                   TorchExtMessage message) noexcept;
}
