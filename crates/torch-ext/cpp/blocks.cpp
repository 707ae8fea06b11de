#include "blocks.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <vector>

#include "checks.h"
#include "gradient_sums.h"
#include "guarded.h"
#include "kernels.h"

namespace {

using namespace torch_ext;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<Tensor>;

// Operations below this guard record no graph, and skip the dispatcher's autograd layer.
using NoAutograd = at::AutoDispatchBelowADInplaceOrView;

Tensor apply_linear(const Tensor& x, const Tensor& weight, const MaybeTensor& bias = {}) {
  return bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());
}

// Adds `gradient` to the sum of `leaf` and returns nothing; returns it where there is no sum.
Tensor summed(const Tensor& leaf, Tensor gradient) {
  const Tensor* sum = gradient.defined() ? sum_of(leaf) : nullptr;
  if (sum == nullptr) return gradient;
  accumulate(*sum, gradient);
  return Tensor();
}

// The gradient of a linear layer's weight, where it is needed and has no sum.
Tensor weight_gradient(const Tensor& weight, const Tensor& grad, const Tensor& x, bool is_needed) {
  if (!is_needed) return Tensor();
  const Tensor* sum = grad.scalar_type() == at::kFloat ? sum_of(weight) : nullptr;
  if (sum == nullptr) return summed(weight, grad.t().mm(x));
  sum->addmm_(grad.t(), x);
  return Tensor();
}

// The same for a bias.
Tensor bias_gradient(const Tensor& bias, const Tensor& grad, bool is_needed) {
  return is_needed ? summed(bias, grad.sum(0)) : Tensor();
}

struct GatedBlock : torch::autograd::Function<GatedBlock> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& norm, const Tensor& gate_proj,
                        const Tensor& up_proj, const Tensor& down_proj, double eps) {
    const NoAutograd guard;
    const auto [normed, scales] = rms_norm(x, norm, eps);
    const Tensor gate = apply_linear(normed, gate_proj), up = apply_linear(normed, up_proj), gated = swiglu(gate, up);
    context->save_for_backward({x, norm, gate_proj, up_proj, down_proj, scales, normed, gate, up, gated});
    return apply_linear(gated, down_proj).add_(x);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const NoAutograd guard;
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &norm = saved[1], &gate_proj = saved[2], &up_proj = saved[3], &down_proj = saved[4];
    const Tensor &scales = saved[5], &normed = saved[6], &gated = saved[9];
    const auto is_needed = [&](size_t input) { return context->needs_input_grad(input); };
    const Tensor grad = dense(grads[0]);
    const auto [grad_gate, grad_up] = swiglu_gradients(grad.mm(down_proj), saved[7], saved[8]);
    const Tensor grad_normed = grad_gate.mm(gate_proj).addmm_(grad_up, up_proj);
    const NormGradients norms = rms_norm_gradients(grad_normed, grad, x, norm, scales, is_needed(1));
    return {norms.x,
            summed(norm, norms.weight),
            weight_gradient(gate_proj, grad_gate, normed, is_needed(2)),
            weight_gradient(up_proj, grad_up, normed, is_needed(3)),
            weight_gradient(down_proj, grad, gated, is_needed(4)),
            Tensor()};
  }
};

// The operands of an attention block that have no gradient.
struct Constants {
  Tensor cos, sin;
  std::vector<int64_t> lengths;
  double eps;
};

