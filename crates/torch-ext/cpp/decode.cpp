#include "decode.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <type_traits>
#include <vector>

#include "amx.h"
#include "checks.h"
#include "guarded.h"
#include "vectors.h"

namespace {

using namespace torch_ext;

// Independent partial sums: in a single one, each addition would wait for the previous one.
constexpr int64_t CHAINS = 4;

// Σ a·b over n elements, in fp32.
template <class A, class B>
INLINED float dot(const A* a, const B* b, int64_t n) {
  Floats sums[CHAINS] = {};
  int64_t at = 0;
  for (; at + CHAINS * LANES <= n; at += CHAINS * LANES) {
    for (int64_t chain = 0; chain < CHAINS; ++chain) {
      sums[chain] += load(a + at + chain * LANES) * load(b + at + chain * LANES);
    }
  }
  for (; at + LANES <= n; at += LANES) sums[0] += load(a + at) * load(b + at);
  float sum = total((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; at < n; ++at) sum += widened(a[at]) * widened(b[at]);
  return sum;
}

// Columns [begin, end) of x · weightᵀ. Each row of the weight is read once, and multiplies all rows of x while it is
// cached.
template <class Element>
struct Product {
  Element* out;
  const Element* x;
  const Element* weight;
  int64_t rows, outs, in;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t r = 0; r < rows; ++r) narrowed(dot(weight + o * in, x + r * in, in), out + r * outs + o);
    }
  }
};

template <class Element>
void multiply(const Product<Element>& product) {
  const int64_t grain = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, product.in));
  parallel_run(product, product.outs, grain);
}

// Query heads that share a key or value while it is in registers.
constexpr int64_t HEADS = 4;

// Keys per step; with up to three heads the sums stay in registers.
constexpr int64_t COLUMNS = 8;

// Attention of one query per row. Heads that share keys are computed together, so that each key is read once.
template <class Element>
struct Attention {
  Element* out;
  const Element* q;
  const Element* k;
  const Element* v;
  const int64_t* first;
  int64_t kv_heads, group, columns, dim;
  int64_t k_row, k_head, k_column;
  int64_t v_row, v_head, v_column;

  // Computes `task`, one key head of one row. `scores` holds `padded` numbers for each of HEADS heads.
  INLINED void compute(int64_t task, int64_t padded, float* scores, float* queries) const {
    const int64_t row = task / kv_heads, head = task % kv_heads;
    const int64_t begin = std::min(std::max<int64_t>(0, first[row]), columns - 1), visible = columns - begin;
    const Element* key = k + row * k_row + head * k_head + begin * k_column;
    const Element* value = v + row * v_row + head * v_head + begin * v_column;
    const Element* query = q + task * group * dim;
    Element* to = out + task * group * dim;
    const float scale = 1.0f / std::sqrt(float(dim));
    for (int64_t at = 0; at < group * dim; ++at) queries[at] = widened(query[at]) * scale;
    for (int64_t g = 0; g < group; g += HEADS) {
      switch (std::min(HEADS, group - g)) {
        case 1: heads<1>(key, value, visible, padded, scores, queries + g * dim, to + g * dim); break;
        case 2: heads<2>(key, value, visible, padded, scores, queries + g * dim, to + g * dim); break;
        case 3: heads<3>(key, value, visible, padded, scores, queries + g * dim, to + g * dim); break;
        default: heads<HEADS>(key, value, visible, padded, scores, queries + g * dim, to + g * dim);
      }
    }
  }

  // `count` heads over the same `visible` keys and values.
  template <int64_t count>
  INLINED void heads(const Element* key, const Element* value, int64_t visible, int64_t padded, float* scores,
                     const float* queries, Element* to) const {
    int64_t column = 0;
    if constexpr (count < HEADS) {
      for (; column + COLUMNS <= visible; column += COLUMNS)
        scores_of<count>(key, value, column, padded, scores, queries);
    }
    for (; column < visible; ++column) {
      Floats sums[count] = {};
      for (int64_t at = 0; at < dim; at += LANES) {
        const Floats part = load(key + column * k_column + at);
        for (int64_t g = 0; g < count; ++g) sums[g] += load(queries + g * dim + at) * part;
      }
      for (int64_t g = 0; g < count; ++g) scores[g * padded + column] = total(sums[g]);
    }
    for (int64_t g = 0; g < count; ++g) softmax(scores + g * padded, visible);
    // A cache line of bf16 at a time, where the width allows it.
    int64_t at = 0;
    for (; at + 2 * LANES <= dim; at += 2 * LANES) weighted_sum<count, 2>(value + at, visible, padded, scores, to + at);
    for (; at < dim; at += LANES) weighted_sum<count, 1>(value + at, visible, padded, scores, to + at);
  }

