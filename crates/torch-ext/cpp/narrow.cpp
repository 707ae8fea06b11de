#include "narrow.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <type_traits>
#include <vector>

#include "guarded.h"
#include "lanes.h"
#include "tiles.h"

namespace {

using namespace torch_ext;

// Sums that go on beside each other: one would wait for itself.
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

// Columns [begin, end) of the product. A row of the weight is read once, and meets all rows of x while it is in the cache.
template <class Element>
struct Product {
  Element* out;
  const Element* x;
  const Element* weight;
  int64_t rows, outs, in;

  INLINED void columns(int64_t begin, int64_t end) const {
    for (int64_t o = begin; o < end; ++o) {
      for (int64_t r = 0; r < rows; ++r) narrowed(dot(weight + o * in, x + r * in, in), out + r * outs + o);
    }
  }
};

WIDEST void multiply(const Product<float>& product, int64_t begin, int64_t end) { product.columns(begin, end); }
WIDEST void multiply(const Product<uint16_t>& product, int64_t begin, int64_t end) { product.columns(begin, end); }

template <class Element>
void multiply(const Product<Element>& product) {
  const int64_t grain = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, product.in));
  at::parallel_for(0, product.outs, grain, [&](int64_t begin, int64_t end) { multiply(product, begin, end); });
}

// Heads that are computed side by side while a key or a value is in registers.
constexpr int64_t HEADS = 4;

// Keys that they meet at a time; with up to three heads the sums are in registers.
constexpr int64_t COLUMNS = 8;

// Attention of one query a row. Heads that share keys are computed together, so that these are read once.
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

  // Of `task`, which is a row's head of keys. `scores` has room for `padded` numbers of each of HEADS heads.
  INLINED void one(int64_t task, int64_t padded, float* scores, float* queries) const {
    const int64_t row = task / kv_heads, head = task % kv_heads;
    const int64_t begin = std::min(std::max<int64_t>(0, first[row]), columns - 1), seen = columns - begin;
    const Element* key = k + row * k_row + head * k_head + begin * k_column;
    const Element* value = v + row * v_row + head * v_head + begin * v_column;
    const Element* query = q + task * group * dim;
    Element* to = out + task * group * dim;
    const float scale = 1.0f / std::sqrt(float(dim));
    for (int64_t at = 0; at < group * dim; ++at) queries[at] = widened(query[at]) * scale;
    for (int64_t g = 0; g < group; g += HEADS) {
      switch (std::min(HEADS, group - g)) {
        case 1: some<1>(key, value, seen, padded, scores, queries + g * dim, to + g * dim); break;
        case 2: some<2>(key, value, seen, padded, scores, queries + g * dim, to + g * dim); break;
        case 3: some<3>(key, value, seen, padded, scores, queries + g * dim, to + g * dim); break;
        default: some<HEADS>(key, value, seen, padded, scores, queries + g * dim, to + g * dim);
      }
    }
  }

  // `count` heads over the same `seen` keys and values.
  template <int64_t count>
  INLINED void some(const Element* key, const Element* value, int64_t seen, int64_t padded, float* scores,
                    const float* queries, Element* to) const {
    int64_t column = 0;
    if constexpr (count < HEADS) {
      for (; column + COLUMNS <= seen; column += COLUMNS) products<count>(key, value, column, padded, scores, queries);
    }
    for (; column < seen; ++column) {
      Floats sums[count] = {};
      for (int64_t at = 0; at < dim; at += LANES) {
        const Floats part = load(key + column * k_column + at);
        for (int64_t g = 0; g < count; ++g) sums[g] += load(queries + g * dim + at) * part;
      }
      for (int64_t g = 0; g < count; ++g) scores[g * padded + column] = total(sums[g]);
    }
    for (int64_t g = 0; g < count; ++g) softmax(scores + g * padded, seen);
    // A cache line of bf16s at a time, where the width allows it.
    int64_t at = 0;
    for (; at + 2 * LANES <= dim; at += 2 * LANES) mixed<count, 2>(value + at, seen, padded, scores, to + at);
    for (; at < dim; at += LANES) mixed<count, 1>(value + at, seen, padded, scores, to + at);
  }

  // The scores of COLUMNS keys for `count` heads: their sums over lanes are taken together. Meanwhile the values of these keys
  // and the keys that come next are on their way from memory, which takes longer than what there is to compute.
  template <int64_t count>
  INLINED void products(const Element* key, const Element* value, int64_t column, int64_t padded, float* scores,
                        const float* queries) const {
    // Behind the last key there is nothing to come, and asking for it does no harm: no address is wrong to ask for.
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

  // What `count` heads make of `parts · LANES` numbers of each value.
  template <int64_t count, int64_t parts>
  INLINED void mixed(const Element* value, int64_t seen, int64_t padded, const float* scores, Element* to) const {
    Floats sums[count][parts] = {};
    for (int64_t column = 0; column < seen; ++column) {
      for (int64_t part = 0; part < parts; ++part) {
        const Floats numbers = load(value + column * v_column + part * LANES);
        for (int64_t g = 0; g < count; ++g) sums[g][part] += scores[g * padded + column] * numbers;
      }
    }
    for (int64_t g = 0; g < count; ++g) {
      for (int64_t part = 0; part < parts; ++part) store(to + g * dim + part * LANES, sums[g][part]);
    }
  }

  // In place, over `count` numbers in memory that goes on to a multiple of LANES.
  static INLINED void softmax(float* scores, int64_t count) {
    for (int64_t at = count; at % LANES != 0; ++at) scores[at] = -INFINITY;
    Floats highest = Floats{} - INFINITY;
    Ints none = {};
    for (int64_t at = 0; at < count; at += LANES) {
      const Floats part = load(scores + at);
      highest = part > highest ? part : highest;
      none |= part != part;
    }
    float most = -INFINITY;
    bool is_nan = false;
    for (int64_t lane = 0; lane < LANES; ++lane) {
      most = std::max(most, highest[lane]);
      is_nan |= none[lane] != 0;
    }
    Floats sum = {};
    for (int64_t at = 0; at < count; at += LANES) {
      const Floats e = exponential(load(scores + at) - most);
      store(scores + at, e);
      sum += e;
    }
    // What lies behind the end counts for e^-87, which is nothing beside the highest one's 1.
    const float inverse = is_nan ? NAN : 1.0f / total(sum);
    for (int64_t at = 0; at < count; at += LANES) store(scores + at, load(scores + at) * inverse);
  }

  // Takes tasks off `next` until all `count` are taken.
  INLINED void tasks(std::atomic<int64_t>& next, int64_t count) const {
    const int64_t padded = (columns + LANES - 1) / LANES * LANES;
    std::vector<float> room(std::min(HEADS, group) * padded + group * dim);
    float* queries = room.data();
    for (int64_t task = next++; task < count; task = next++) one(task, padded, queries + group * dim, queries);
  }
};

