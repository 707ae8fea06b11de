// The types behind the opaque pointers of distributed.h.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <functional>
#include <string>
#include <vector>

#include "distributed.h"

struct TorchExtStore {
  c10::intrusive_ptr<c10d::Store> store;
};

struct TorchExtGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
  std::function<void()> abort;
};

struct TorchExtWork {
  c10::intrusive_ptr<c10d::Work> work;
  // Some c10d work does not hold its tensors.
  std::vector<at::Tensor> tensors;
};

namespace torch_ext {

inline std::string text(TorchExtBytes bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data), bytes.length);
}

}  // namespace torch_ext
