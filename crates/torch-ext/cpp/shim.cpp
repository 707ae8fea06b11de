#include "shim.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include <optional>

#include "guarded.h"

namespace {

at::Tensor scalar(double value, const at::Tensor& like) {
  return at::full({}, value, like.options().dtype(at::kFloat));
}

}  // namespace

int32_t torch_ext_fused_adamw(at::Tensor* weights, at::Tensor* gradient, at::Tensor* exp_avg, at::Tensor* exp_avg_sq,
                              const TorchExtAdamW* update, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    at::NoGradGuard no_grad;
    std::optional<at::Tensor> divisor;
    if (update->gradient_divisor != 1.0) divisor = scalar(update->gradient_divisor, *weights);
    at::_fused_adamw_({*weights}, {*gradient}, {*exp_avg}, {*exp_avg_sq}, {}, {scalar(update->step, *weights)},
                      update->learning_rate, update->beta1, update->beta2, update->weight_decay, update->eps,
                      /*amsgrad=*/false, /*maximize=*/false, divisor, /*found_inf=*/{});
  });
}
