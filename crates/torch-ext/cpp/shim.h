// The C surface of torch-ext. Every function is noexcept, and returns TORCH_EXT_DONE, or another status with a message
// in `message`. Tensor pointers are borrowed for the call.
#pragma once

#include <cstddef>
#include <cstdint>

namespace at {
class Tensor;
}

extern "C" {

enum TorchExtStatus : int32_t {
  TORCH_EXT_DONE = 0,
  TORCH_EXT_FAILED = 1,
  TORCH_EXT_TIMED_OUT = 2,
  TORCH_EXT_CONNECTION_LOST = 3,
};

// Receives an error text, zero-terminated, of at most `capacity` bytes.
struct TorchExtMessage {
  char* text;
  size_t capacity;
};

struct TorchExtAdamW {
  double learning_rate;
  double beta1;
  double beta2;
  double weight_decay;
  double eps;
  // Counts updates from 1.
  double step;
  // Divides the gradient.
  double gradient_divisor;
};

int32_t torch_ext_fused_adamw(at::Tensor* weights, at::Tensor* gradient, at::Tensor* exp_avg, at::Tensor* exp_avg_sq,
                              const TorchExtAdamW* update, TorchExtMessage message) noexcept;
}
