#include "attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "checks.h"
#include "guarded.h"
#include "kernels.h"
#include "rows.h"
#include "vectors.h"

namespace {

using namespace torch_ext;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows that a product computes together. With four vectors of columns these are sixteen sums: enough to hide the
// latency of an addition, and no more than there are registers.
constexpr int64_t STRIP = 4;
constexpr int64_t COLUMNS = 4;

// c (+)= a · b for STRIP rows and `parts` vectors of columns: a's element of row r and depth k lies at r · a_row + k ·
// a_step.
template <int64_t parts, bool adds>
INLINED void product(float* c, int64_t c_row, const float* a, int64_t a_row, int64_t a_step, const float* b,
                     int64_t b_row, int64_t depth) {
  Floats sums[STRIP][parts] = {};
  for (int64_t k = 0; k < depth; ++k) {
    Floats column[parts];
#pragma GCC unroll 4
    for (int64_t part = 0; part < parts; ++part) column[part] = load(b + k * b_row + part * LANES);
#pragma GCC unroll 4
    for (int64_t r = 0; r < STRIP; ++r) {
      const float factor = a[r * a_row + k * a_step];
#pragma GCC unroll 4
      for (int64_t part = 0; part < parts; ++part) sums[r][part] += factor * column[part];
    }
  }
#pragma GCC unroll 4
  for (int64_t r = 0; r < STRIP; ++r) {
#pragma GCC unroll 4
    for (int64_t part = 0; part < parts; ++part) {
      float* to = c + r * c_row + part * LANES;
      store(to, adds ? load(to) + sums[r][part] : sums[r][part]);
    }
  }
}

// The operands of a product, for `parts` vectors of columns.
struct Product {
  float* c;
  int64_t c_row;
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_row, depth, parts;

  template <bool adds>
  INLINED void compute() const {
    int64_t at = 0, left = parts;
    for (; left >= COLUMNS; left -= COLUMNS, at += COLUMNS * LANES) {
      product<COLUMNS, adds>(c + at, c_row, a, a_row, a_step, b + at, b_row, depth);
    }
    switch (left) {
      case 3: product<3, adds>(c + at, c_row, a, a_row, a_step, b + at, b_row, depth); break;
      case 2: product<2, adds>(c + at, c_row, a, a_row, a_step, b + at, b_row, depth); break;
      case 1: product<1, adds>(c + at, c_row, a, a_row, a_step, b + at, b_row, depth); break;
      default: break;
    }
  }
};

struct SetProduct {
  INLINED void operator()(const Product& product) const { product.compute<false>(); }
};

struct AddProduct {
  INLINED void operator()(const Product& product) const { product.compute<true>(); }
};

// Functions of their own rather than inlined, since they have many callers and take long to compile.
void set_product(Instructions set, const Product& product) { run(set, SetProduct{}, product); }
void add_product(Instructions set, const Product& product) { run(set, AddProduct{}, product); }

// Swaps the off-diagonal blocks of width `reach` of two rows of a matrix that are `reach` apart.
template <int reach, int... lane>
INLINED void exchange(Floats& upper, Floats& lower, std::integer_sequence<int, lane...>) {
  const Floats first = __builtin_shufflevector(upper, lower, ((lane & reach) ? lane - reach + int(LANES) : lane)...);
  lower = __builtin_shufflevector(upper, lower, ((lane & reach) ? lane + int(LANES) : lane + reach)...);
  upper = first;
}

template <int reach>
INLINED void exchange(Floats (&block)[LANES]) {
#pragma GCC unroll 16
  for (int64_t row = 0; row < LANES; ++row) {
    if ((row & reach) == 0) {
      exchange<reach>(block[row], block[row + reach], std::make_integer_sequence<int, int(LANES)>());
    }
  }
}

// Transposes `count` rows of `dim` numbers, `stride` apart, into tiles [dim, SIDE] of SIDE columns. Columns behind the
// last one are zeros up to a whole vector.
template <class Element>
INLINED void transpose(const Element* from, int64_t stride, int64_t count, int64_t dim, float* to) {
  for (int64_t first = 0; first < count; first += LANES) {
    float* tile = to + first / SIDE * SIDE * dim + first % SIDE;
    for (int64_t at = 0; at < dim; at += LANES) {
      Floats block[LANES];
#pragma GCC unroll 16
      for (int64_t row = 0; row < LANES; ++row) {
        block[row] = first + row < count ? load(from + (first + row) * stride + at) : Floats{};
      }
      exchange<8>(block);
      exchange<4>(block);
      exchange<2>(block);
      exchange<1>(block);
#pragma GCC unroll 16
      for (int64_t row = 0; row < LANES; ++row) store(tile + (at + row) * SIDE, block[row]);
    }
  }
}

// Copies `count` rows of `dim` numbers, `stride` apart, times `scale`, to dense rows; zeros up to a whole strip.
template <class Element>
INLINED void copy_scaled(const Element* from, int64_t stride, int64_t count, int64_t dim, float scale, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t at = 0; at < dim; at += LANES) store(to + row * dim + at, load(from + row * stride + at) * scale);
  }
  std::fill(to + count * dim, to + (count + STRIP - 1) / STRIP * STRIP * dim, 0.0f);
}

