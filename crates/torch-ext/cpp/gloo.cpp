#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <deque>
#include <utility>
#include <vector>

#include "distributed.h"
#include "guarded.h"
#include "handles.h"

namespace {

using at::Tensor;
using c10d::ReduceOp;
using c10d::Work;
using std::chrono::milliseconds;

void reduce(Tensor& out, const Tensor& one, const Tensor& other, const ReduceOp& operation) {
  switch (operation) {
    case ReduceOp::SUM: at::add_out(out, one, other); break;
    case ReduceOp::PRODUCT: at::mul_out(out, one, other); break;
    case ReduceOp::MIN: at::minimum_out(out, one, other); break;
    case ReduceOp::MAX: at::maximum_out(out, one, other); break;
    default: TORCH_CHECK(false, "Gloo does not reduce by operation ", int(operation));
  }
}

// Contributions of all ranks to this rank's part. `wait` reduces them, in the order of the ranks.
class PendingReduction final : public Work {
 public:
  PendingReduction(c10::intrusive_ptr<Work> arrival, Tensor received, Tensor output, ReduceOp operation)
      : arrival_(std::move(arrival)),
        received_(std::move(received)),
        output_(std::move(output)),
        operation_(std::move(operation)) {}

  bool wait(milliseconds timeout) override {
    if (!arrival_) return true;
    // Released even where the wait throws: nothing is written later, and no memory is kept.
    const Tensor received = std::exchange(received_, Tensor());
    Tensor output = std::exchange(output_, Tensor());
    arrival_->wait(timeout);
    if (received.defined()) reduce_pieces(output, received);
    arrival_.reset();
    return true;
  }

  // Whether `wait` would not block.
  bool has_arrived() const {
    return !arrival_ || (received_.defined() && arrival_->isCompleted() && arrival_->isSuccess());
  }

 private:
  void reduce_pieces(Tensor& output, const Tensor& received) const {
    const std::vector<Tensor> pieces = received.split(output.numel());
    if (pieces.size() == 1) {
      output.copy_(pieces[0]);
      return;
    }
    reduce(output, pieces[0], pieces[1], operation_);
    for (size_t rank = 2; rank < pieces.size(); ++rank) reduce(output, output, pieces[rank], operation_);
  }

  c10::intrusive_ptr<Work> arrival_;  // Null once it has ended.
  Tensor received_, output_;
  ReduceOp operation_;
};

// Several works as one.
class JointWork final : public Work {
 public:
  explicit JointWork(std::vector<c10::intrusive_ptr<Work>> parts) : parts_(std::move(parts)) {}

  bool wait(milliseconds timeout) override {
    for (const auto& part : parts_) part->wait(timeout);
    return true;
  }

 private:
  std::vector<c10::intrusive_ptr<Work>> parts_;
};

// c10d implements Gloo's reduce-scatter as an all-reduce of a copy, and its all-gather with a copy of the result. Here
// each number is sent once to each rank that needs it, and gathered parts are received in place.
class Gloo final : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;

  // The connections are a protected member of c10d's class.
  void close_connections() {
    for (const auto& context : contexts_) context->closeConnections();
  }

  c10::intrusive_ptr<Work> _reduce_scatter_base(Tensor& output, Tensor& input,
                                                const c10d::ReduceScatterOptions& options) override {
    // Frees the memory of finished work that was not waited for.
    while (!pending_.empty() && pending_.front()->has_arrived()) {
      pending_.front()->wait(kNoTimeout);
      pending_.pop_front();
    }
    Tensor received = at::empty_like(input);
    std::vector<int64_t> equal_splits;
    auto arrival = alltoall_base(received, input, equal_splits, equal_splits);
    pending_.push_back(c10::make_intrusive<PendingReduction>(std::move(arrival), received, output, options.reduceOp));
    return pending_.back();
  }

  c10::intrusive_ptr<Work> _allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions&) override {
    std::vector<Tensor> pieces = output.split(input.numel());
    pieces[getRank()].copy_(input);
    std::vector<c10::intrusive_ptr<Work>> parts;
    c10d::BroadcastOptions options;
    for (options.rootRank = 0; options.rootRank < getSize(); ++options.rootRank) {
      std::vector<Tensor> piece{pieces[options.rootRank]};
      parts.push_back(broadcast(piece, options));
    }
    return c10::make_intrusive<JointWork>(std::move(parts));
  }

 private:
  std::deque<c10::intrusive_ptr<PendingReduction>> pending_;
};

}  // namespace

int32_t torch_ext_group_gloo(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, TorchExtBytes address,
                             int64_t timeout_ms, TorchExtGroup** out, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    auto options = Gloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(Gloo::createDeviceForHostname(torch_ext::text(address)));
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(torch_ext::text(name), store->store);
    auto gloo = c10::make_intrusive<Gloo>(prefixed, rank.index, rank.world_size, options);
    *out = new TorchExtGroup{gloo, [gloo = gloo.get()] { gloo->close_connections(); }};
  });
}
