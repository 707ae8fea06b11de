#include "shim.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include <cstring>
#include <exception>
#include <optional>

namespace {

void say(TorchExtMessage message, const char* what) noexcept {
  if (message.capacity == 0) return;
  std::strncpy(message.text, what, message.capacity - 1);
  message.text[message.capacity - 1] = '\0';
}

// Runs `body`, and lets nothing out of it but a status: an exception that crosses into Rust would end the program.
template <class Body>
int32_t guarded(TorchExtMessage message, Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    say(message, error.what_without_backtrace());
  } catch (const std::exception& error) {
    say(message, error.what());
  } catch (...) {
    say(message, "an exception of unknown type");
  }
  return 1;
}

at::Tensor scalar(double value, const at::Tensor& like) {
  return at::full({}, value, like.options().dtype(at::kFloat));
}

}  // namespace

int32_t torch_ext_fused_adamw(at::Tensor* weights, at::Tensor* gradient, at::Tensor* exp_avg, at::Tensor* exp_avg_sq,
                              const TorchExtAdamW* update, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    std::optional<at::Tensor> divisor;
    if (update->gradient_divisor != 1.0) divisor = scalar(update->gradient_divisor, *weights);
    at::_fused_adamw_({*weights}, {*gradient}, {*exp_avg}, {*exp_avg_sq}, {}, {scalar(update->step, *weights)},
                      update->learning_rate, update->beta1, update->beta2, update->weight_decay, update->eps,
                      /*amsgrad=*/false, /*maximize=*/false, divisor, /*found_inf=*/{});
  });
}