INLINED void zero(float* to, int64_t count) { std::fill(to, to + count, 0.0f); }

INLINED void add(float* to, const float* from, int64_t count) {
  for (int64_t at = 0; at < count; at += LANES) store(to + at, load(to + at) + load(from + at));
}

// e^x as in vectors.h; NaN stays NaN.
INLINED Floats power(Floats x) { return x == x ? exponential(x) : x; }

// `numbers`, and `otherwise` from lane `count` on.
INLINED Floats up_to(int64_t count, Floats numbers, float otherwise) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < int32_t(std::min(count, LANES)) ? numbers : Floats{} + otherwise;
}

// The bounds of the mask of a block of queries and a tile of keys.
struct MaskBounds {
  bool causal;    // Queries and keys are of the same segment.
  int64_t query;  // The first one, in its segment.
  int64_t tile;   // The first key, in its segment.
  int64_t keys;   // Number of keys of the tile.

  // Number of keys of the tile that query `at` of the block sees.
  INLINED int64_t visible(int64_t at) const {
    return causal ? std::max<int64_t>(0, std::min(keys, query + at + 1 - tile)) : keys;
  }
  // The first query of the block that sees key `at` of the tile.
  INLINED int64_t first_query(int64_t at) const { return causal ? std::max<int64_t>(0, tile + at - query) : 0; }
};

// Calls `f` with the mask bounds and the place of every tile of keys that some of the queries [query, query + count)
// see.
template <class F>
INLINED void for_each_tile(const Row& row, const Segment& segment, int64_t query, int64_t count, F f) {
  const Segment& prefix = row.segments[0];
  if (&segment != &prefix) {
    for (int64_t tile = 0; tile < prefix.length; tile += SIDE) {
      f(MaskBounds{false, query, tile, std::min(SIDE, prefix.length - tile)}, prefix.place + tile);
    }
  }
  for (int64_t tile = 0; tile < query + count; tile += SIDE) {
    f(MaskBounds{true, query, tile, std::min(SIDE, segment.length - tile)}, segment.place + tile);
  }
}

int64_t vectors(int64_t numbers) { return (numbers + LANES - 1) / LANES; }

template <class Element>
struct Operands {
  const Element* q;
  const Element* k;
  const Element* v;
  int64_t tokens, heads, kv_heads, dim;

  float scale() const { return 1.0f / std::sqrt(float(dim)); }
  int64_t group() const { return heads / kv_heads; }
  int64_t place(int64_t token, int64_t head) const { return (token * heads + head) * dim; }
  int64_t kv_place(int64_t token, int64_t head) const { return (token * kv_heads + head) * dim; }
};

// Online-softmax accumulators of a block of queries, rescaled by the running maximum.
struct OnlineSoftmax {
  float* out;  // [SIDE, dim]
  float maximum[SIDE];
  Floats sum[SIDE];

