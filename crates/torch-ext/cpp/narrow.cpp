#include "narrow.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "guarded.h"

// One binary serves every processor of its family: the loader picks the widest of these that it has. What they call is
// inlined, and so compiled for each of them too.
#if defined(__x86_64__) && defined(__linux__)
#define WIDEST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDEST
#endif
#define INLINED inline __attribute__((always_inline))

namespace {

constexpr int64_t LANES = 16;
// Sums that go on beside each other: one would wait for itself.
constexpr int64_t CHAINS = 4;
// Elements that are worth a thread.
constexpr int64_t GRAIN = 1 << 16;

typedef float Floats __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));

INLINED Floats load(const float* from) {
  Floats floats;
  std::memcpy(&floats, from, sizeof floats);
  return floats;
}

// A bf16 is the upper half of the float with its value.
INLINED Floats load(const uint16_t* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  Words words = __builtin_convertvector(halves, Words) << 16;
  Floats floats;
  std::memcpy(&floats, &words, sizeof floats);
  return floats;
}

INLINED void store(float* to, Floats floats) { std::memcpy(to, &floats, sizeof floats); }

INLINED float widened(float value) { return value; }

INLINED float widened(uint16_t value) {
  uint32_t word = uint32_t(value) << 16;
  float wide;
  std::memcpy(&wide, &word, sizeof wide);
  return wide;
}

INLINED void narrowed(float value, float* to) { *to = value; }

INLINED void narrowed(float value, uint16_t* to) {
  at::BFloat16 half(value);
  *to = half.x;
}

INLINED float total(Floats sum) {
  float total = 0;
  for (int64_t lane = 0; lane < LANES; ++lane) total += sum[lane];
  return total;
}

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

// e^x for x ≤ 0, to about two units in the last place: 2^n · e^r with |r| ≤ ln 2 / 2, e^r by Taylor's polynomial.
INLINED Floats exponential(Floats x) {
  const Floats lowest = Floats{} - 87.0f;
  x = x > lowest ? x : lowest;
  const Floats shifted = x * 1.44269504f + 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer.
  const Floats n = shifted - 12582912.0f;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats sum = r * (1.0f / 5040) + (1.0f / 720);
  sum = sum * r + (1.0f / 120);
  sum = sum * r + (1.0f / 24);
  sum = sum * r + (1.0f / 6);
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;
  std::memcpy(&power, &exponent, sizeof power);
  return sum * power;
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

  // Of `task`, which is a row's head of keys. `scores` has room for `group` times `padded` numbers, `sums` for `group · dim`.
  INLINED void one(int64_t task, int64_t padded, float* scores, float* queries, float* sums) const {
    const int64_t row = task / kv_heads, head = task % kv_heads;
    const int64_t begin = std::min(std::max<int64_t>(0, first[row]), columns - 1), seen = columns - begin;
    const Element* key = k + row * k_row + head * k_head + begin * k_column;
    const Element* value = v + row * v_row + head * v_head + begin * v_column;
    const Element* query = q + task * group * dim;
    const float scale = 1.0f / std::sqrt(float(dim));
    for (int64_t at = 0; at < group * dim; ++at) queries[at] = widened(query[at]) * scale;
    std::fill(sums, sums + group * dim, 0.0f);
    for (int64_t column = 0; column < seen; ++column) {
      for (int64_t g = 0; g < group; ++g) {
        scores[g * padded + column] = dot(queries + g * dim, key + column * k_column, dim);
      }
    }
    for (int64_t g = 0; g < group; ++g) softmax(scores + g * padded, seen);
    for (int64_t column = 0; column < seen; ++column) {
      for (int64_t g = 0; g < group; ++g) {
        const float weight = scores[g * padded + column];
        for (int64_t at = 0; at < dim; at += LANES) {
          float* sum = sums + g * dim + at;
          store(sum, load(sum) + weight * load(value + column * v_column + at));
        }
      }
    }
    for (int64_t at = 0; at < group * dim; ++at) narrowed(sums[at], out + task * group * dim + at);
  }

  // In place, over `count` numbers in memory that goes on to a multiple of LANES.
  static INLINED void softmax(float* scores, int64_t count) {
    float highest = scores[0];
    bool is_nan = false;
    for (int64_t at = 0; at < count; ++at) {
      highest = std::max(highest, scores[at]);
      is_nan |= scores[at] != scores[at];
    }
    for (int64_t at = count; at % LANES != 0; ++at) scores[at] = -INFINITY;
    Floats sum = {};
    for (int64_t at = 0; at < count; at += LANES) {
      const Floats e = exponential(load(scores + at) - highest);
      store(scores + at, e);
      sum += e;
    }
    // What lies behind the end counts for e^-87, which is nothing beside the highest one's 1.
    const float inverse = is_nan ? NAN : 1.0f / total(sum);
    for (int64_t at = 0; at < count; ++at) scores[at] *= inverse;
  }

  INLINED void tasks(int64_t begin, int64_t end) const {
    const int64_t padded = (columns + LANES - 1) / LANES * LANES;
    std::vector<float> room(group * (padded + 2 * dim));
    float* scores = room.data();
    float* queries = scores + group * padded;
    for (int64_t task = begin; task < end; ++task) one(task, padded, scores, queries, queries + group * dim);
  }
};

