#include "varlen.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "guarded.h"

namespace {

using at::Tensor;

// sdp::CustomMaskType::CausalFromBottomRight, whose header is one of CUDA's.
constexpr int64_t LAST_SEES_ALL = 2;

// Heads as often as queries share them, as this kernel knows no groups.
Tensor for_each_head(const Tensor& x, int64_t heads) {
  const auto repeats = heads / x.size(1);
  return (repeats == 1 ? x : x.repeat_interleave(repeats, 1)).unsqueeze(0);
}

bool wants_gradient(const Tensor& q, const Tensor& k, const Tensor& v) {
  return c10::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
}

}  // namespace

int32_t torch_ext_varlen_attention(const Tensor* q, const Tensor* k, const Tensor* v, const Tensor* ends_q,
                                   const Tensor* ends_k, int64_t longest_q, int64_t longest_k, Tensor** made,
                                   TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    if (q->scalar_type() == at::kBFloat16) {
      // Flash attention, where the last query sees all keys whenever it is causal.
      const auto results = at::_flash_attention_forward(*q, *k, *v, *ends_q, *ends_k, longest_q, longest_k,
                                                        /*dropout_p=*/0.0, /*is_causal=*/true,
                                                        /*return_debug_mask=*/false);
      *made = new Tensor(std::get<0>(results));
      return;
    }
    // Flash attention takes no fp32.
    const auto heads = q->size(1);
    const auto results = at::_efficient_attention_forward(
        q->unsqueeze(0), for_each_head(*k, heads), for_each_head(*v, heads), /*bias=*/{}, *ends_q, *ends_k, longest_q,
        longest_k, /*dropout_p=*/0.0, LAST_SEES_ALL, /*compute_log_sumexp=*/wants_gradient(*q, *k, *v));
    *made = new Tensor(std::get<0>(results).squeeze(0));
  });
}
