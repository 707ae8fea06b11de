// The part of the C surface that wraps c10d: its store, its process groups, and what they do. As in shim.h, every function is
// noexcept and returns a TorchExtStatus. Pointers are borrowed for the call; where a call makes something, `made` receives it,
// and the function named `..._free` takes it back.
#pragma once

#include "shim.h"

struct TorchExtStore;
struct TorchExtGroup;
struct TorchExtWork;

extern "C" {

struct TorchExtBytes {
  const uint8_t* data;
  size_t length;
};

// Receives at most `capacity` bytes of an answer, and its whole length.
struct TorchExtAnswer {
  uint8_t* data;
  size_t capacity;
  size_t* length;
};

// A client of the store at `host:port`. Where `listener` is not -1, it is a listening socket on that port: the store then
// belongs to this process, which serves it on the socket and closes it in the end.
int32_t torch_ext_store_open(TorchExtBytes host, uint16_t port, int32_t listener, int64_t timeout_ms, TorchExtStore** made,
                             TorchExtMessage message) noexcept;
void torch_ext_store_free(TorchExtStore* store) noexcept;
int32_t torch_ext_store_set(TorchExtStore* store, TorchExtBytes key, TorchExtBytes value, TorchExtMessage message) noexcept;
// Waits for the key, but not for longer than `timeout_ms`.
int32_t torch_ext_store_get(TorchExtStore* store, TorchExtBytes key, int64_t timeout_ms, TorchExtAnswer answer,
                            TorchExtMessage message) noexcept;
int32_t torch_ext_store_compare_set(TorchExtStore* store, TorchExtBytes key, TorchExtBytes expected, TorchExtBytes desired,
                                    TorchExtAnswer answer, TorchExtMessage message) noexcept;
int32_t torch_ext_store_add(TorchExtStore* store, TorchExtBytes key, int64_t amount, int64_t* sum,
                            TorchExtMessage message) noexcept;
int32_t torch_ext_store_check(TorchExtStore* store, TorchExtBytes key, int32_t* is_there, TorchExtMessage message) noexcept;

struct TorchExtRank {
  int32_t index;
  int32_t world_size;
};

// `name` keeps groups apart that meet in one store; `address` is where this process listens for the others.
int32_t torch_ext_group_gloo(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, TorchExtBytes address,
                             int64_t timeout_ms, TorchExtGroup** made, TorchExtMessage message) noexcept;
// Defined with the feature `nccl` only.
int32_t torch_ext_group_nccl(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, int64_t timeout_ms,
                             TorchExtGroup** made, TorchExtMessage message) noexcept;
// Joins the group's threads: work under way ends first, at the latest by its timeout.
void torch_ext_group_free(TorchExtGroup* group) noexcept;
// Closes the connections. Alone among the functions on a group it may be called while another thread is in one.
int32_t torch_ext_group_abort(TorchExtGroup* group, TorchExtMessage message) noexcept;

// `operation` is c10d's ReduceOp::RedOpType. The work holds a counted handle of each tensor.
int32_t torch_ext_all_reduce(TorchExtGroup* group, at::Tensor* tensor, uint8_t operation, TorchExtWork** made,
                             TorchExtMessage message) noexcept;
int32_t torch_ext_reduce_scatter(TorchExtGroup* group, at::Tensor* output, at::Tensor* input, uint8_t operation,
                                 TorchExtWork** made, TorchExtMessage message) noexcept;
int32_t torch_ext_all_gather(TorchExtGroup* group, at::Tensor* output, at::Tensor* input, TorchExtWork** made,
                             TorchExtMessage message) noexcept;
int32_t torch_ext_broadcast(TorchExtGroup* group, at::Tensor* tensor, int32_t root, TorchExtWork** made,
                            TorchExtMessage message) noexcept;
int32_t torch_ext_barrier(TorchExtGroup* group, TorchExtWork** made, TorchExtMessage message) noexcept;

// Returns when nothing is read or written any more, whether or not it failed.
int32_t torch_ext_work_wait(TorchExtWork* work, TorchExtMessage message) noexcept;
void torch_ext_work_free(TorchExtWork* work) noexcept;
}
