#include "fused.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "checks.h"
#include "guarded.h"
#include "kernels.h"
#include "vectors.h"

namespace {

using namespace torch_ext;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows whose part of a weight's gradient one thread sums. It fixes the order of the sum for any number of threads.
constexpr int64_t BLOCK = 32;

// Rows of `width` elements that are worth a thread.
int64_t row_grain(int64_t width) { return std::max<int64_t>(1, GRAIN / 4 / std::max<int64_t>(1, width)); }

template <class Element>
struct NormForward {
  Element* out;
  float* scales;  // The factor of each row.
  const Element* x;
  const Element* weight;
  int64_t width;
  float eps;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      const Element* from = x + row * width;
      Element* to = out + row * width;
      Floats squares = {};
      for (int64_t at = 0; at < width; at += LANES) {
        const Floats part = load(from + at);
        squares += part * part;
      }
      const float scale = 1.0f / std::sqrt(total(squares) / float(width) + eps);
      scales[row] = scale;
      for (int64_t at = 0; at < width; at += LANES) {
        store(to + at, rounded(load(from + at) * scale, from) * load(weight + at));
      }
    }
  }
};

// With n = x · scale and g the gradient of n, the gradient of x is scale · (g − n · mean(g · n)).
template <class Element>
struct NormBackward {
  Element* grad_x;
  float* grad_weight;  // [blocks, width], or null.
  const Element* grad;
  const float* scales;
  const Element* x;
  const Element* weight;
  const Element* residual;  // A gradient that is added to that of x, or null.
  int64_t count, width;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t block = begin; block < end; ++block) {
      float* sums = grad_weight == nullptr ? nullptr : grad_weight + block * width;
      if (sums != nullptr) std::fill(sums, sums + width, 0.0f);
      for (int64_t row = block * BLOCK; row < std::min(count, (block + 1) * BLOCK); ++row) accumulate_row(row, sums);
    }
  }

  INLINED void accumulate_row(int64_t row, float* sums) const {
    const Element* from = x + row * width;
    const Element* grad_row = grad + row * width;
    const float scale = scales[row];
    Floats products = {};
    for (int64_t at = 0; at < width; at += LANES) {
      products += load(grad_row + at) * load(weight + at) * (load(from + at) * scale);
    }
    const float mean = total(products) / float(width);
    for (int64_t at = 0; at < width; at += LANES) {
      const Floats normed = load(from + at) * scale, incoming = load(grad_row + at);
      Floats gradient = (incoming * load(weight + at) - normed * mean) * scale;
      if (residual != nullptr) gradient += load(residual + row * width + at);
      store(grad_x + row * width + at, gradient);
      if (sums != nullptr) store(sums + at, load(sums + at) + incoming * rounded(normed, from));
    }
  }
};

// Sums of the columns of a matrix, from its first row to its last.
struct ColumnSums {
  float* sums;
  const float* rows;
  int64_t count, width;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t at = begin * LANES; at < end * LANES; at += LANES) {
      Floats sum = {};
      for (int64_t row = 0; row < count; ++row) sum += load(rows + row * width + at);
      store(sums + at, sum);
    }
  }
};

INLINED Floats sigmoid(Floats x) {
  const Floats e = exponential(x < 0 ? x : -x);
  return (x < 0 ? e : Floats{} + 1.0f) / (e + 1.0f);
}

template <class Element>
struct SwiGluForward {
  Element* out;
  const Element* gate;
  const Element* up;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t at = begin * LANES; at < end * LANES; at += LANES) {
      const Floats x = load(gate + at);
      store(out + at, rounded(x * sigmoid(x), gate) * load(up + at));
    }
  }
};

template <class Element>
struct SwiGluBackward {
  Element* grad_gate;
  Element* grad_up;
  const Element* grad;
  const Element* gate;
  const Element* up;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t at = begin * LANES; at < end * LANES; at += LANES) {
      const Floats x = load(gate + at), s = sigmoid(x), incoming = load(grad + at);
      store(grad_up + at, incoming * rounded(x * s, gate));
      store(grad_gate + at, incoming * load(up + at) * (s * (x * (1.0f - s) + 1.0f)));
    }
  }
};

