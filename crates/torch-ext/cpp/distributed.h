// The part of the C surface that wraps c10d: stores, process groups and collectives. The rules of shim.h apply. `out`
// receives an object that the function named `..._free` releases.
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

// Opens a client of the store at `host:port`. Where `listener` is not -1, it is a listening socket on that port: this
// process then serves the store on it, and closes it in the end.
int32_t torch_ext_store_open(TorchExtBytes host, uint16_t port, int32_t listener, int64_t timeout_ms,
                             TorchExtStore** out, TorchExtMessage message) noexcept;
void torch_ext_store_free(TorchExtStore* store) noexcept;
int32_t torch_ext_store_set(TorchExtStore* store, TorchExtBytes key, TorchExtBytes value,
                            TorchExtMessage message) noexcept;
// Waits for the key, at most `timeout_ms`.
int32_t torch_ext_store_get(TorchExtStore* store, TorchExtBytes key, int64_t timeout_ms, TorchExtAnswer answer,
                            TorchExtMessage message) noexcept;
int32_t torch_ext_store_compare_set(TorchExtStore* store, TorchExtBytes key, TorchExtBytes expected,
                                    TorchExtBytes desired, TorchExtAnswer answer, TorchExtMessage message) noexcept;
int32_t torch_ext_store_add(TorchExtStore* store, TorchExtBytes key, int64_t amount, int64_t* sum,
                            TorchExtMessage message) noexcept;
int32_t torch_ext_store_check(TorchExtStore* store, TorchExtBytes key, int32_t* is_there,
                              TorchExtMessage message) noexcept;

struct TorchExtRank {
  int32_t index;
  int32_t world_size;
};

// `name` separates groups that use one store; `address` is where this process listens for the others.
int32_t torch_ext_group_gloo(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, TorchExtBytes address,
                             int64_t timeout_ms, TorchExtGroup** out, TorchExtMessage message) noexcept;
// Defined with the feature `nccl` only.
int32_t torch_ext_group_nccl(TorchExtStore* store, TorchExtBytes name, TorchExtRank rank, int64_t timeout_ms,
                             TorchExtGroup** out, TorchExtMessage message) noexcept;
// Joins the group's threads: pending work ends first, at the latest by its timeout.
void torch_ext_group_free(TorchExtGroup* group) noexcept;
// Closes the connections. The only function that may be called while another thread uses the group.
int32_t torch_ext_group_abort(TorchExtGroup* group, TorchExtMessage message) noexcept;

// `operation` is c10d's ReduceOp::RedOpType. The work holds a counted handle of each tensor.
int32_t torch_ext_all_reduce(TorchExtGroup* group, at::Tensor* tensor, uint8_t operation, TorchExtWork** out,
                             TorchExtMessage message) noexcept;
int32_t torch_ext_reduce_scatter(TorchExtGroup* group, at::Tensor* output, at::Tensor* input, uint8_t operation,
                                 TorchExtWork** out, TorchExtMessage message) noexcept;
int32_t torch_ext_all_gather(TorchExtGroup* group, at::Tensor* output, at::Tensor* input, TorchExtWork** out,
                             TorchExtMessage message) noexcept;
int32_t torch_ext_broadcast(TorchExtGroup* group, at::Tensor* tensor, int32_t root, TorchExtWork** out,
                            TorchExtMessage message) noexcept;
int32_t torch_ext_barrier(TorchExtGroup* group, TorchExtWork** out, TorchExtMessage message) noexcept;

// Returns when no tensor is read or written any more, on success and on failure.
int32_t torch_ext_work_wait(TorchExtWork* work, TorchExtMessage message) noexcept;
void torch_ext_work_free(TorchExtWork* work) noexcept;
}