  // Turns the scores of query `at`, of which the first `visible` are unmasked, into weights, and adds them to its sum.
  INLINED void update(int64_t at, float* scores, int64_t visible, int64_t parts, int64_t dim) {
    if (visible == 0) return zero(scores, parts * LANES);
    Floats most = Floats{} - std::numeric_limits<float>::infinity();
    for (int64_t part = 0; part < parts; ++part) {
      const Floats some =
          up_to(visible - part * LANES, load(scores + part * LANES), -std::numeric_limits<float>::infinity());
      most = some > most ? some : most;
    }
    const float top = torch_ext::highest(most);
    if (top > maximum[at]) {
      const float factor = std::exp(maximum[at] - top);
      maximum[at] = top;
      sum[at] *= factor;
      float* query_out = out + at * dim;
      for (int64_t d = 0; d < dim; d += LANES) store(query_out + d, load(query_out + d) * factor);
    }
    for (int64_t part = 0; part < parts; ++part) {
      const Floats weights = power(load(scores + part * LANES) - maximum[at]);
      const Floats some = up_to(visible - part * LANES, weights, 0.0f);
      store(scores + part * LANES, some);
      sum[at] += some;
    }
  }
};

template <class Element>
struct Forward {
  Element* out;
  float* logsumexp;  // [heads, N]
  Operands<Element> in;
  Instructions set;

  int64_t scratch_size(int64_t places) const { return (2 * places + 2 * SIDE) * in.dim; }

  // All queries of a row whose heads share the keys and values of `kv_head`.
  INLINED void operator()(const Row& row, const int64_t& kv_head, float* const& scratch) const {
    float *keys = scratch, *values = keys + row.places * in.dim, *block_scratch = values + row.places * in.dim;
    for (const Segment& segment : row.segments) {
      const int64_t from = in.kv_place(segment.token, kv_head), stride = in.kv_heads * in.dim;
      transpose(in.k + from, stride, segment.length, in.dim, keys + segment.place * in.dim);
      copy_scaled(in.v + from, stride, segment.length, in.dim, 1.0f, values + segment.place * in.dim);
    }
    for (const Segment& segment : row.segments) {
      for (int64_t head = kv_head * in.group(); head < (kv_head + 1) * in.group(); ++head) {
        for (int64_t query = 0; query < segment.length; query += SIDE)
          block(row, segment, head, query, keys, values, block_scratch);
      }
    }
  }

  INLINED void block(const Row& row, const Segment& segment, int64_t head, int64_t query, const float* keys,
                     const float* values, float* scratch) const {
    const int64_t dim = in.dim, count = std::min(SIDE, segment.length - query), strips = (count + STRIP - 1) / STRIP;
    const int64_t from = in.place(segment.token + query, head), stride = in.heads * dim;
    float* queries = scratch;
    copy_scaled(in.q + from, stride, count, dim, in.scale(), queries);
    OnlineSoftmax softmax;
    softmax.out = scratch + SIDE * dim;
    zero(softmax.out, strips * STRIP * dim);
    std::fill(softmax.maximum, softmax.maximum + strips * STRIP, -std::numeric_limits<float>::infinity());
    std::fill(softmax.sum, softmax.sum + strips * STRIP, Floats{});
    for_each_tile(
        row, segment, query, count, [&](const MaskBounds& bounds, int64_t place) __attribute__((always_inline)) {
          for (int64_t at = 0; at < strips * STRIP; at += STRIP) {
            const int64_t visible = bounds.visible(at + STRIP - 1), parts = vectors(visible);
            if (visible == 0) continue;
            alignas(64) float scores[STRIP * SIDE];
            set_product(set, Product{scores, SIDE, queries + at * dim, dim, 1, keys + place * dim, SIDE, dim, parts});
            for (int64_t r = 0; r < STRIP; ++r)
              softmax.update(at + r, scores + r * SIDE, bounds.visible(at + r), parts, dim);
            add_product(set, Product{softmax.out + at * dim, dim, scores, SIDE, 1, values + place * dim, dim, visible,
                                     dim / LANES});
          }
        });
    for (int64_t at = 0; at < count; ++at) {
      const float sum = total(softmax.sum[at]), inverse = 1.0f / sum;
      logsumexp[head * in.tokens + segment.token + query + at] = softmax.maximum[at] + std::log(sum);
      for (int64_t d = 0; d < dim; d += LANES) {
        store(out + from + at * stride + d, load(softmax.out + at * dim + d) * inverse);
      }
    }
  }
};

