#include "gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "gathering.h"
#include "guarded.h"
#include "kernels.h"

namespace {

using at::Tensor;

// Of one call, while it lasts. A graph of a CPU is differentiated by the thread that asks; where another one is at work, as for
// a GPU, it finds none, and what it computes is added afterwards.
struct Gathering {
  Gathering(const Tensor* const* leaves, Tensor* const* sums, size_t count) : leaves(leaves), sums(sums), count(count) {
    outer = std::exchange(current, this);
  }
  ~Gathering() { current = outer; }
  Gathering(const Gathering&) = delete;
  Gathering& operator=(const Gathering&) = delete;

  const Tensor* const* leaves;
  Tensor* const* sums;
  size_t count;
  const Gathering* outer;
  static thread_local const Gathering* current;
};

thread_local const Gathering* Gathering::current = nullptr;

}  // namespace

namespace torch_ext {

const Tensor* sum_of(const Tensor& leaf) {
  const Gathering* gathering = Gathering::current;
  if (gathering == nullptr) return nullptr;
  const auto end = gathering->leaves + gathering->count;
  const auto found = std::find_if(gathering->leaves, end, [&](const Tensor* other) { return other->is_same(leaf); });
  return found == end ? nullptr : gathering->sums[found - gathering->leaves];
}

void add_to(const Tensor& sum, const Tensor& gradient) {
  const bool is_stored = gradient.scalar_type() == at::kFloat || gradient.scalar_type() == at::kBFloat16;
  // Other devices, kinds and layouts are libtorch's.
  gradient.is_cpu() && is_stored && gradient.is_contiguous() ? accumulate(sum, gradient) : void(sum.add_(gradient));
}

}  // namespace torch_ext

int32_t torch_ext_gather_gradients(const Tensor* output, const Tensor* gradient, const Tensor* input,
                                   const Tensor* const* leaves, Tensor* const* sums, size_t count, Tensor** made,
                                   TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    torch::autograd::variable_list inputs;
    inputs.reserve(count + 1);
    for (size_t leaf = 0; leaf < count; ++leaf) inputs.push_back(*leaves[leaf]);
    inputs.push_back(*input);
    const Gathering gathering(leaves, sums, count);
    constexpr bool create_graph = false, allow_unused = true;
    const auto found = torch::autograd::grad({*output}, inputs, {*gradient}, std::nullopt, create_graph, allow_unused);
    const at::NoGradGuard no_graph;
    for (size_t leaf = 0; leaf < count; ++leaf) {
      if (found[leaf].defined()) torch_ext::add_to(*sums[leaf], found[leaf]);
    }
    *made = found[count].defined() ? new Tensor(found[count]) : nullptr;
  });
}
