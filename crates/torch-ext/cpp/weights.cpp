#include "weights.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "adamw.h"
#include "checks.h"
#include "guarded.h"
#include "kernels.h"
#include "vectors.h"

namespace {

using namespace torch_ext;
using at::Tensor;

// Numbers whose squares are summed in fp32; the sums of blocks are added in doubles. It fixes the order of the sum for
// any number of threads.
constexpr int64_t BLOCK = 1 << 12;

// The alignment of libtorch's own allocations.
constexpr uintptr_t ALIGNMENT = 64;

// A large page of most processors, in bytes; smaller buffers do not need one.
[[maybe_unused]] constexpr size_t LARGE_PAGE = 1 << 21;

// Asks for transparent large pages: fewer page faults and TLB misses.
void in_large_pages([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  if (bytes < LARGE_PAGE) return;
  const uintptr_t page = sysconf(_SC_PAGESIZE), from = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const uintptr_t to = (reinterpret_cast<uintptr_t>(begin) + bytes) / page * page;
  // A kernel without them refuses, which is harmless.
  madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
}

template <class Element>
struct AdamW {
  AdamWStep step;
  float* weights;
  const float* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  Element* copy;  // Or null.

  INLINED void operator()(int64_t begin, int64_t end) const {
    int64_t at = begin;
    for (; at + LANES <= end; at += LANES) {
      const AdamWStep::Updated updated =
          step(load(weights + at), load(gradient + at), load(exp_avg + at), load(exp_avg_sq + at));
      store(exp_avg + at, updated.first);
      store(exp_avg_sq + at, updated.second);
      store(weights + at, updated.weight);
      if (copy != nullptr) store(copy + at, updated.weight);
    }
    const int64_t left = end - at;
    if (left == 0) return;
    const AdamWStep::Updated updated = step(load_some(weights + at, left), load_some(gradient + at, left),
                                            load_some(exp_avg + at, left), load_some(exp_avg_sq + at, left));
    store_some(exp_avg + at, updated.first, left);
    store_some(exp_avg_sq + at, updated.second, left);
    store_some(weights + at, updated.weight, left);
    if (copy != nullptr) store_some(copy + at, updated.weight, left);
  }
};

template <class Element>
struct Accumulate {
  float* sum;
  const Element* addend;

  INLINED void operator()(int64_t begin, int64_t end) const {
    int64_t at = begin;
    for (; at + LANES <= end; at += LANES) store(sum + at, load(sum + at) + load(addend + at));
    const int64_t left = end - at;
    if (left > 0) store_some(sum + at, load_some(sum + at, left) + load_some(addend + at, left), left);
  }
};

struct Squares {
  double* sums;  // One per block.
  const float* x;
  int64_t count;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = std::min(count, (block + 1) * BLOCK);
      int64_t at = block * BLOCK;
      // Independent sums, so that none waits for the previous addition.
      Floats squares[4] = {};
      for (; at + 4 * LANES <= last; at += 4 * LANES) {
        for (int64_t one = 0; one < 4; ++one) {
          const Floats part = load(x + at + one * LANES);
          squares[one] += part * part;
        }
      }
      for (; at < last; at += LANES) {
        const Floats part = load_some(x + at, std::min(LANES, last - at));
        squares[0] += part * part;
      }
      sums[block] = total((squares[0] + squares[1]) + (squares[2] + squares[3]));
    }
  }
};

template <class Element>
void update_weights(const Tensor& weights, const Tensor& gradient, const Tensor& exp_avg, const Tensor& exp_avg_sq,
                    Element* copy, const TorchExtAdamW& by) {
  const AdamW<Element> update{
      .step = AdamWStep(by),
      .weights = mutable_elements<float>(weights),
      .gradient = elements<float>(gradient),
      .exp_avg = mutable_elements<float>(exp_avg),
      .exp_avg_sq = mutable_elements<float>(exp_avg_sq),
      .copy = copy,
  };
  parallel_run(update, weights.numel(), GRAIN);
}

}  // namespace

void torch_ext::accumulate(const Tensor& sum, const Tensor& addend) {
  const bool has_kernel = addend.scalar_type() == at::kFloat || addend.scalar_type() == at::kBFloat16;
  if (!has_kernel || !is_dense(addend) || !is_dense(sum)) {
    const at::NoGradGuard no_graph;
    sum.add_(addend);
    return;
  }
  check_dense("the sum", sum, at::kFloat, addend.sizes());
  by_kind(addend, [&]<class Element>(const Element*) {
    parallel_run(Accumulate<Element>{mutable_elements<float>(sum), elements<Element>(addend)}, sum.numel(), GRAIN);
  });
}

int32_t torch_ext_adamw(at::Tensor* weights, const at::Tensor* gradient, at::Tensor* exp_avg, at::Tensor* exp_avg_sq,
                        at::Tensor* copy, const TorchExtAdamW* update, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    std::vector<const Tensor*> all{weights, gradient, exp_avg, exp_avg_sq};
    for (const Tensor* tensor : all) check_dense("a tensor of AdamW", *tensor, at::kFloat, weights->sizes());
    if (copy != nullptr) {
      check_dense("the copy", *copy, check_operand("the copy", *copy), weights->sizes());
      all.push_back(copy);
    }
    check_disjoint(all);
    const auto with = [&]<class Element>(Element* to) {
      update_weights(*weights, *gradient, *exp_avg, *exp_avg_sq, to, *update);
    };
    if (copy == nullptr) return with(static_cast<float*>(nullptr));
    by_kind(*copy, [&]<class Element>(const Element*) { with(mutable_elements<Element>(*copy)); });
  });
}

int32_t torch_ext_accumulate(at::Tensor* sum, const at::Tensor* addend, TorchExtMessage message) noexcept {
  return guarded(message, [&] { accumulate(*sum, *addend); });
}

int32_t torch_ext_squared_norm(const at::Tensor* x, double* sum, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    check_dense("x", *x, at::kFloat, x->sizes());
    const int64_t count = x->numel(), blocks = (count + BLOCK - 1) / BLOCK;
    std::vector<double> sums(blocks);
    parallel_run(Squares{sums.data(), elements<float>(*x), count}, blocks, GRAIN / BLOCK);
    *sum = 0.0;
    for (const double part : sums) *sum += part;
  });
}

int32_t torch_ext_untouched_zeros(int64_t count, at::Tensor** out, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    constexpr int64_t MOST = (PTRDIFF_MAX - ALIGNMENT) / sizeof(float);
    TORCH_CHECK(count >= 0 && count <= MOST, "there is no memory for ", count, " numbers");
    const size_t bytes = count * sizeof(float);
    void* const memory = std::calloc(1, bytes + ALIGNMENT);
    TORCH_CHECK(memory != nullptr, "there is no memory for ", bytes, " bytes");
    const uintptr_t aligned = (reinterpret_cast<uintptr_t>(memory) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void* const elements = reinterpret_cast<void*>(aligned);
    // Freed with the tensor, and where `from_blob` throws.
    const std::shared_ptr<void> held(memory, std::free);
    in_large_pages(elements, bytes);
    *out = new Tensor(at::from_blob(elements, {count}, [held](void*) {}, at::kFloat));
  });
}
