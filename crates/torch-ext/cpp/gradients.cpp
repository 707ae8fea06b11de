#include "gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gathering.h"
#include "guarded.h"
#include "kernels.h"

namespace {

using at::Tensor;
using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

// How libtorch counts its nodes.
using Held = decltype(Edge::function);

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

// Whether there is no more to a node than what it computes, on a CPU, of one gradient.
bool is_plain(Node& node) {
  return node.num_inputs() == 1 && node.input_metadata(0).device().is_cpu() && node.pre_hooks().empty() &&
         node.tensor_pre_hooks().empty() && node.retains_grad_hooks().empty() && node.post_hooks().empty();
}

// A graph in which every node has one way on beside those to leaves: a decoder whose layers are two nodes each. What makes up the
// engine (ways that meet again, devices, hooks) does not occur there, and takes longer than what narrow nodes compute.
struct Chain {
  struct Link {
    Held node;
    size_t on;  // Which of its edges is the way on.
  };
  std::vector<Link> links;  // From the output to the input; none where the graph is not such a chain.

  Chain(const Tensor& output, const Tensor& input) {
    if (!input.requires_grad() || !input.is_leaf()) return;
    const Held end = torch::autograd::impl::grad_accumulator(input);
    std::vector<Link> found;
    for (Held node = output.grad_fn(); node != end;) {
      if (node == nullptr || !is_plain(*node)) return;
      const auto& edges = node->next_edges();
      const auto leads_on = [&](const Edge& edge) {
        return edge.is_valid() && (edge.function == end || dynamic_cast<AccumulateGrad*>(edge.function.get()) == nullptr);
      };
      if (std::count_if(edges.begin(), edges.end(), leads_on) != 1) return;
      const size_t on = std::find_if(edges.begin(), edges.end(), leads_on) - edges.begin();
      found.push_back({node, on});
      node = edges[on].function;
    }
    links = std::move(found);
  }

  // The gradient of the input; those of leaves are added to their sums, as far as these are gathered.
  Tensor differentiate(Tensor gradient) const {
    const at::NoGradGuard no_graph;
    for (const auto& [node, on] : links) {
      variable_list gradients = (*node)({std::move(gradient)});
      node->release_variables();
      // Also sums what was handed on of an operand that stood in for many.
      const auto named = [&node = node](const std::string& what) { return node->name() + ": " + what; };
      torch::autograd::validate_outputs(node->next_edges(), gradients, named);
      for (size_t edge = 0; edge < gradients.size(); ++edge) {
        if (edge == on || !gradients[edge].defined()) continue;
        const auto* leaf = static_cast<const AccumulateGrad*>(node->next_edge(edge).function.get());
        if (const Tensor* sum = torch_ext::sum_of(leaf->variable)) torch_ext::add_to(*sum, gradients[edge]);
      }
      gradient = std::move(gradients[on]);
      if (!gradient.defined()) break;
    }
    return gradient;
  }
};

// The same of any graph.
Tensor differentiate(const Tensor& output, const Tensor& gradient, const Tensor& input, const Gathering& gathering) {
  variable_list inputs;
  inputs.reserve(gathering.count + 1);
  for (size_t leaf = 0; leaf < gathering.count; ++leaf) inputs.push_back(*gathering.leaves[leaf]);
  inputs.push_back(input);
  constexpr bool create_graph = false, allow_unused = true;
  const auto found = torch::autograd::grad({output}, inputs, {gradient}, std::nullopt, create_graph, allow_unused);
  const at::NoGradGuard no_graph;
  for (size_t leaf = 0; leaf < gathering.count; ++leaf) {
    if (found[leaf].defined()) torch_ext::add_to(*gathering.sums[leaf], found[leaf]);
  }
  return found.back();
}

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
    const Gathering gathering(leaves, sums, count);
    const Chain chain(*output, *input);
    const bool is_chain = !chain.links.empty();
    const Tensor found = is_chain ? chain.differentiate(*gradient) : differentiate(*output, *gradient, *input, gathering);
    *made = found.defined() ? new Tensor(found) : nullptr;
  });
}