template <class Element>
struct Rotation {
  Element* out;
  const Element* x;
  const Element* cos;
  const Element* sin;
  int64_t heads, dim;
  bool inverse;  // The transposed map of the forward pass: each half takes the sines of the other.

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < heads; ++head) rotate_head(row * dim, (row * heads + head) * dim);
    }
  }

  INLINED void rotate_head(int64_t table, int64_t place) const {
    const int64_t half = dim / 2;
    const Element *c = cos + table, *s = sin + table, *first = x + place, *second = first + half;
    const Element *first_sin = inverse ? s + half : s, *second_sin = inverse ? s : s + half;
    Element* to = out + place;
    if (dim == LANES) {
      // One vector holds both halves.
      const Floats whole = load(first), sines = load(s), other = halves_swapped(whole);
      store(to, rounded(whole * load(c), x) + other * (inverse ? halves_swapped(sines) : sines));
      return;
    }
    int64_t at = 0;
    for (; at + LANES <= half; at += LANES) {
      const Floats a = load(first + at), b = load(second + at);
      store(to + at, rounded(a * load(c + at), x) + b * load(first_sin + at));
      store(to + half + at, rounded(b * load(c + half + at), x) + a * load(second_sin + at));
    }
    for (; at < half; ++at) {
      const float a = widened(first[at]), b = widened(second[at]);
      Element kept[2];
      narrowed(a * widened(c[at]), kept);
      narrowed(b * widened(c[half + at]), kept + 1);
      narrowed(widened(kept[0]) + b * widened(first_sin[at]), to + at);
      narrowed(widened(kept[1]) + a * widened(second_sin[at]), to + half + at);
    }
  }
};

// Checks the operands of the norm and returns its width.
int64_t check_norm(const Tensor& x, const Tensor& weight) {
  const at::ScalarType kind = check_operand("x", x);
  const int64_t width = x.dim() == 0 ? 0 : x.size(-1);
  TORCH_CHECK(width > 0 && width % LANES == 0, "x has rows of ", width, " numbers; they must be a multiple of ", LANES);
  check_dense("the weight", weight, kind, {width});
  return width;
}

void check_gate(const Tensor& gate, const Tensor& up) {
  const at::ScalarType kind = check_operand("the gate", gate);
  TORCH_CHECK(gate.numel() % LANES == 0, "the gate has ", gate.numel(), " numbers; they must be a multiple of ", LANES);
  check_dense("the gated tensor", up, kind, gate.sizes());
}

}  // namespace

namespace torch_ext {

Normed rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const int64_t width = check_norm(x, weight), rows = x.numel() / width;
  Normed result{at::empty_like(x), at::empty({rows}, x.options().dtype(at::kFloat))};
  by_kind(x, [&]<class Element>(const Element*) {
    const NormForward<Element> norm{
        .out = mutable_elements<Element>(result.out),
        .scales = mutable_elements<float>(result.scales),
        .x = elements<Element>(x),
        .weight = elements<Element>(weight),
        .width = width,
        .eps = float(eps),
    };
    parallel_run(norm, rows, row_grain(width));
  });
  return result;
}

NormGradients rms_norm_gradients(const Tensor& grad, const Tensor& residual, const Tensor& x, const Tensor& weight,
                                 const Tensor& scales, bool needs_weight) {
  const int64_t width = check_norm(x, weight), rows = x.numel() / width, blocks = (rows + BLOCK - 1) / BLOCK;
  check_dense("the gradient", grad, x.scalar_type(), x.sizes());
  check_dense("the scales", scales, at::kFloat, {rows});
  if (residual.defined()) check_dense("the gradient of the residual", residual, x.scalar_type(), x.sizes());
  Tensor grad_x = at::empty_like(x), sums;
  if (needs_weight) sums = at::empty({blocks, width}, scales.options());
  by_kind(x, [&]<class Element>(const Element*) {
    const NormBackward<Element> norm{
        .grad_x = mutable_elements<Element>(grad_x),
        .grad_weight = sums.defined() ? mutable_elements<float>(sums) : nullptr,
        .grad = elements<Element>(grad),
        .scales = elements<float>(scales),
        .x = elements<Element>(x),
        .weight = elements<Element>(weight),
        .residual = residual.defined() ? elements<Element>(residual) : nullptr,
        .count = rows,
        .width = width,
    };
    parallel_run(norm, blocks, std::max<int64_t>(1, row_grain(width) / BLOCK));
  });
  if (!needs_weight) return {grad_x, Tensor()};
  const Tensor grad_weight = at::empty({width}, scales.options());
  parallel_run(ColumnSums{mutable_elements<float>(grad_weight), elements<float>(sums), blocks, width}, width / LANES,
               row_grain(blocks));
  return {grad_x, grad_weight.to(weight.scalar_type())};
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  check_gate(gate, up);
  Tensor out = at::empty_like(gate);
  by_kind(gate, [&]<class Element>(const Element*) {
    const SwiGluForward<Element> forward{mutable_elements<Element>(out), elements<Element>(gate),
                                         elements<Element>(up)};
    parallel_run(forward, gate.numel() / LANES, row_grain(LANES));
  });
  return out;
}

