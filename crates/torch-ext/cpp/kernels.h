// What the kernels compute and how its gradient goes back, without a graph: for functions of one kernel that have one, and for
// those of whole blocks. All tensors of a call are of one kind (fp32 or bf16), contiguous, on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace torch_ext {

// See fused.h. `scales` [rows], fp32: what each row was multiplied by.
struct Normed {
  at::Tensor out, scales;
};
Normed rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// `beside`, where defined, reaches x too, and is added. The weight's gradient is made where it is asked for.
struct NormGradients {
  at::Tensor x, weight;
};
NormGradients rms_norm_gradients(const at::Tensor& grad, const at::Tensor& beside, const at::Tensor& x, const at::Tensor& weight,
                                 const at::Tensor& scales, bool asks_for_weight);

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

struct GateGradients {
  at::Tensor gate, up;
};
GateGradients swiglu_gradients(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up);

// `back`: the gradient's way, which is the same turn the other way round.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool back);

// See attention.h. `sums` [heads, N], fp32: the logarithms of what the weights were divided by.
struct Attended {
  at::Tensor out, sums;
};
Attended tree_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int64_t>& trees);

struct AttentionGradients {
  at::Tensor q, k, v;
};
AttentionGradients tree_attention_gradients(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const Attended& attended, const std::vector<int64_t>& trees);

// sum + addend, in place: `sum` fp32.
void accumulate(const at::Tensor& sum, const at::Tensor& addend);

}  // namespace torch_ext
