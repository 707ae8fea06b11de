#include "gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "guarded.h"

int32_t torch_ext_gradients(const at::Tensor* output, const at::Tensor* gradient, const at::Tensor* const* inputs, size_t count,
                            at::Tensor** made, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    torch::autograd::variable_list leaves;
    leaves.reserve(count);
    for (size_t input = 0; input < count; ++input) leaves.push_back(*inputs[input]);
    constexpr bool create_graph = false, allow_unused = true;
    const auto found = torch::autograd::grad({*output}, leaves, {*gradient}, std::nullopt, create_graph, allow_unused);
    for (size_t input = 0; input < count; ++input) {
      made[input] = found[input].defined() ? new at::Tensor(found[input]) : nullptr;
    }
  });
}