  // The scores of COLUMNS keys for `count` heads, with their lane sums taken together. Prefetches the values of these
  // keys and the keys of the next steps, since memory takes longer than the arithmetic.
  template <int64_t count>
  INLINED void scores_of(const Element* key, const Element* value, int64_t column, int64_t padded, float* scores,
                         const float* queries) const {
    // Prefetching an address behind the last key is harmless.
    constexpr int64_t IN_LINE = 64 / sizeof(Element);
    for (int64_t one = column; one < column + COLUMNS; ++one) {
      for (int64_t at = 0; at < dim; at += IN_LINE) {
        __builtin_prefetch(value + one * v_column + at);
        __builtin_prefetch(key + (one + 2 * COLUMNS) * k_column + at);
      }
    }
    Floats sums[count][COLUMNS] = {};
    for (int64_t at = 0; at < dim; at += LANES) {
      for (int64_t one = 0; one < COLUMNS; ++one) {
        const Floats part = load(key + (column + one) * k_column + at);
        for (int64_t g = 0; g < count; ++g) sums[g][one] += load(queries + g * dim + at) * part;
      }
    }
    for (int64_t g = 0; g < count; ++g) {
      const Floats found = totals(sums[g]);
      std::memcpy(scores + g * padded + column, &found, COLUMNS * sizeof(float));
    }
  }

  // The weighted sums of `parts · LANES` numbers of each value, for `count` heads.
  template <int64_t count, int64_t parts>
  INLINED void weighted_sum(const Element* value, int64_t visible, int64_t padded, const float* scores,
                            Element* to) const {
    Floats sums[count][parts] = {};
    for (int64_t column = 0; column < visible; ++column) {
      for (int64_t part = 0; part < parts; ++part) {
        const Floats numbers = load(value + column * v_column + part * LANES);
        for (int64_t g = 0; g < count; ++g) sums[g][part] += scores[g * padded + column] * numbers;
      }
    }
    for (int64_t g = 0; g < count; ++g) {
      for (int64_t part = 0; part < parts; ++part) store(to + g * dim + part * LANES, sums[g][part]);
    }
  }

  // In place, over `count` numbers in a buffer whose length is a multiple of LANES.
  static INLINED void softmax(float* scores, int64_t count) {
    for (int64_t at = count; at % LANES != 0; ++at) scores[at] = -INFINITY;
    Floats highest = Floats{} - INFINITY;
    Ints nan = {};
    for (int64_t at = 0; at < count; at += LANES) {
      const Floats part = load(scores + at);
      highest = part > highest ? part : highest;
      nan |= part != part;
    }
    float most = -INFINITY;
    bool is_nan = false;
    for (int64_t lane = 0; lane < LANES; ++lane) {
      most = std::max(most, highest[lane]);
      is_nan |= nan[lane] != 0;
    }
    Floats sum = {};
    for (int64_t at = 0; at < count; at += LANES) {
      const Floats e = exponential(load(scores + at) - most);
      store(scores + at, e);
      sum += e;
    }
    // Each padding lane adds e^-87, which rounds to nothing next to the maximum's 1.
    const float inverse = is_nan ? NAN : 1.0f / total(sum);
    for (int64_t at = 0; at < count; at += LANES) store(scores + at, load(scores + at) * inverse);
  }

  // Takes tasks from `next` until all `count` are taken.
  INLINED void operator()(std::atomic<int64_t>& next, const int64_t& count) const {
    const int64_t padded = (columns + LANES - 1) / LANES * LANES;
    std::vector<float> room(std::min(HEADS, group) * padded + group * dim);
    float* queries = room.data();
    for (int64_t task = next++; task < count; task = next++) compute(task, padded, queries + group * dim, queries);
  }
};

