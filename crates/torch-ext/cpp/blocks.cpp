#include "blocks.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <vector>

#include "gathering.h"
#include "guarded.h"
#include "kernels.h"

namespace {

using namespace torch_ext;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using MaybeTensor = std::optional<Tensor>;

// What libtorch is asked in here has no graph, and so need not ask for one.
using Below = at::AutoDispatchBelowADInplaceOrView;

Tensor projected(const Tensor& x, const Tensor& weight, const MaybeTensor& bias = {}) {
  return bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());
}

// `gradient` of `leaf`, or nothing once it is added to where it is gathered.
Tensor handed_on(const Tensor& leaf, Tensor gradient) {
  const Tensor* sum = gradient.defined() ? sum_of(leaf) : nullptr;
  if (sum == nullptr) return gradient;
  add_to(*sum, gradient);
  return Tensor();
}

// Gradients of a linear layer's weight and bias, where they are asked for and are not gathered.
Tensor of_weight(const Tensor& weight, const Tensor& grad, const Tensor& x, bool asks) {
  if (!asks) return Tensor();
  const Tensor* sum = grad.scalar_type() == at::kFloat ? sum_of(weight) : nullptr;
  if (sum == nullptr) return handed_on(weight, grad.t().mm(x));
  sum->addmm_(grad.t(), x);
  return Tensor();
}

Tensor of_bias(const Tensor& bias, const Tensor& grad, bool asks) {
  return asks ? handed_on(bias, grad.sum(0)) : Tensor();
}

struct GatedBlock : torch::autograd::Function<GatedBlock> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& norm, const Tensor& gate_proj,
                        const Tensor& up_proj, const Tensor& down_proj, double eps) {
    const Below below;
    const auto [normed, scales] = rms_norm(x, norm, eps);
    const Tensor gate = projected(normed, gate_proj), up = projected(normed, up_proj), gated = swiglu(gate, up);
    context->save_for_backward({x, norm, gate_proj, up_proj, down_proj, scales, normed, gate, up, gated});
    return projected(gated, down_proj).add_(x);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const Below below;
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &norm = saved[1], &gate_proj = saved[2], &up_proj = saved[3], &down_proj = saved[4];
    const Tensor &scales = saved[5], &normed = saved[6], &gated = saved[9];
    const auto asks = [&](size_t input) { return context->needs_input_grad(input); };
    const Tensor grad = grads[0].contiguous();
    const auto [gate, up] = swiglu_gradients(grad.mm(down_proj), saved[7], saved[8]);
    const Tensor of_normed = gate.mm(gate_proj).addmm_(up, up_proj);
    const NormGradients of = rms_norm_gradients(of_normed, grad, x, norm, scales, asks(1));
    return {of.x,
            handed_on(norm, of.weight),
            of_weight(gate_proj, gate, normed, asks(2)),
            of_weight(up_proj, up, normed, asks(3)),
            of_weight(down_proj, grad, gated, asks(4)),
            Tensor()};
  }
};

// Beside the weights, what a block of attention takes that has no gradient.
struct Setting {
  Tensor cos, sin;
  std::vector<int64_t> trees;
  double eps;
};

struct AttentionBlock : torch::autograd::Function<AttentionBlock> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& norm, const Tensor& q_proj,
                        const Tensor& k_proj, const Tensor& v_proj, const Tensor& o_proj,
                        const MaybeTensor& q_bias, const MaybeTensor& k_bias, const MaybeTensor& v_bias,
                        const Setting* setting) {
    const Below below;
    const Tensor &cos = setting->cos, &sin = setting->sin;
    const auto [normed, scales] = rms_norm(x, norm, setting->eps);
    const auto heads = [&](const Tensor& flat) { return flat.view({flat.size(0), -1, cos.size(2)}); };
    const Tensor q = rotate(heads(projected(normed, q_proj, q_bias)), cos, sin, false);
    const Tensor k = rotate(heads(projected(normed, k_proj, k_bias)), cos, sin, false);
    const Tensor v = heads(projected(normed, v_proj, v_bias));
    const auto [out, sums] = tree_attention(q, k, v, setting->trees);
    variable_list saved = {x, norm, q_proj, k_proj, v_proj, o_proj, cos, sin, scales, normed, q, k, v, out, sums};
    if (q_bias) saved.insert(saved.end(), {*q_bias, *k_bias, *v_bias});
    context->save_for_backward(saved);
    context->saved_data["trees"] = setting->trees;
    return projected(out.view({out.size(0), -1}), o_proj).add_(x);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const Below below;
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &norm = saved[1], &q_proj = saved[2], &k_proj = saved[3], &v_proj = saved[4];
    const Tensor &o_proj = saved[5], &cos = saved[6], &sin = saved[7], &scales = saved[8], &normed = saved[9];
    const Tensor &q = saved[10], &k = saved[11], &v = saved[12], &out = saved[13], &sums = saved[14];
    const auto asks = [&](size_t input) { return context->needs_input_grad(input); };
    const auto flat = [](const Tensor& heads) { return heads.view({heads.size(0), -1}); };
    const Tensor grad = grads[0].contiguous();
    const AttentionGradients of_heads = tree_attention_gradients(grad.mm(o_proj).view(q.sizes()), q, k, v, {out, sums},
                                                                 context->saved_data["trees"].toIntVector());
    const Tensor of_q = flat(rotate(of_heads.q, cos, sin, true));
    const Tensor of_k = flat(rotate(of_heads.k, cos, sin, true));
    const Tensor of_v = flat(of_heads.v);
    const Tensor of_normed = of_q.mm(q_proj).addmm_(of_k, k_proj).addmm_(of_v, v_proj);
    const NormGradients of = rms_norm_gradients(of_normed, grad, x, norm, scales, asks(1));
    // Biases, if there are any, were saved in their order behind the other fifteen.
    const auto bias = [&](size_t input, const Tensor& grad) {
      return saved.size() > 15 ? of_bias(saved[input + 9], grad, asks(input)) : Tensor();
    };
    return {of.x,
            handed_on(norm, of.weight),
            of_weight(q_proj, of_q, normed, asks(2)),
            of_weight(k_proj, of_k, normed, asks(3)),
            of_weight(v_proj, of_v, normed, asks(4)),
            of_weight(o_proj, grad, flat(out), asks(5)),
            bias(6, of_q),
            bias(7, of_k),
            bias(8, of_v),
            Tensor()};
  }
};

MaybeTensor maybe(const Tensor* tensor) { return tensor == nullptr ? MaybeTensor() : *tensor; }

}  // namespace

int32_t torch_ext_attention_block(const Tensor* x, const TorchExtAttentionBlock* block, Tensor** made,
                                  TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const Setting setting{*block->cos, *block->sin, {block->trees, block->trees + block->length}, block->eps};
    *made = new Tensor(AttentionBlock::apply(*x, *block->norm, *block->q_proj, *block->k_proj, *block->v_proj, *block->o_proj,
                                             maybe(block->q_bias), maybe(block->k_bias), maybe(block->v_bias), &setting));
  });
}

int32_t torch_ext_gated_block(const Tensor* x, const TorchExtGatedBlock* block, Tensor** made,
                              TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    *made = new Tensor(
        GatedBlock::apply(*x, *block->norm, *block->gate_proj, *block->up_proj, *block->down_proj, block->eps));
  });
}