struct AttentionBlock : torch::autograd::Function<AttentionBlock> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& norm, const Tensor& q_proj,
                        const Tensor& k_proj, const Tensor& v_proj, const Tensor& o_proj, const MaybeTensor& q_bias,
                        const MaybeTensor& k_bias, const MaybeTensor& v_bias, const Constants* constants) {
    const NoAutograd guard;
    const Tensor &cos = constants->cos, &sin = constants->sin;
    const auto [normed, scales] = rms_norm(x, norm, constants->eps);
    const auto heads = [&](const Tensor& flat) { return flat.view({flat.size(0), -1, cos.size(2)}); };
    const Tensor q = rotate(heads(apply_linear(normed, q_proj, q_bias)), cos, sin, Direction::Forward);
    const Tensor k = rotate(heads(apply_linear(normed, k_proj, k_bias)), cos, sin, Direction::Forward);
    const Tensor v = heads(apply_linear(normed, v_proj, v_bias));
    const auto [out, logsumexp] = shared_prefix_attention(q, k, v, constants->lengths);
    variable_list saved = {x, norm, q_proj, k_proj, v_proj, o_proj, cos, sin, scales, normed, q, k, v, out, logsumexp};
    if (q_bias) saved.insert(saved.end(), {*q_bias, *k_bias, *v_bias});
    context->save_for_backward(saved);
    context->saved_data["lengths"] = constants->lengths;
    return apply_linear(out.view({out.size(0), -1}), o_proj).add_(x);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const NoAutograd guard;
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &norm = saved[1], &q_proj = saved[2], &k_proj = saved[3], &v_proj = saved[4];
    const Tensor &o_proj = saved[5], &cos = saved[6], &sin = saved[7], &scales = saved[8], &normed = saved[9];
    const Tensor &q = saved[10], &k = saved[11], &v = saved[12], &out = saved[13], &logsumexp = saved[14];
    const auto is_needed = [&](size_t input) { return context->needs_input_grad(input); };
    const auto flat = [](const Tensor& heads) { return heads.view({heads.size(0), -1}); };
    const Tensor grad = dense(grads[0]);
    const AttentionGradients heads = shared_prefix_attention_gradients(
        grad.mm(o_proj).view(q.sizes()), q, k, v, {out, logsumexp}, context->saved_data["lengths"].toIntVector());
    const Tensor grad_q = flat(rotate(heads.q, cos, sin, Direction::Inverse));
    const Tensor grad_k = flat(rotate(heads.k, cos, sin, Direction::Inverse));
    const Tensor grad_v = flat(heads.v);
    const Tensor grad_normed = grad_q.mm(q_proj).addmm_(grad_k, k_proj).addmm_(grad_v, v_proj);
    const NormGradients norms = rms_norm_gradients(grad_normed, grad, x, norm, scales, is_needed(1));
    // Biases, if any, are saved behind the other fifteen tensors.
    const auto bias = [&](size_t input, const Tensor& grad) {
      return saved.size() > 15 ? bias_gradient(saved[input + 9], grad, is_needed(input)) : Tensor();
    };
    return {norms.x,
            summed(norm, norms.weight),
            weight_gradient(q_proj, grad_q, normed, is_needed(2)),
            weight_gradient(k_proj, grad_k, normed, is_needed(3)),
            weight_gradient(v_proj, grad_v, normed, is_needed(4)),
            weight_gradient(o_proj, grad, flat(out), is_needed(5)),
            bias(6, grad_q),
            bias(7, grad_k),
            bias(8, grad_v),
            Tensor()};
  }
};

MaybeTensor maybe(const Tensor* tensor) { return tensor == nullptr ? MaybeTensor() : *tensor; }

}  // namespace

int32_t torch_ext_attention_block(const Tensor* x, const TorchExtAttentionBlock* block, Tensor** out,
                                  TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const Constants constants{*block->cos, *block->sin, {block->lengths, block->lengths + block->count}, block->eps};
    *out = new Tensor(AttentionBlock::apply(*x, *block->norm, *block->q_proj, *block->k_proj, *block->v_proj,
                                            *block->o_proj, maybe(block->q_bias), maybe(block->k_bias),
                                            maybe(block->v_bias), &constants));
  });
}

int32_t torch_ext_gated_block(const Tensor* x, const TorchExtGatedBlock* block, Tensor** out,
                              TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    *out = new Tensor(
        GatedBlock::apply(*x, *block->norm, *block->gate_proj, *block->up_proj, *block->down_proj, block->eps));
  });
}
