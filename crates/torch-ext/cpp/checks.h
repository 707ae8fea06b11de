// Checks of tensors right before a kernel touches their memory. Rust checks the same with errors that name fields;
// these hold in backward passes too, where a tensor may have changed since the forward pass (`set_data`).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "shim.h"

namespace torch_ext {

// Whether the elements of `tensor` are what its memory on the CPU holds: it is strided, no negation, conjugation or
// zero fill is pending, and its storage holds every element.
bool is_plain(const at::Tensor& tensor);

// Whether `tensor` is plain and contiguous.
bool is_dense(const at::Tensor& tensor);

// `tensor` itself where it is dense, otherwise a dense copy.
at::Tensor dense(const at::Tensor& tensor);

// Throws unless `tensor` is dense and of this kind and shape.
void check_dense(const char* name, const at::Tensor& tensor, at::ScalarType kind, at::IntArrayRef sizes);

// Throws unless `tensor` is dense and of a kind that the kernels compute with, which it returns.
at::ScalarType check_operand(const char* name, const at::Tensor& tensor);

// Throws unless dense tensors are disjoint in memory.
void check_disjoint(const std::vector<const at::Tensor*>& all);

// one * other, or the largest number where that is more.
int64_t saturating_product(int64_t one, int64_t other);

}  // namespace torch_ext

extern "C" {

// 1 where `torch_ext::is_plain` holds, otherwise 0.
int32_t torch_ext_is_plain(const at::Tensor* tensor) noexcept;
}