WIDEST void attend(const Attention<float>& attention, int64_t begin, int64_t end) { attention.tasks(begin, end); }
WIDEST void attend(const Attention<uint16_t>& attention, int64_t begin, int64_t end) { attention.tasks(begin, end); }

template <class Element>
void attend(const Attention<Element>& attention, int64_t rows) {
  const int64_t of_task = std::max<int64_t>(1, 2 * attention.group * attention.columns * attention.dim);
  const int64_t grain = std::max<int64_t>(1, GRAIN / of_task);
  at::parallel_for(0, rows * attention.kv_heads, grain,
                   [&](int64_t begin, int64_t end) { attend(attention, begin, end); });
}

template <class Element>
Attention<Element> attention_over(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& first) {
  Attention<Element> attention{};
  attention.first = first.const_data_ptr<int64_t>();
  attention.kv_heads = k.size(1);
  attention.group = q.size(1) / k.size(1);
  attention.columns = k.size(2);
  attention.dim = k.size(3);
  attention.k_row = k.stride(0), attention.k_head = k.stride(1), attention.k_column = k.stride(2);
  attention.v_row = v.stride(0), attention.v_head = v.stride(1), attention.v_column = v.stride(2);
  return attention;
}

const uint16_t* bits(const at::Tensor& tensor) {
  return reinterpret_cast<const uint16_t*>(tensor.const_data_ptr<at::BFloat16>());
}

uint16_t* mutable_bits(at::Tensor& tensor) {
  return reinterpret_cast<uint16_t*>(tensor.mutable_data_ptr<at::BFloat16>());
}

}  // namespace

int32_t torch_ext_narrow_linear(at::Tensor* out, const at::Tensor* x, const at::Tensor* weight,
                                TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    const int64_t rows = x->size(0), in = x->size(1), outs = weight->size(0);
    if (x->scalar_type() == at::kFloat) {
      multiply(Product<float>{out->mutable_data_ptr<float>(), x->const_data_ptr<float>(),
                              weight->const_data_ptr<float>(), rows, outs, in});
    } else {
      multiply(Product<uint16_t>{mutable_bits(*out), bits(*x), bits(*weight), rows, outs, in});
    }
  });
}

int32_t torch_ext_decode_attention(at::Tensor* out, const at::Tensor* q, const at::Tensor* k, const at::Tensor* v,
                                   const at::Tensor* first, TorchExtMessage message) noexcept {
  return torch_ext::guarded(message, [&] {
    if (q->scalar_type() == at::kFloat) {
      auto attention = attention_over<float>(*q, *k, *v, *first);
      attention.out = out->mutable_data_ptr<float>();
      attention.q = q->const_data_ptr<float>();
      attention.k = k->const_data_ptr<float>();
      attention.v = v->const_data_ptr<float>();
      attend(attention, q->size(0));
    } else {
      auto attention = attention_over<uint16_t>(*q, *k, *v, *first);
      attention.out = mutable_bits(*out);
      attention.q = bits(*q), attention.k = bits(*k), attention.v = bits(*v);
      attend(attention, q->size(0));
    }
  });
}