WIDEST void attend(const Attention<float>& attention, std::atomic<int64_t>& next, int64_t count) {
  attention.tasks(next, count);
}
WIDEST void attend(const Attention<uint16_t>& attention, std::atomic<int64_t>& next, int64_t count) {
  attention.tasks(next, count);
}

template <class Element>
void attend(const Attention<Element>& attention, int64_t rows) {
  const int64_t tasks = rows * attention.kv_heads;
  const int64_t worth = 2 * tasks * attention.group * attention.columns * attention.dim / GRAIN;
  const int64_t workers = std::min({tasks, std::max<int64_t>(1, worth), int64_t(at::get_num_threads())});
  // Rows see more or less, so each thread takes the next that nobody has.
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) { attend(attention, next, tasks); });
}

template <class Element>
void attend(const at::Tensor& out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& first) {
  Attention<Element> attention{};
  attention.out = mutable_elements<Element>(out);
  attention.q = elements<Element>(q), attention.k = elements<Element>(k), attention.v = elements<Element>(v);
  attention.first = first.const_data_ptr<int64_t>();
  attention.kv_heads = k.size(1);
  attention.group = q.size(1) / k.size(1);
  attention.columns = k.size(2);
  attention.dim = k.size(3);
  attention.k_row = k.stride(0), attention.k_head = k.stride(1), attention.k_column = k.stride(2);
  attention.v_row = v.stride(0), attention.v_head = v.stride(1), attention.v_column = v.stride(2);
  attend(attention, q.size(0));
}

template <class Element>
void multiply(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight) {
  if constexpr (std::is_same_v<Element, uint16_t>) {
    const int64_t outs = weight.size(0), in = weight.size(1);
    if (has_tiles() && fits_tiles(outs, in)) {
      return multiply_tiles(mutable_elements<Element>(out), elements<Element>(x), elements<Element>(weight), x.size(0), outs, in);
    }
  }
  multiply(Product<Element>{mutable_elements<Element>(out), elements<Element>(x), elements<Element>(weight), x.size(0),
                            weight.size(0), x.size(1)});
}

}  // namespace

int32_t torch_ext_has_tiles() noexcept { return torch_ext::has_tiles() ? 1 : 0; }

int32_t torch_ext_narrow_linear(at::Tensor* out, const at::Tensor* x, const at::Tensor* weight,
                                TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    const bool is_float = x->scalar_type() == at::kFloat;
    is_float ? multiply<float>(*out, *x, *weight) : multiply<uint16_t>(*out, *x, *weight);
  });
}

int32_t torch_ext_decode_attention(at::Tensor* out, const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* first, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    const bool is_float = q->scalar_type() == at::kFloat;
    is_float ? attend<float>(*out, *q, *k, *v, *first) : attend<uint16_t>(*out, *q, *k, *v, *first);
  });
}
