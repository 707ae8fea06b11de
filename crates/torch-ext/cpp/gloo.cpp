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

// What each rank has sent for this one, which whoever waits for it reduces, in the order of the ranks.
class Pieces final : public Work {
 public:
  Pieces(c10::intrusive_ptr<Work> arrival, Tensor received, Tensor output, ReduceOp operation)
      : arrival_(std::move(arrival)),
        received_(std::move(received)),
        output_(std::move(output)),
        operation_(std::move(operation)) {}

  bool wait(milliseconds timeout) override {
    if (!arrival_) return true;
    // Also where this throws, nothing is written behind it, and no memory kept.
    const Tensor received = std::exchange(received_, Tensor());
    Tensor output = std::exchange(output_, Tensor());
    arrival_->wait(timeout);
    if (received.defined()) put_together(output, received);
    arrival_.reset();
    return true;
  }

  // Whether waiting would take no time.
  bool is_there() const { return !arrival_ || (received_.defined() && arrival_->isCompleted() && arrival_->isSuccess()); }

 private:
  void put_together(Tensor& output, const Tensor& received) const {
    const std::vector<Tensor> pieces = received.split(output.numel());
    if (pieces.size() == 1) {
      output.copy_(pieces[0]);
      return;
    }
    reduce(output, pieces[0], pieces[1], operation_);
    for (size_t rank = 2; rank < pieces.size(); ++rank) reduce(output, output, pieces[rank], operation_);
  }

  c10::intrusive_ptr<Work> arrival_;  // None once it is over.
  Tensor received_, output_;
  ReduceOp operation_;
};

// Several that are waited for as one.
class Together final : public Work {
 public:
  explicit Together(std::vector<c10::intrusive_ptr<Work>> parts) : parts_(std::move(parts)) {}

  bool wait(milliseconds timeout) override {
    for (const auto& part : parts_) part->wait(timeout);
    return true;
  }

 private:
  std::vector<c10::intrusive_ptr<Work>> parts_;
};

// c10d has Gloo reduce-scatter by copying everything, summing it up on all ranks and throwing away what is not asked for, and
// all-gather by copying what has come. Here a number travels once to each rank that needs it, and what is gathered to its place.
class Gloo final : public c10d::ProcessGroupGloo {
 public:
  using c10d::ProcessGroupGloo::ProcessGroupGloo;

  // Reaches the connections, which c10d keeps to itself and its heirs.
  void close_connections() {
    for (const auto& context : contexts_) context->closeConnections();
  }

  c10::intrusive_ptr<Work> _reduce_scatter_base(Tensor& output, Tensor& input,
                                                const c10d::ReduceScatterOptions& options) override {
    // So that what came has made room for what will, where nobody has waited for it.
    while (!under_way_.empty() && under_way_.front()->is_there()) {
      under_way_.front()->wait(kNoTimeout);
      under_way_.pop_front();
    }
    Tensor received = at::empty_like(input);
    std::vector<int64_t> equal;
    auto arrival = alltoall_base(received, input, equal, equal);
    under_way_.push_back(c10::make_intrusive<Pieces>(std::move(arrival), received, output, options.reduceOp));
    return under_way_.back();
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
    return c10::make_intrusive<Together>(std::move(parts));
  }

 private:
  std::deque<c10::intrusive_ptr<Pieces>> under_way_;
};

}  // namespace

int32_t torch_ext_group_gloo(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, TorchExtBytes address,
                             int64_t timeout_ms, TorchExtGroup** made, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    auto options = Gloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(Gloo::createDeviceForHostname(torch_ext::text(address)));
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(torch_ext::text(name), store->store);
    auto gloo = c10::make_intrusive<Gloo>(prefixed, rank.index, rank.world_size, options);
    *made = new TorchExtGroup{gloo, [gloo = gloo.get()] { gloo->close_connections(); }};
  });
}
