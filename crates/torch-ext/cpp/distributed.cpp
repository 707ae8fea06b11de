#include "distributed.h"

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>

#include "guarded.h"
#include "handles.h"

using torch_ext::guarded;
using torch_ext::text;

namespace {

std::vector<uint8_t> value(TorchExtBytes bytes) { return std::vector<uint8_t>(bytes.data, bytes.data + bytes.length); }

void copy_to(const std::vector<uint8_t>& value, TorchExtAnswer answer) {
  std::copy_n(value.begin(), std::min(value.size(), answer.capacity), answer.data);
  *answer.length = value.size();
}

template <class Start>
int32_t start(TorchExtGroup* group, std::vector<at::Tensor> tensors, TorchExtWork** out, TorchExtMessage message,
              Start start) noexcept {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    auto work = start(*group->backend, tensors);
    *out = new TorchExtWork{std::move(work), std::move(tensors)};
  });
}

c10d::ReduceOp reduce_op(uint8_t operation) { return static_cast<c10d::ReduceOp::RedOpType>(operation); }

}  // namespace

int32_t torch_ext_store_open(TorchExtBytes host, uint16_t port, int32_t listener, int64_t timeout_ms,
                             TorchExtStore** out, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    options.waitWorkers = false;
    // The caller counts the ranks that arrive, and can name the missing ones.
    if (listener != -1) {
      options.isServer = true;
      options.masterListenFd = listener;
    }
    *out = new TorchExtStore{c10::make_intrusive<c10d::TCPStore>(text(host), options)};
  });
}

void torch_ext_store_free(TorchExtStore* store) noexcept {
  guarded(TorchExtMessage{nullptr, 0}, [&] { delete store; });
}

int32_t torch_ext_store_set(TorchExtStore* store, TorchExtBytes key, TorchExtBytes bytes,
                            TorchExtMessage message) noexcept {
  return guarded(message, [&] { store->store->set(text(key), value(bytes)); });
}

int32_t torch_ext_store_get(TorchExtStore* store, TorchExtBytes key, int64_t timeout_ms, TorchExtAnswer answer,
                            TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    store->store->wait({text(key)}, std::chrono::milliseconds(timeout_ms));
    copy_to(store->store->get(text(key)), answer);
  });
}

int32_t torch_ext_store_compare_set(TorchExtStore* store, TorchExtBytes key, TorchExtBytes expected,
                                    TorchExtBytes desired, TorchExtAnswer answer, TorchExtMessage message) noexcept {
  return guarded(message,
                 [&] { copy_to(store->store->compareSet(text(key), value(expected), value(desired)), answer); });
}

int32_t torch_ext_store_add(TorchExtStore* store, TorchExtBytes key, int64_t amount, int64_t* sum,
                            TorchExtMessage message) noexcept {
  return guarded(message, [&] { *sum = store->store->add(text(key), amount); });
}

int32_t torch_ext_store_check(TorchExtStore* store, TorchExtBytes key, int32_t* is_there,
                              TorchExtMessage message) noexcept {
  return guarded(message, [&] { *is_there = store->store->check({text(key)}) ? 1 : 0; });
}

void torch_ext_group_free(TorchExtGroup* group) noexcept {
  guarded(TorchExtMessage{nullptr, 0}, [&] { delete group; });
}

int32_t torch_ext_group_abort(TorchExtGroup* group, TorchExtMessage message) noexcept {
  return guarded(message, [&] { group->abort(); });
}

int32_t torch_ext_all_reduce(TorchExtGroup* group, at::Tensor* tensor, uint8_t operation, TorchExtWork** out,
                             TorchExtMessage message) noexcept {
  return start(group, {*tensor}, out, message, [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
    c10d::AllreduceOptions options;
    options.reduceOp = reduce_op(operation);
    return backend.allreduce(tensors, options);
  });
}

int32_t torch_ext_reduce_scatter(TorchExtGroup* group, at::Tensor* output, at::Tensor* input, uint8_t operation,
                                 TorchExtWork** out, TorchExtMessage message) noexcept {
  return start(group, {*output, *input}, out, message, [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
    c10d::ReduceScatterOptions options;
    options.reduceOp = reduce_op(operation);
    return backend._reduce_scatter_base(tensors[0], tensors[1], options);
  });
}

int32_t torch_ext_all_gather(TorchExtGroup* group, at::Tensor* output, at::Tensor* input, TorchExtWork** out,
                             TorchExtMessage message) noexcept {
  return start(group, {*output, *input}, out, message, [](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
    return backend._allgather_base(tensors[0], tensors[1]);
  });
}

int32_t torch_ext_broadcast(TorchExtGroup* group, at::Tensor* tensor, int32_t root, TorchExtWork** out,
                            TorchExtMessage message) noexcept {
  return start(group, {*tensor}, out, message, [&](c10d::Backend& backend, std::vector<at::Tensor>& tensors) {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return backend.broadcast(tensors, options);
  });
}

int32_t torch_ext_barrier(TorchExtGroup* group, TorchExtWork** out, TorchExtMessage message) noexcept {
  return start(group, {}, out, message,
               [](c10d::Backend& backend, std::vector<at::Tensor>&) { return backend.barrier(); });
}

int32_t torch_ext_work_wait(TorchExtWork* work, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    work->work->wait();
  });
}

void torch_ext_work_free(TorchExtWork* work) noexcept {
  guarded(TorchExtMessage{nullptr, 0}, [&] { delete work; });
}
