#include "varlen.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "guarded.h"

namespace {

using at::Tensor;

// sdp::CustomMaskType::CausalFromBottomRight; its header is part of CUDA.
constexpr int64_t CAUSAL_FROM_BOTTOM_RIGHT = 2;

// Repeats the heads that queries share: the memory-efficient kernel has no grouped-query attention.
Tensor repeat_heads(const Tensor& x, int64_t heads) {
  const auto repeats = heads / x.size(1);
  return (repeats == 1 ? x : x.repeat_interleave(repeats, 1)).unsqueeze(0);
}

bool requires_gradient(const Tensor& q, const Tensor& k, const Tensor& v) {
  return c10::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
}

}  // namespace

int32_t torch_ext_varlen_attention(const Tensor* q, const Tensor* k, const Tensor* v, const Tensor* ends_q,
                                   const Tensor* ends_k, int64_t longest_q, int64_t longest_k, Tensor** out,
                                   TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    if (q->scalar_type() == at::kBFloat16) {
      // Flash attention aligns its causal mask to the last query and key.
      const auto results = at::_flash_attention_forward(*q, *k, *v, *ends_q, *ends_k, longest_q, longest_k,
                                                        /*dropout_p=*/0.0, /*is_causal=*/true,
                                                        /*return_debug_mask=*/false);
      *out = new Tensor(std::get<0>(results));
      return;
    }
    // Flash attention does not support fp32.
    const auto heads = q->size(1);
    const auto results = at::_efficient_attention_forward(
        q->unsqueeze(0), repeat_heads(*k, heads), repeat_heads(*v, heads), /*bias=*/{}, *ends_q, *ends_k, longest_q,
        longest_k, /*dropout_p=*/0.0, CAUSAL_FROM_BOTTOM_RIGHT, /*compute_log_sumexp=*/requires_gradient(*q, *k, *v));
    *out = new Tensor(std::get<0>(results).squeeze(0));
  });
}