SwiGluGradients swiglu_gradients(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  check_gate(gate, up);
  check_dense("the gradient", grad, gate.scalar_type(), gate.sizes());
  SwiGluGradients result{at::empty_like(gate), at::empty_like(up)};
  by_kind(gate, [&]<class Element>(const Element*) {
    const SwiGluBackward<Element> backward{
        .grad_gate = mutable_elements<Element>(result.gate),
        .grad_up = mutable_elements<Element>(result.up),
        .grad = elements<Element>(grad),
        .gate = elements<Element>(gate),
        .up = elements<Element>(up),
    };
    parallel_run(backward, gate.numel() / LANES, row_grain(LANES));
  });
  return result;
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, Direction direction) {
  const at::ScalarType kind = check_operand("x", x);
  TORCH_CHECK(x.dim() == 3 && x.size(2) % 2 == 0, "x has shape ", x.sizes(), "; it must have [N, heads, an even d]");
  check_dense("the cosines", cos, kind, {x.size(0), 1, x.size(2)});
  check_dense("the sines", sin, kind, {x.size(0), 1, x.size(2)});
  Tensor out = at::empty_like(x);
  by_kind(x, [&]<class Element>(const Element*) {
    const Rotation<Element> rotation{
        .out = mutable_elements<Element>(out),
        .x = elements<Element>(x),
        .cos = elements<Element>(cos),
        .sin = elements<Element>(sin),
        .heads = x.size(1),
        .dim = x.size(2),
        .inverse = direction == Direction::Inverse,
    };
    parallel_run(rotation, x.size(0), row_grain(saturating_product(x.size(1), x.size(2))));
  });
  return out;
}

}  // namespace torch_ext

namespace {

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, double eps) {
    const auto [out, scales] = rms_norm(x, weight, eps);
    context->save_for_backward({x, weight, scales});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const bool needs_weight = context->needs_input_grad(1);
    const auto [grad_x, grad_weight] =
        rms_norm_gradients(dense(grads[0]), Tensor(), saved[0], saved[1], saved[2], needs_weight);
    return {grad_x, grad_weight, Tensor()};
  }
};

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    context->save_for_backward({gate, up});
    return swiglu(gate, up);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const auto [grad_gate, grad_up] = swiglu_gradients(dense(grads[0]), saved[0], saved[1]);
    return {grad_gate, grad_up};
  }
};

struct Rotate : torch::autograd::Function<Rotate> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& cos, const Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotate(x, cos, sin, Direction::Forward);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    return {rotate(dense(grads[0]), saved[0], saved[1], Direction::Inverse), Tensor(), Tensor()};
  }
};

}  // namespace

int32_t torch_ext_rms_norm(const at::Tensor* x, const at::Tensor* weight, double eps, at::Tensor** out,
                           TorchExtMessage message) noexcept {
  return guarded(message, [&] { *out = new Tensor(RmsNorm::apply(*x, *weight, eps)); });
}

int32_t torch_ext_swiglu(const at::Tensor* gate, const at::Tensor* up, at::Tensor** out,
                         TorchExtMessage message) noexcept {
  return guarded(message, [&] { *out = new Tensor(SwiGlu::apply(*gate, *up)); });
}

int32_t torch_ext_rotate(const at::Tensor* x, const at::Tensor* cos, const at::Tensor* sin, at::Tensor** out,
                         TorchExtMessage message) noexcept {
  return guarded(message, [&] { *out = new Tensor(Rotate::apply(*x, *cos, *sin)); });
}