// With P the weights and g the gradient of the result: dV = Pᵀ·g, dS = P ∘ (g·Vᵀ − Σ g ∘ out), dQ = dS·K / √d, dK =
// dSᵀ·Q / √d.
template <class Element>
struct Backward {
  Element* grad_q;
  Element* grad_k;
  Element* grad_v;
  const Element* grad;
  const Element* out;
  const float* logsumexp;
  Operands<Element> in;
  Instructions set;

  int64_t scratch_size(int64_t places) const { return (7 * places + 3 * SIDE) * in.dim + 2 * SIDE * SIDE; }

  // Gradients of some keys and values.
  struct KeyValueGradients {
    float* keys;
    float* values;
  };

  struct Scratch {
    float *transposed_keys, *transposed_values, *keys;  // By place.
    KeyValueGradients all, prefix;                      // By place.
    float *queries, *grads, *grad_queries;              // [SIDE, dim]
    float *weights, *scores;                            // [SIDE, SIDE]
  };

  INLINED Scratch layout(float* at, int64_t places) const {
    const auto take = [&](int64_t numbers) { return std::exchange(at, at + numbers); };
    const int64_t by_place = places * in.dim, by_query = SIDE * in.dim;
    Scratch scratch;
    scratch.transposed_keys = take(by_place);
    scratch.transposed_values = take(by_place);
    scratch.keys = take(by_place);
    scratch.all.keys = take(by_place);
    scratch.all.values = take(by_place);
    scratch.prefix.keys = take(by_place);
    scratch.prefix.values = take(by_place);
    scratch.queries = take(by_query);
    scratch.grads = take(by_query);
    scratch.grad_queries = take(by_query);
    scratch.weights = take(SIDE * SIDE);
    scratch.scores = take(SIDE * SIDE);
    return scratch;
  }

  // All gradients of a row through the keys and values of `kv_head`.
  INLINED void operator()(const Row& row, const int64_t& kv_head, float* const& at) const {
    const Scratch scratch = layout(at, row.places);
    const int64_t dim = in.dim, stride = in.kv_heads * dim, prefix = row.segments[0].length;
    for (const Segment& segment : row.segments) {
      const int64_t from = in.kv_place(segment.token, kv_head), to = segment.place * dim;
      transpose(in.k + from, stride, segment.length, dim, scratch.transposed_keys + to);
      transpose(in.v + from, stride, segment.length, dim, scratch.transposed_values + to);
      copy_scaled(in.k + from, stride, segment.length, dim, 1.0f, scratch.keys + to);
      const int64_t summed = (segment.length + STRIP - 1) / STRIP * STRIP * dim;
      zero(scratch.all.keys + to, summed);
      zero(scratch.all.values + to, summed);
    }
    // The prefix last, with the contribution of each continuation summed separately: so the order of two continuations
    // changes no bit.
    for (size_t index = row.segments.size(); index-- > 0;) {
      const int64_t shared = (prefix + STRIP - 1) / STRIP * STRIP * dim;
      zero(scratch.prefix.keys, shared);
      zero(scratch.prefix.values, shared);
      for (int64_t head = kv_head * in.group(); head < (kv_head + 1) * in.group(); ++head) {
        for (int64_t query = 0; query < row.segments[index].length; query += SIDE) {
          block(row, row.segments[index], head, query, scratch);
        }
      }
      add(scratch.all.keys, scratch.prefix.keys, prefix * dim);
      add(scratch.all.values, scratch.prefix.values, prefix * dim);
    }
    for (const Segment& segment : row.segments) {
      for (int64_t key = 0; key < segment.length; ++key) {
        const int64_t to = in.kv_place(segment.token + key, kv_head), from = (segment.place + key) * dim;
        for (int64_t d = 0; d < dim; d += LANES) {
          store(grad_k + to + d, load(scratch.all.keys + from + d));
          store(grad_v + to + d, load(scratch.all.values + from + d));
        }
      }
    }
  }

