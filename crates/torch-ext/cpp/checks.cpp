#include "checks.h"

#include <c10/util/Exception.h>

#include <limits>

namespace torch_ext {
namespace {

// Whether the storage reaches as far as the last element.
bool fits_storage(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return true;
  int64_t last = tensor.storage_offset();
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.size(dim) - 1, tensor.stride(dim), &step)) return false;
    if (__builtin_add_overflow(last, step, &last)) return false;
  }
  const auto available = tensor.storage().nbytes() / tensor.element_size();
  return last >= 0 && uint64_t(last) < available && tensor.const_data_ptr() != nullptr;
}

}  // namespace

bool is_plain(const at::Tensor& tensor) {
  return tensor.defined() && tensor.layout() == at::kStrided && !tensor.is_nested() && tensor.device().is_cpu() &&
         !tensor.is_neg() && !tensor.is_conj() && !tensor._is_zerotensor() && tensor.has_storage() &&
         fits_storage(tensor);
}

bool is_dense(const at::Tensor& tensor) { return is_plain(tensor) && tensor.is_contiguous(); }

at::Tensor dense(const at::Tensor& tensor) { return is_dense(tensor) ? tensor : tensor.resolve_neg().contiguous(); }

void check_dense(const char* name, const at::Tensor& tensor, at::ScalarType kind, at::IntArrayRef sizes) {
  TORCH_CHECK(is_dense(tensor), name, " is not contiguous memory on the CPU");
  TORCH_CHECK(tensor.scalar_type() == kind, name, " is ", tensor.scalar_type(), "; it must be ", kind);
  TORCH_CHECK(tensor.sizes() == sizes, name, " has shape ", tensor.sizes(), "; it must have ", sizes);
}

at::ScalarType check_operand(const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(is_dense(tensor), name, " is not contiguous memory on the CPU");
  const at::ScalarType kind = tensor.scalar_type();
  TORCH_CHECK(kind == at::kFloat || kind == at::kBFloat16, name, " is ", kind, "; it must be Float or BFloat16");
  return kind;
}

static void check_pair(const at::Tensor& one, const at::Tensor& other) {
  if (one.numel() == 0 || other.numel() == 0) return;
  const auto begin = [](const at::Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()); };
  const bool is_before = begin(one) + one.nbytes() <= begin(other),
             is_behind = begin(other) + other.nbytes() <= begin(one);
  TORCH_CHECK(is_before || is_behind, "two arguments of one call share memory");
}

void check_disjoint(const std::vector<const at::Tensor*>& all) {
  for (size_t one = 0; one < all.size(); ++one) {
    for (size_t other = 0; other < one; ++other) check_pair(*all[one], *all[other]);
  }
}

int64_t saturating_product(int64_t one, int64_t other) {
  int64_t product = 0;
  return __builtin_mul_overflow(one, other, &product) ? std::numeric_limits<int64_t>::max() : product;
}

}  // namespace torch_ext

int32_t torch_ext_is_plain(const at::Tensor* tensor) noexcept {
  try {
    return torch_ext::is_plain(*tensor) ? 1 : 0;
  } catch (...) {
    // A tensor type that refuses to answer is none that the kernels read.
    return 0;
  }
}