template <class Element>
void attend(const Attention<Element>& attention, int64_t rows) {
  const int64_t tasks = rows * attention.kv_heads;
  const int64_t columns = saturating_product(2 * attention.columns, attention.group * attention.dim);
  const int64_t worth = saturating_product(tasks, columns) / GRAIN;
  const int64_t workers = std::min({tasks, std::max<int64_t>(1, worth), int64_t(at::get_num_threads())});
  // Rows differ in length, so each thread takes the next free task.
  std::atomic<int64_t> next = 0;
  const Instructions set = instructions();
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) { run(set, attention, next, tasks); });
}

template <class Element>
void attend(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
            const at::Tensor& first) {
  Attention<Element> attention{};
  attention.out = mutable_elements<Element>(out);
  attention.q = elements<Element>(q);
  attention.k = elements<Element>(k);
  attention.v = elements<Element>(v);
  attention.first = first.const_data_ptr<int64_t>();
  attention.kv_heads = k.size(1);
  attention.group = q.size(1) / k.size(1);
  attention.columns = k.size(2);
  attention.dim = k.size(3);
  attention.k_row = k.stride(0);
  attention.k_head = k.stride(1);
  attention.k_column = k.stride(2);
  attention.v_row = v.stride(0);
  attention.v_head = v.stride(1);
  attention.v_column = v.stride(2);
  attend(attention, q.size(0));
}

template <class Element>
void multiply(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight) {
  if constexpr (std::is_same_v<Element, uint16_t>) {
    const int64_t outs = weight.size(0), in = weight.size(1);
    if (instructions() == Instructions::Amx && fits_amx(outs, in)) {
      return multiply_amx(mutable_elements<Element>(out), elements<Element>(x), elements<Element>(weight), x.size(0),
                          outs, in);
    }
  }
  multiply(Product<Element>{mutable_elements<Element>(out), elements<Element>(x), elements<Element>(weight), x.size(0),
                            weight.size(0), x.size(1)});
}

void check_product(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight) {
  const at::ScalarType kind = check_operand("x", x);
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2, "x and the weight must be matrices");
  check_dense("the weight", weight, kind, {weight.size(0), x.size(1)});
  check_dense("the result", out, kind, {x.size(0), weight.size(0)});
}

// Throws unless the columns of `cache` are rows of dense numbers that do not overlap.
void check_cache(const char* name, const at::Tensor& cache, at::ScalarType kind, at::IntArrayRef sizes) {
  TORCH_CHECK(is_plain(cache) && cache.scalar_type() == kind, name, " are not memory on the CPU of the queries' kind");
  TORCH_CHECK(cache.sizes() == sizes, name, " have shape ", cache.sizes(), "; they must have ", sizes);
  const bool has_columns = cache.size(2) == 1 || cache.stride(2) >= cache.size(3);
  TORCH_CHECK(cache.stride(3) == 1 && has_columns, name, " have strides ", cache.strides(),
              "; columns must not overlap");
}

void check_attention(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& first) {
  const at::ScalarType kind = check_operand("the queries", q);
  TORCH_CHECK(q.dim() == 3 && k.dim() == 4, "queries have three dimensions, keys and values four");
  const int64_t rows = q.size(0), heads = q.size(1), dim = q.size(2), kv_heads = k.size(1), columns = k.size(2);
  TORCH_CHECK(dim > 0 && dim % LANES == 0, "heads have ", dim, " numbers; they must be a multiple of ", LANES);
  TORCH_CHECK(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, heads, " heads do not share ", kv_heads,
              " heads of keys");
  TORCH_CHECK(columns > 0, "the cache has no columns");
  check_cache("the keys", k, kind, {rows, kv_heads, columns, dim});
  check_cache("the values", v, kind, {rows, kv_heads, columns, dim});
  check_dense("the first columns", first, at::kLong, {rows});
  check_dense("the result", out, kind, q.sizes());
}

}  // namespace

int32_t torch_ext_decode_linear(at::Tensor* out, const at::Tensor* x, const at::Tensor* weight,
                                TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    check_product(*out, *x, *weight);
    by_kind(*x, [&]<class Element>(const Element*) { multiply<Element>(*out, *x, *weight); });
  });
}

int32_t torch_ext_decode_attention(at::Tensor* out, const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* first, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    check_attention(*out, *q, *k, *v, *first);
    by_kind(*q, [&]<class Element>(const Element*) { attend<Element>(*out, *q, *k, *v, *first); });
  });
}