  INLINED void block(const Row& row, const Segment& segment, int64_t head, int64_t query,
                     const Scratch& scratch) const {
    const int64_t dim = in.dim, count = std::min(SIDE, segment.length - query), strips = (count + STRIP - 1) / STRIP;
    const int64_t token = segment.token + query, from = in.place(token, head), stride = in.heads * dim;
    copy_scaled(in.q + from, stride, count, dim, in.scale(), scratch.queries);
    copy_scaled(grad + from, stride, count, dim, 1.0f, scratch.grads);
    zero(scratch.grad_queries, strips * STRIP * dim);
    float out_products[SIDE] = {}, lse[SIDE] = {};
    for (int64_t at = 0; at < count; ++at) {
      Floats products = {};
      for (int64_t d = 0; d < dim; d += LANES) {
        products += load(scratch.grads + at * dim + d) * load(out + from + at * stride + d);
      }
      out_products[at] = total(products);
      lse[at] = logsumexp[head * in.tokens + token + at];
    }
    for_each_tile(
        row, segment, query, count, [&](const MaskBounds& bounds, int64_t place) __attribute__((always_inline)) {
          for (int64_t at = 0; at < strips * STRIP; at += STRIP) {
            const int64_t visible = bounds.visible(at + STRIP - 1), parts = vectors(visible);
            if (visible == 0) continue;
            float *weights = scratch.weights + at * SIDE, *scores = scratch.scores + at * SIDE;
            set_product(set, Product{weights, SIDE, scratch.queries + at * dim, dim, 1,
                                     scratch.transposed_keys + place * dim, SIDE, dim, parts});
            set_product(set, Product{scores, SIDE, scratch.grads + at * dim, dim, 1,
                                     scratch.transposed_values + place * dim, SIDE, dim, parts});
            for (int64_t r = 0; r < STRIP; ++r) {
              for (int64_t part = 0; part < parts; ++part) {
                const int64_t place = r * SIDE + part * LANES, left = bounds.visible(at + r) - part * LANES;
                const Floats weight = up_to(left, power(load(weights + place) - lse[at + r]), 0.0f);
                store(weights + place, weight);
                store(scores + place, up_to(left, weight * (load(scores + place) - out_products[at + r]), 0.0f));
              }
            }
            add_product(set, Product{scratch.grad_queries + at * dim, dim, scores, SIDE, 1, scratch.keys + place * dim,
                                     dim, visible, dim / LANES});
          }
          const bool in_prefix = place < row.segments[0].place + row.segments[0].length;
          const KeyValueGradients& to = in_prefix ? scratch.prefix : scratch.all;
          for (int64_t key = 0; key < bounds.keys; key += STRIP) {
            const int64_t first = bounds.first_query(key), at = (place + key) * dim, left = count - first;
            if (left <= 0) break;
            const float *weights = scratch.weights + first * SIDE + key, *scores = scratch.scores + first * SIDE + key;
            add_product(set, Product{to.values + at, dim, weights, 1, SIDE, scratch.grads + first * dim, dim, left,
                                     dim / LANES});
            add_product(set, Product{to.keys + at, dim, scores, 1, SIDE, scratch.queries + first * dim, dim, left,
                                     dim / LANES});
          }
        });
    for (int64_t at = 0; at < count; ++at) {
      for (int64_t d = 0; d < dim; d += LANES) {
        store(grad_q + from + at * stride + d, load(scratch.grad_queries + at * dim + d) * in.scale());
      }
    }
  }
};

// Floats aligned to a cache line: otherwise half of all loads would touch two lines.
struct AlignedFloats {
  explicit AlignedFloats(int64_t count) : data(static_cast<float*>(::operator new(count * sizeof(float), LINE))) {}
  ~AlignedFloats() { ::operator delete(data, LINE); }
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;

  static constexpr std::align_val_t LINE{64};
  float* data;
};

// Computes every row with every head of keys, the costly rows first, each task on the next free thread. Tasks are
// independent, so that scheduling changes no bit.
template <class Pass>
void run_tasks(Pass pass, std::vector<Row> rows) {
  pass.set = instructions();
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.cost > b.cost; });
  int64_t places = 0, cost = 0;
  for (const Row& row : rows) {
    places = std::max(places, row.places);
    cost = saturating_sum(cost, row.cost);
  }
  const int64_t tasks = int64_t(rows.size()) * pass.in.kv_heads;
  const int64_t worth = std::max<int64_t>(1, saturating_product(cost, pass.in.heads * pass.in.dim) / GRAIN);
  const int64_t workers = std::min({tasks, worth, int64_t(at::get_num_threads())});
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    const AlignedFloats scratch(pass.scratch_size(places));
    for (int64_t task = next++; task < tasks; task = next++) {
      const Row& row = rows[task / pass.in.kv_heads];
      const int64_t kv_head = task % pass.in.kv_heads;
      run(pass.set, pass, row, kv_head, scratch.data);
    }
  });
}

