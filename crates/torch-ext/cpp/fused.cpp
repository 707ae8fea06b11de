#include "fused.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "guarded.h"
#include "kernels.h"
#include "lanes.h"

namespace {

using namespace torch_ext;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows whose share in a weight's gradient is summed by one thread. The order of the sum depends on it alone, and so not on
// how many threads there are.
constexpr int64_t BLOCK = 32;

// How many rows of `width` elements are worth a thread.
int64_t rows_worth(int64_t width) { return std::max<int64_t>(1, GRAIN / 4 / std::max<int64_t>(1, width)); }

template <class Element>
struct Norm {
  Element* out;
  float* scales;  // Of every row, what it is multiplied by.
  const Element* x;
  const Element* weight;
  int64_t width;
  float eps;

  INLINED void rows(int64_t begin, int64_t end) const {
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

// With n = x · scale and g what reaches n: the gradient of x is scale · (g − n · mean(g · n)).
template <class Element>
struct NormBackward {
  Element* grad_x;
  float* grad_weight;  // [blocks, width], or null where nobody wants it.
  const Element* grad;
  const float* scales;
  const Element* x;
  const Element* weight;
  const Element* beside;  // What reaches x otherwise, or null.
  int64_t count, width;

  INLINED void blocks(int64_t begin, int64_t end) const {
    for (int64_t block = begin; block < end; ++block) {
      float* sums = grad_weight == nullptr ? nullptr : grad_weight + block * width;
      if (sums != nullptr) std::fill(sums, sums + width, 0.0f);
      for (int64_t row = block * BLOCK; row < std::min(count, (block + 1) * BLOCK); ++row) one(row, sums);
    }
  }

  INLINED void one(int64_t row, float* sums) const {
    const Element* from = x + row * width;
    const Element* of_row = grad + row * width;
    const float scale = scales[row];
    Floats products = {};
    for (int64_t at = 0; at < width; at += LANES) {
      products += load(of_row + at) * load(weight + at) * (load(from + at) * scale);
    }
    const float mean = total(products) / float(width);
    for (int64_t at = 0; at < width; at += LANES) {
      const Floats normed = load(from + at) * scale, arriving = load(of_row + at);
      Floats of_x = (arriving * load(weight + at) - normed * mean) * scale;
      if (beside != nullptr) of_x += load(beside + row * width + at);
      store(grad_x + row * width + at, of_x);
      if (sums != nullptr) store(sums + at, load(sums + at) + arriving * rounded(normed, from));
    }
  }
};

// Sums of the columns of a matrix, from its first row to its last.
struct Columns {
  float* sums;
  const float* rows;
  int64_t count, width;

  INLINED void parts(int64_t begin, int64_t end) const {
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
struct Gated {
  Element* out;
  const Element* gate;
  const Element* up;

  INLINED void elements(int64_t begin, int64_t end) const {
    for (int64_t at = begin * LANES; at < end * LANES; at += LANES) {
      const Floats x = load(gate + at);
      store(out + at, rounded(x * sigmoid(x), gate) * load(up + at));
    }
  }
};

template <class Element>
struct GatedBackward {
  Element* grad_gate;
  Element* grad_up;
  const Element* grad;
  const Element* gate;
  const Element* up;

  INLINED void elements(int64_t begin, int64_t end) const {
    for (int64_t at = begin * LANES; at < end * LANES; at += LANES) {
      const Floats x = load(gate + at), s = sigmoid(x), arriving = load(grad + at);
      store(grad_up + at, arriving * rounded(x * s, gate));
      store(grad_gate + at, arriving * load(up + at) * (s * (x * (1.0f - s) + 1.0f)));
    }
  }
};

template <class Element>
struct Turned {
  Element* out;
  const Element* x;
  const Element* cos;
  const Element* sin;
  int64_t heads, dim;
  bool back;  // What the forward pass does, transposed: each half takes the other's sines.

  INLINED void rows(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t head = 0; head < heads; ++head) one(row * dim, (row * heads + head) * dim);
    }
  }

  INLINED void one(int64_t table, int64_t place) const {
    const int64_t half = dim / 2;
    const Element *c = cos + table, *s = sin + table, *first = x + place, *second = first + half;
    const Element *of_first = back ? s + half : s, *of_second = back ? s : s + half;
    Element* to = out + place;
    if (dim == LANES) {
      // Both halves in one vector; as above, they are not exchanged in a table on the way forward.
      const Floats whole = load(first), sines = load(s), other = halves_exchanged(whole);
      store(to, rounded(whole * load(c), x) + other * (back ? halves_exchanged(sines) : sines));
      return;
    }
    int64_t at = 0;
    for (; at + LANES <= half; at += LANES) {
      const Floats a = load(first + at), b = load(second + at);
      store(to + at, rounded(a * load(c + at), x) + b * load(of_first + at));
      store(to + half + at, rounded(b * load(c + half + at), x) + a * load(of_second + at));
    }
    for (; at < half; ++at) {
      const float a = widened(first[at]), b = widened(second[at]);
      Element kept[2];
      narrowed(a * widened(c[at]), kept), narrowed(b * widened(c[half + at]), kept + 1);
      narrowed(widened(kept[0]) + b * widened(of_first[at]), to + at);
      narrowed(widened(kept[1]) + a * widened(of_second[at]), to + half + at);
    }
  }
};

WIDEST void run(const Norm<float>& norm, int64_t begin, int64_t end) { norm.rows(begin, end); }
WIDEST void run(const Norm<uint16_t>& norm, int64_t begin, int64_t end) { norm.rows(begin, end); }
WIDEST void run(const NormBackward<float>& norm, int64_t begin, int64_t end) { norm.blocks(begin, end); }
WIDEST void run(const NormBackward<uint16_t>& norm, int64_t begin, int64_t end) { norm.blocks(begin, end); }
WIDEST void run(const Columns& columns, int64_t begin, int64_t end) { columns.parts(begin, end); }
WIDEST void run(const Gated<float>& gated, int64_t begin, int64_t end) { gated.elements(begin, end); }
WIDEST void run(const Gated<uint16_t>& gated, int64_t begin, int64_t end) { gated.elements(begin, end); }
WIDEST void run(const GatedBackward<float>& gated, int64_t begin, int64_t end) { gated.elements(begin, end); }
WIDEST void run(const GatedBackward<uint16_t>& gated, int64_t begin, int64_t end) { gated.elements(begin, end); }
WIDEST void run(const Turned<float>& turned, int64_t begin, int64_t end) { turned.rows(begin, end); }
WIDEST void run(const Turned<uint16_t>& turned, int64_t begin, int64_t end) { turned.rows(begin, end); }

}  // namespace

namespace torch_ext {

Normed rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const int64_t width = weight.numel(), rows = x.numel() / width;
  Normed made{at::empty_like(x), at::empty({rows}, x.options().dtype(at::kFloat))};
  by_kind(x, [&]<class Element>(const Element*) {
    const Norm<Element> norm{mutable_elements<Element>(made.out), mutable_elements<float>(made.scales), elements<Element>(x),
                             elements<Element>(weight),           width,                                float(eps)};
    share_out(norm, rows, rows_worth(width));
  });
  return made;
}

NormGradients rms_norm_gradients(const Tensor& grad, const Tensor& beside, const Tensor& x, const Tensor& weight,
                                 const Tensor& scales, bool asks_for_weight) {
  const int64_t width = weight.numel(), rows = x.numel() / width, blocks = (rows + BLOCK - 1) / BLOCK;
  Tensor of_x = at::empty_like(x), sums;
  if (asks_for_weight) sums = at::empty({blocks, width}, scales.options());
  by_kind(x, [&]<class Element>(const Element*) {
    const NormBackward<Element> norm{mutable_elements<Element>(of_x),
                                     sums.defined() ? mutable_elements<float>(sums) : nullptr,
                                     elements<Element>(grad),
                                     elements<float>(scales),
                                     elements<Element>(x),
                                     elements<Element>(weight),
                                     beside.defined() ? elements<Element>(beside) : nullptr,
                                     rows,
                                     width};
    share_out(norm, blocks, std::max<int64_t>(1, rows_worth(width) / BLOCK));
  });
  if (!asks_for_weight) return {of_x, Tensor()};
  const Tensor of_weight = at::empty({width}, scales.options());
  share_out(Columns{mutable_elements<float>(of_weight), elements<float>(sums), blocks, width}, width / LANES, rows_worth(blocks));
  return {of_x, of_weight.to(weight.scalar_type())};
}

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  Tensor out = at::empty_like(gate);
  by_kind(gate, [&]<class Element>(const Element*) {
    const Gated<Element> gated{mutable_elements<Element>(out), elements<Element>(gate), elements<Element>(up)};
    share_out(gated, gate.numel() / LANES, rows_worth(LANES));
  });
  return out;
}

GateGradients swiglu_gradients(const Tensor& grad, const Tensor& gate, const Tensor& up) {
  GateGradients made{at::empty_like(gate), at::empty_like(up)};
  by_kind(gate, [&]<class Element>(const Element*) {
    const GatedBackward<Element> gated{mutable_elements<Element>(made.gate), mutable_elements<Element>(made.up),
                                       elements<Element>(grad), elements<Element>(gate), elements<Element>(up)};
    share_out(gated, gate.numel() / LANES, rows_worth(LANES));
  });
  return made;
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, bool back) {
  Tensor out = at::empty_like(x);
  by_kind(x, [&]<class Element>(const Element*) {
    const Turned<Element> turned{mutable_elements<Element>(out), elements<Element>(x), elements<Element>(cos),
                                 elements<Element>(sin),         x.size(1),            x.size(2),
                                 back};
    share_out(turned, x.size(0), rows_worth(x.size(1) * x.size(2)));
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
    const bool asks_for_weight = context->needs_input_grad(1);
    const auto [of_x, of_weight] =
        rms_norm_gradients(grads[0].contiguous(), Tensor(), saved[0], saved[1], saved[2], asks_for_weight);
    return {of_x, of_weight, Tensor()};
  }
};

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    context->save_for_backward({gate, up});
    return swiglu(gate, up);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const auto [of_gate, of_up] = swiglu_gradients(grads[0].contiguous(), saved[0], saved[1]);
    return {of_gate, of_up};
  }
};

struct Rotate : torch::autograd::Function<Rotate> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& cos, const Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotate(x, cos, sin, false);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    return {rotate(grads[0].contiguous(), saved[0], saved[1], true), Tensor(), Tensor()};
  }
};

}  // namespace

int32_t torch_ext_rms_norm(const at::Tensor* x, const at::Tensor* weight, double eps, at::Tensor** made,
                           TorchExtMessage message) noexcept {
  return guarded(message, [&] { *made = new Tensor(RmsNorm::apply(*x, *weight, eps)); });
}

int32_t torch_ext_swiglu(const at::Tensor* gate, const at::Tensor* up, at::Tensor** made, TorchExtMessage message) noexcept {
  return guarded(message, [&] { *made = new Tensor(SwiGlu::apply(*gate, *up)); });
}

int32_t torch_ext_rotate(const at::Tensor* x, const at::Tensor* cos, const at::Tensor* sin, at::Tensor** made,
                         TorchExtMessage message) noexcept {
  return guarded(message, [&] { *made = new Tensor(Rotate::apply(*x, *cos, *sin)); });
}
