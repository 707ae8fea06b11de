// One update of AdamW, for moments in fp32 and in eight bits.
#pragma once

#include <cmath>

#include "shim.h"
#include "vectors.h"

namespace torch_ext {

INLINED Floats root(Floats x) {
  for (int64_t lane = 0; lane < LANES; ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
}

// Algorithm 2 of Loshchilov and Hutter, with factors in the order of libtorch's kernel.
struct AdamWStep {
  float kept, step_size, beta1, beta2, left1, left2, correction, eps, scale;

  explicit AdamWStep(const TorchExtAdamW& by)
      : kept(float(1.0 - by.learning_rate * by.weight_decay)),
        step_size(float(by.learning_rate / (1.0 - std::pow(by.beta1, by.step)))),
        beta1(float(by.beta1)),
        beta2(float(by.beta2)),
        left1(float(1.0 - by.beta1)),
        left2(float(1.0 - by.beta2)),
        correction(float(std::sqrt(1.0 - std::pow(by.beta2, by.step)))),
        eps(float(by.eps)),
        scale(float(1.0 / by.gradient_divisor)) {}

  struct Updated {
    Floats weight, first, second;
  };

  INLINED Updated operator()(Floats weight, Floats gradient, Floats first, Floats second) const {
    gradient = gradient * scale;
    first = first * beta1 + gradient * left1;
    second = second * beta2 + gradient * gradient * left2;
    const Floats divisor = root(second) / correction + eps;
    return {weight * kept - first * step_size / divisor, first, second};
  }
};

}  // namespace torch_ext