template <class Element>
Operands<Element> operands(const Tensor& q, const Tensor& k, const Tensor& v) {
  return {elements<Element>(q), elements<Element>(k), elements<Element>(v), q.size(0), q.size(1), k.size(1), q.size(2)};
}

// Checks the operands and returns the rows of `q`.
std::vector<Row> checked_rows(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& lengths) {
  const at::ScalarType kind = check_operand("the queries", q);
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3, "queries, keys and values have three dimensions");
  const int64_t tokens = q.size(0), heads = q.size(1), kv_heads = k.size(1), dim = q.size(2);
  TORCH_CHECK(dim > 0 && dim % LANES == 0, "heads have ", dim, " numbers; they must be a multiple of ", LANES);
  TORCH_CHECK(kv_heads > 0 && heads % kv_heads == 0, heads, " heads do not share ", kv_heads, " heads of keys");
  check_dense("the keys", k, kind, {tokens, kv_heads, dim});
  check_dense("the values", v, kind, {tokens, kv_heads, dim});
  return rows_of(lengths, tokens);
}

}  // namespace

namespace torch_ext {

Attended shared_prefix_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                 const std::vector<int64_t>& lengths) {
  std::vector<Row> rows = checked_rows(q, k, v, lengths);
  Attended result{at::empty_like(q), at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat))};
  by_kind(q, [&]<class Element>(const Element*) {
    Forward<Element> forward{};
    forward.out = mutable_elements<Element>(result.out);
    forward.logsumexp = mutable_elements<float>(result.logsumexp);
    forward.in = operands<Element>(q, k, v);
    run_tasks(forward, std::move(rows));
  });
  return result;
}

AttentionGradients shared_prefix_attention_gradients(const Tensor& grad, const Tensor& q, const Tensor& k,
                                                     const Tensor& v, const Attended& attended,
                                                     const std::vector<int64_t>& lengths) {
  std::vector<Row> rows = checked_rows(q, k, v, lengths);
  check_dense("the gradient", grad, q.scalar_type(), q.sizes());
  check_dense("the result", attended.out, q.scalar_type(), q.sizes());
  check_dense("the denominators", attended.logsumexp, at::kFloat, {q.size(1), q.size(0)});
  AttentionGradients result{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  by_kind(q, [&]<class Element>(const Element*) {
    Backward<Element> backward{};
    backward.grad_q = mutable_elements<Element>(result.q);
    backward.grad_k = mutable_elements<Element>(result.k);
    backward.grad_v = mutable_elements<Element>(result.v);
    backward.grad = elements<Element>(grad);
    backward.out = elements<Element>(attended.out);
    backward.logsumexp = elements<float>(attended.logsumexp);
    backward.in = operands<Element>(q, k, v);
    run_tasks(backward, std::move(rows));
  });
  return result;
}

}  // namespace torch_ext

namespace {

struct SharedPrefixAttention : torch::autograd::Function<SharedPrefixAttention> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<int64_t>* lengths) {
    const auto [out, logsumexp] = shared_prefix_attention(q, k, v, *lengths);
    context->save_for_backward({q, k, v, out, logsumexp});
    context->saved_data["lengths"] = *lengths;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const auto [q, k, v] =
        shared_prefix_attention_gradients(dense(grads[0]), saved[0], saved[1], saved[2], {saved[3], saved[4]},
                                          context->saved_data["lengths"].toIntVector());
    return {q, k, v, Tensor()};
  }
};

}  // namespace

int32_t torch_ext_shared_prefix_attention(const Tensor* q, const Tensor* k, const Tensor* v, const int64_t* lengths,
                                          size_t count, Tensor** out, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const std::vector<int64_t> rows(lengths, lengths + count);
    *out = new Tensor(SharedPrefixAttention::apply(*q, *k, *v, &rows));
  });
}
