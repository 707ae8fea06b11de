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

#include "gradient_sums.h"
#include "guarded.h"
#include "kernels.h"

namespace {

using at::Tensor;
using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

// libtorch's counted pointer to a node.
using NodePointer = decltype(Edge::function);

// The leaves and sums of one call. The calling thread differentiates a graph on a CPU. Another thread, as for a GPU,
// finds no sums, and its gradients are added afterwards.
struct GradientSums {
  GradientSums(const Tensor* const* leaves, Tensor* const* sums, size_t count)
      : leaves(leaves), sums(sums), count(count) {
    outer = std::exchange(current, this);
  }
  ~GradientSums() { current = outer; }
  GradientSums(const GradientSums&) = delete;
  GradientSums& operator=(const GradientSums&) = delete;

  const Tensor* const* leaves;
  Tensor* const* sums;
  size_t count;
  const GradientSums* outer;
  static thread_local const GradientSums* current;
};

thread_local const GradientSums* GradientSums::current = nullptr;

// Whether a node takes one gradient, on a CPU, and has no hooks.
bool is_plain(Node& node) {
  return node.num_inputs() == 1 && node.input_metadata(0).device().is_cpu() && node.pre_hooks().empty() &&
         node.tensor_pre_hooks().empty() && node.retains_grad_hooks().empty() && node.post_hooks().empty();
}

// A graph in which each node has a single edge that does not end in a leaf, such as a decoder whose layers are two
// nodes each. It needs none of what the engine is for (joining paths, devices, hooks), whose overhead exceeds the
// arithmetic of small models.
struct Chain {
  struct Link {
    NodePointer node;
    size_t next;  // The index of its edge to the next link.
  };
  std::vector<Link> links;  // From the output to the input; empty where the graph is no chain.

  Chain(const Tensor& output, const Tensor& input) {
    if (!input.requires_grad() || !input.is_leaf()) return;
    const NodePointer end = torch::autograd::impl::grad_accumulator(input);
    std::vector<Link> found;
    for (NodePointer node = output.grad_fn(); node != end;) {
      if (node == nullptr || !is_plain(*node)) return;
      const auto& edges = node->next_edges();
      const auto is_link = [&](const Edge& edge) {
        return edge.is_valid() &&
               (edge.function == end || dynamic_cast<AccumulateGrad*>(edge.function.get()) == nullptr);
      };
      if (std::count_if(edges.begin(), edges.end(), is_link) != 1) return;
      const size_t next = std::find_if(edges.begin(), edges.end(), is_link) - edges.begin();
      found.push_back({node, next});
      node = edges[next].function;
    }
    links = std::move(found);
  }

  // Returns the gradient of the input, and adds those of leaves to their sums.
  Tensor differentiate(Tensor gradient) const {
    const at::NoGradGuard no_graph;
    for (const auto& [node, next] : links) {
      variable_list gradients = (*node)({std::move(gradient)});
      node->release_variables();
      // Also sums gradients of broadcast operands.
      const auto named = [&node = node](const std::string& what) { return node->name() + ": " + what; };
      torch::autograd::validate_outputs(node->next_edges(), gradients, named);
      for (size_t edge = 0; edge < gradients.size(); ++edge) {
        if (edge == next || !gradients[edge].defined()) continue;
        // An edge to an operand that requires no gradient leads nowhere.
        const auto* leaf = dynamic_cast<const AccumulateGrad*>(node->next_edge(edge).function.get());
        const Tensor* sum = leaf == nullptr ? nullptr : torch_ext::sum_of(leaf->variable);
        if (sum != nullptr) torch_ext::accumulate(*sum, gradients[edge]);
      }
      gradient = std::move(gradients[next]);
      if (!gradient.defined()) break;
    }
    return gradient;
  }
};

// The same for any graph, by libtorch's engine.
Tensor differentiate(const Tensor& output, const Tensor& gradient, const Tensor& input, const GradientSums& gathered) {
  variable_list inputs;
  inputs.reserve(gathered.count + 1);
  for (size_t leaf = 0; leaf < gathered.count; ++leaf) inputs.push_back(*gathered.leaves[leaf]);
  inputs.push_back(input);
  constexpr bool create_graph = false, allow_unused = true;
  const auto found = torch::autograd::grad({output}, inputs, {gradient}, std::nullopt, create_graph, allow_unused);
  const at::NoGradGuard no_graph;
  for (size_t leaf = 0; leaf < gathered.count; ++leaf) {
    if (found[leaf].defined()) torch_ext::accumulate(*gathered.sums[leaf], found[leaf]);
  }
  return found.back();
}

}  // namespace

namespace torch_ext {

const Tensor* sum_of(const Tensor& leaf) {
  const GradientSums* gathered = GradientSums::current;
  if (gathered == nullptr) return nullptr;
  const auto end = gathered->leaves + gathered->count;
  const auto found = std::find_if(gathered->leaves, end, [&](const Tensor* other) { return other->is_same(leaf); });
  return found == end ? nullptr : gathered->sums[found - gathered->leaves];
}

}  // namespace torch_ext

int32_t torch_ext_gather_gradients(const Tensor* output, const Tensor* gradient, const Tensor* input,
                                   const Tensor* const* leaves, Tensor* const* sums, size_t count, Tensor** out,
                                   TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    const GradientSums gathered(leaves, sums, count);
    const Chain chain(*output, *input);
    const bool is_chain = !chain.links.empty();
    const Tensor found =
        is_chain ? chain.differentiate(*gradient) : differentiate(*output, *gradient, *input, gathered);
    *out = found.defined() ? new Tensor(found) : nullptr;
  });
}
