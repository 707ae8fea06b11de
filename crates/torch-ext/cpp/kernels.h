// The kernels and their gradients, without a graph: for autograd functions of one kernel and of whole blocks. All
// tensors of a call are of one kind (fp32 or bf16), dense, on the CPU; each function checks that and throws.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace torch_ext {

// See fused.h. `scales` [rows], fp32: the factor of each row.
struct Normed {
  at::Tensor out, scales;
};
Normed rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// `residual`, where defined, is a gradient that is added to that of x. `weight` is computed on request.
struct NormGradients {
  at::Tensor x, weight;
};
NormGradients rms_norm_gradients(const at::Tensor& grad, const at::Tensor& residual, const at::Tensor& x,
                                 const at::Tensor& weight, const at::Tensor& scales, bool needs_weight);

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

struct SwiGluGradients {
  at::Tensor gate, up;
};
SwiGluGradients swiglu_gradients(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up);

// The gradient of a rotation is the inverse rotation.
enum class Direction { Forward, Inverse };
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, Direction direction);

// See attention.h. `logsumexp` [heads, N], fp32: the logarithms of the softmax denominators.
struct Attended {
  at::Tensor out, logsumexp;
};
Attended shared_prefix_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const std::vector<int64_t>& rows);

struct AttentionGradients {
  at::Tensor q, k, v;
};
AttentionGradients shared_prefix_attention_gradients(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v, const Attended& attended,
                                                     const std::vector<int64_t>& rows);

// sum + addend, in place: `sum` fp32. By libtorch where a tensor is not dense or of another kind.
void accumulate(const at::Tensor& sum, const at::Tensor& addend);

}  // namespace torch_ext
