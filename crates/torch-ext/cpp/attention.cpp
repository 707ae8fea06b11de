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

#include "guarded.h"
#include "kernels.h"
#include "lanes.h"

namespace {

using namespace torch_ext;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Queries of a block and keys of a tile: what of both is in use at a time fits into the second cache.
constexpr int64_t SIDE = 64;
// Rows that a product computes beside each other. With four vectors of columns these are sixteen sums, enough for each to be
// done before it is needed again, and not more than there are registers.
constexpr int64_t STRIP = 4;
constexpr int64_t COLUMNS = 4;

// Tokens one behind the other that see each other up to themselves.
struct Part {
  int64_t token;   // The first one, among all.
  int64_t length;
  int64_t place;   // The first one in a thread's room, where every part begins a tile.
};

// A trunk, then branches, each of which sees the trunk and itself.
struct Row {
  std::vector<Part> parts;
  int64_t places;  // In a thread's room.
  int64_t cost;    // Pairs of a query and a key.
};

std::vector<Row> rows_of(const std::vector<int64_t>& trees) {
  std::vector<Row> rows;
  int64_t token = 0;
  for (size_t at = 0; at < trees.size(); at += 1 + trees[at]) {
    Row row{{}, 0, 0};
    for (int64_t part = 1; part <= trees[at]; ++part) {
      const int64_t length = trees[at + part], trunk = part == 1 ? 0 : trees[at + 1];
      row.parts.push_back({token, length, row.places});
      row.places += (length + SIDE - 1) / SIDE * SIDE;
      row.cost += length * trunk + length * (length + 1) / 2;
      token += length;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// c (+)= a · b for STRIP rows and `parts` vectors of columns: a's element of row r and depth k lies at r · a_row + k · a_step.
template <int64_t parts, bool adds>
INLINED void product(float* c, int64_t c_row, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row,
                     int64_t depth) {
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

// Functions of their own, since they are called in many places and take long to compile.
WIDEST void set(const Product& product) { product.compute<false>(); }
WIDEST void add(const Product& product) { product.compute<true>(); }

// Of two rows of a matrix, `reach` apart, exchanges what lies off the diagonal of their blocks of `reach`.
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

// `count` rows of `dim` numbers that lie `stride` apart, with columns and rows exchanged: tiles of SIDE columns, each
// [dim, SIDE]. Columns behind the last one are zeros as far as a vector reaches.
template <class Element>
INLINED void turned(const Element* from, int64_t stride, int64_t count, int64_t dim, float* to) {
  for (int64_t first = 0; first < count; first += LANES) {
    float* tile = to + first / SIDE * SIDE * dim + first % SIDE;
    for (int64_t at = 0; at < dim; at += LANES) {
      Floats block[LANES];
#pragma GCC unroll 16
      for (int64_t row = 0; row < LANES; ++row) {
        block[row] = first + row < count ? load(from + (first + row) * stride + at) : Floats{};
      }
      exchange<8>(block), exchange<4>(block), exchange<2>(block), exchange<1>(block);
#pragma GCC unroll 16
      for (int64_t row = 0; row < LANES; ++row) store(tile + (at + row) * SIDE, block[row]);
    }
  }
}

// `count` rows of `dim` numbers that lie `stride` apart, times `scale`, one behind the other; zeros up to a whole strip.
template <class Element>
INLINED void widened(const Element* from, int64_t stride, int64_t count, int64_t dim, float scale, float* to) {
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t at = 0; at < dim; at += LANES) store(to + row * dim + at, load(from + row * stride + at) * scale);
  }
  std::fill(to + count * dim, to + (count + STRIP - 1) / STRIP * STRIP * dim, 0.0f);
}

INLINED void zero(float* to, int64_t count) { std::fill(to, to + count, 0.0f); }

INLINED void add(float* to, const float* from, int64_t count) {
  for (int64_t at = 0; at < count; at += LANES) store(to + at, load(to + at) + load(from + at));
}

// e^x as in lanes.h; what is not a number stays so.
INLINED Floats power(Floats x) { return x == x ? exponential(x) : x; }

// `numbers`, and `otherwise` from lane `count` on.
INLINED Floats up_to(int64_t count, Floats numbers, float otherwise) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < int32_t(std::min(count, LANES)) ? numbers : Floats{} + otherwise;
}

// Where the keys of a tile end for a strip of queries, and for each of them.
struct Sight {
  bool own;       // The queries' part and the keys' are one, in which nobody sees later tokens.
  int64_t query;  // The first one, in its part.
  int64_t tile;   // The first key, in its part.
  int64_t keys;   // Of the tile.

  // Keys of the tile that query `at` of the block sees.
  INLINED int64_t of(int64_t at) const {
    return own ? std::max<int64_t>(0, std::min(keys, query + at + 1 - tile)) : keys;
  }
  // The first query of the block that sees key `at` of the tile.
  INLINED int64_t first(int64_t at) const { return own ? std::max<int64_t>(0, tile + at - query) : 0; }
};

// Calls `f` with every tile of keys that some of `count` queries from `query` on see, and where it lies.
template <class F>
INLINED void tiles(const Row& row, const Part& part, int64_t query, int64_t count, F f) {
  const Part& trunk = row.parts[0];
  if (&part != &trunk) {
    for (int64_t tile = 0; tile < trunk.length; tile += SIDE) {
      f(Sight{false, query, tile, std::min(SIDE, trunk.length - tile)}, trunk.place + tile);
    }
  }
  for (int64_t tile = 0; tile < query + count; tile += SIDE) {
    f(Sight{true, query, tile, std::min(SIDE, part.length - tile)}, part.place + tile);
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

// Queries of a block while they meet one tile of keys after the other: what came of them so far is what the highest score
// so far makes of it.
struct Running {
  float* out;  // [SIDE, dim]
  float highest[SIDE];
  Floats sum[SIDE];

  // Makes weights of query `at`'s scores, of which it sees `seen`.
  INLINED void weigh(int64_t at, float* scores, int64_t seen, int64_t parts, int64_t dim) {
    if (seen == 0) return zero(scores, parts * LANES);
    Floats most = Floats{} - std::numeric_limits<float>::infinity();
    for (int64_t part = 0; part < parts; ++part) {
      const Floats some = up_to(seen - part * LANES, load(scores + part * LANES), -std::numeric_limits<float>::infinity());
      most = some > most ? some : most;
    }
    const float top = torch_ext::highest(most);
    if (top > highest[at]) {
      const float factor = std::exp(highest[at] - top);
      highest[at] = top;
      sum[at] *= factor;
      float* of_query = out + at * dim;
      for (int64_t d = 0; d < dim; d += LANES) store(of_query + d, load(of_query + d) * factor);
    }
    for (int64_t part = 0; part < parts; ++part) {
      const Floats weights = power(load(scores + part * LANES) - highest[at]);
      const Floats some = up_to(seen - part * LANES, weights, 0.0f);
      store(scores + part * LANES, some);
      sum[at] += some;
    }
  }
};

template <class Element>
struct Forward {
  Element* out;
  float* sums;  // [heads, N]: the logarithm of what the weights are divided by.
  Operands<Element> in;

  int64_t room(int64_t places) const { return (2 * places + 2 * SIDE) * in.dim; }

  // All queries of a row whose heads share the keys and values of `kv_head`.
  INLINED void task(const Row& row, int64_t kv_head, float* room) const {
    float *keys = room, *values = keys + row.places * in.dim, *of_block = values + row.places * in.dim;
    for (const Part& part : row.parts) {
      const int64_t from = in.kv_place(part.token, kv_head), stride = in.kv_heads * in.dim;
      turned(in.k + from, stride, part.length, in.dim, keys + part.place * in.dim);
      widened(in.v + from, stride, part.length, in.dim, 1.0f, values + part.place * in.dim);
    }
    for (const Part& part : row.parts) {
      for (int64_t head = kv_head * in.group(); head < (kv_head + 1) * in.group(); ++head) {
        for (int64_t query = 0; query < part.length; query += SIDE) block(row, part, head, query, keys, values, of_block);
      }
    }
  }

  INLINED void block(const Row& row, const Part& part, int64_t head, int64_t query, const float* keys, const float* values,
                     float* room) const {
    const int64_t dim = in.dim, count = std::min(SIDE, part.length - query), strips = (count + STRIP - 1) / STRIP;
    const int64_t from = in.place(part.token + query, head), stride = in.heads * dim;
    float* queries = room;
    widened(in.q + from, stride, count, dim, in.scale(), queries);
    Running running;
    running.out = room + SIDE * dim;
    zero(running.out, strips * STRIP * dim);
    std::fill(running.highest, running.highest + strips * STRIP, -std::numeric_limits<float>::infinity());
    std::fill(running.sum, running.sum + strips * STRIP, Floats{});
    tiles(row, part, query, count, [&](const Sight& sight, int64_t place) __attribute__((always_inline)) {
      for (int64_t at = 0; at < strips * STRIP; at += STRIP) {
        const int64_t seen = sight.of(at + STRIP - 1), parts = vectors(seen);
        if (seen == 0) continue;
        alignas(64) float scores[STRIP * SIDE];
        set(Product{scores, SIDE, queries + at * dim, dim, 1, keys + place * dim, SIDE, dim, parts});
        for (int64_t r = 0; r < STRIP; ++r) running.weigh(at + r, scores + r * SIDE, sight.of(at + r), parts, dim);
        add(Product{running.out + at * dim, dim, scores, SIDE, 1, values + place * dim, dim, seen, dim / LANES});
      }
    });
    for (int64_t at = 0; at < count; ++at) {
      const float sum = total(running.sum[at]), inverse = 1.0f / sum;
      sums[head * in.tokens + part.token + query + at] = running.highest[at] + std::log(sum);
      for (int64_t d = 0; d < dim; d += LANES) {
        store(out + from + at * stride + d, load(running.out + at * dim + d) * inverse);
      }
    }
  }
};

// With P the weights and g what reaches the result: dV = Pᵀ·g, dS = P ∘ (g·Vᵀ − Σ g ∘ out), dQ = dS·K / √d, dK = dSᵀ·Q / √d.
template <class Element>
struct Backward {
  Element* grad_q;
  Element* grad_k;
  Element* grad_v;
  const Element* grad;
  const Element* out;
  const float* sums;
  Operands<Element> in;

  int64_t room(int64_t places) const { return (7 * places + 3 * SIDE) * in.dim + 2 * SIDE * SIDE; }

  // What a row's part adds to the gradients of some keys and values.
  struct Sums {
    float* keys;
    float* values;
  };

  struct Room {
    float *turned_keys, *turned_values, *keys;  // By place.
    Sums all, of_trunk;                         // By place.
    float *queries, *grads, *grad_queries;      // [SIDE, dim]
    float *weights, *scores;                    // [SIDE, SIDE]
  };

  INLINED Room room_of(float* at, int64_t places) const {
    const auto take = [&](int64_t numbers) { return std::exchange(at, at + numbers); };
    const int64_t by_place = places * in.dim, by_query = SIDE * in.dim;
    Room room;
    room.turned_keys = take(by_place), room.turned_values = take(by_place), room.keys = take(by_place);
    room.all.keys = take(by_place), room.all.values = take(by_place);
    room.of_trunk.keys = take(by_place), room.of_trunk.values = take(by_place);
    room.queries = take(by_query), room.grads = take(by_query), room.grad_queries = take(by_query);
    room.weights = take(SIDE * SIDE), room.scores = take(SIDE * SIDE);
    return room;
  }

  // All gradients of a row that go through the keys and values of `kv_head`.
  INLINED void task(const Row& row, int64_t kv_head, float* at) const {
    const Room room = room_of(at, row.places);
    const int64_t dim = in.dim, stride = in.kv_heads * dim, trunk = row.parts[0].length;
    for (const Part& part : row.parts) {
      const int64_t from = in.kv_place(part.token, kv_head), to = part.place * dim;
      turned(in.k + from, stride, part.length, dim, room.turned_keys + to);
      turned(in.v + from, stride, part.length, dim, room.turned_values + to);
      widened(in.k + from, stride, part.length, dim, 1.0f, room.keys + to);
      const int64_t summed = (part.length + STRIP - 1) / STRIP * STRIP * dim;
      zero(room.all.keys + to, summed), zero(room.all.values + to, summed);
    }
    // The trunk last, and what a branch adds to it summed by itself: then which of two branches stands first changes no bit.
    for (size_t part = row.parts.size(); part-- > 0;) {
      const int64_t shared = (trunk + STRIP - 1) / STRIP * STRIP * dim;
      zero(room.of_trunk.keys, shared), zero(room.of_trunk.values, shared);
      for (int64_t head = kv_head * in.group(); head < (kv_head + 1) * in.group(); ++head) {
        for (int64_t query = 0; query < row.parts[part].length; query += SIDE) {
          block(row, row.parts[part], head, query, room);
        }
      }
      add(room.all.keys, room.of_trunk.keys, trunk * dim), add(room.all.values, room.of_trunk.values, trunk * dim);
    }
    for (const Part& part : row.parts) {
      for (int64_t key = 0; key < part.length; ++key) {
        const int64_t to = in.kv_place(part.token + key, kv_head), from = (part.place + key) * dim;
        for (int64_t d = 0; d < dim; d += LANES) {
          store(grad_k + to + d, load(room.all.keys + from + d));
          store(grad_v + to + d, load(room.all.values + from + d));
        }
      }
    }
  }

  INLINED void block(const Row& row, const Part& part, int64_t head, int64_t query, const Room& room) const {
    const int64_t dim = in.dim, count = std::min(SIDE, part.length - query), strips = (count + STRIP - 1) / STRIP;
    const int64_t token = part.token + query, from = in.place(token, head), stride = in.heads * dim;
    widened(in.q + from, stride, count, dim, in.scale(), room.queries);
    widened(grad + from, stride, count, dim, 1.0f, room.grads);
    zero(room.grad_queries, strips * STRIP * dim);
    float of_out[SIDE] = {}, sum[SIDE] = {};
    for (int64_t at = 0; at < count; ++at) {
      Floats products = {};
      for (int64_t d = 0; d < dim; d += LANES) {
        products += load(room.grads + at * dim + d) * load(out + from + at * stride + d);
      }
      of_out[at] = total(products), sum[at] = sums[head * in.tokens + token + at];
    }
    tiles(row, part, query, count, [&](const Sight& sight, int64_t place) __attribute__((always_inline)) {
      for (int64_t at = 0; at < strips * STRIP; at += STRIP) {
        const int64_t seen = sight.of(at + STRIP - 1), parts = vectors(seen);
        if (seen == 0) continue;
        float *weights = room.weights + at * SIDE, *scores = room.scores + at * SIDE;
        set(Product{weights, SIDE, room.queries + at * dim, dim, 1, room.turned_keys + place * dim, SIDE, dim, parts});
        set(Product{scores, SIDE, room.grads + at * dim, dim, 1, room.turned_values + place * dim, SIDE, dim, parts});
        for (int64_t r = 0; r < STRIP; ++r) {
          for (int64_t part = 0; part < parts; ++part) {
            const int64_t place = r * SIDE + part * LANES, left = sight.of(at + r) - part * LANES;
            const Floats weight = up_to(left, power(load(weights + place) - sum[at + r]), 0.0f);
            store(weights + place, weight);
            store(scores + place, up_to(left, weight * (load(scores + place) - of_out[at + r]), 0.0f));
          }
        }
        add(Product{room.grad_queries + at * dim, dim, scores, SIDE, 1, room.keys + place * dim, dim, seen, dim / LANES});
      }
      const bool in_trunk = place < row.parts[0].place + row.parts[0].length;
      const Sums& to = in_trunk ? room.of_trunk : room.all;
      for (int64_t key = 0; key < sight.keys; key += STRIP) {
        const int64_t first = sight.first(key), at = (place + key) * dim, left = count - first;
        if (left <= 0) break;
        const float *weights = room.weights + first * SIDE + key, *scores = room.scores + first * SIDE + key;
        add(Product{to.values + at, dim, weights, 1, SIDE, room.grads + first * dim, dim, left, dim / LANES});
        add(Product{to.keys + at, dim, scores, 1, SIDE, room.queries + first * dim, dim, left, dim / LANES});
      }
    });
    for (int64_t at = 0; at < count; ++at) {
      for (int64_t d = 0; d < dim; d += LANES) {
        store(grad_q + from + at * stride + d, load(room.grad_queries + at * dim + d) * in.scale());
      }
    }
  }
};

WIDEST void run(const Forward<float>& pass, const Row& row, int64_t head, float* room) { pass.task(row, head, room); }
WIDEST void run(const Forward<uint16_t>& pass, const Row& row, int64_t head, float* room) { pass.task(row, head, room); }
WIDEST void run(const Backward<float>& pass, const Row& row, int64_t head, float* room) { pass.task(row, head, room); }
WIDEST void run(const Backward<uint16_t>& pass, const Row& row, int64_t head, float* room) { pass.task(row, head, room); }

// Numbers that begin where a cache line does: half of all loads would touch two otherwise.
struct Aligned {
  explicit Aligned(int64_t numbers) : at(static_cast<float*>(::operator new(numbers * sizeof(float), LINE))) {}
  ~Aligned() { ::operator delete(at, LINE); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;

  static constexpr std::align_val_t LINE{64};
  float* at;
};

// Every row with every head of keys, the costly ones first, each by whichever thread is free. Nothing of a task depends on
// another, so that who computes it changes no bit.
template <class Pass>
void share_out(const Pass& pass, std::vector<Row> rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.cost > b.cost; });
  int64_t places = 0, cost = 0;
  for (const Row& row : rows) places = std::max(places, row.places), cost += row.cost;
  const int64_t tasks = int64_t(rows.size()) * pass.in.kv_heads;
  const int64_t worth = std::max<int64_t>(1, cost * pass.in.heads * pass.in.dim / GRAIN);
  const int64_t workers = std::min({tasks, worth, int64_t(at::get_num_threads())});
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    const Aligned room(pass.room(places));
    for (int64_t task = next++; task < tasks; task = next++) {
      run(pass, rows[task / pass.in.kv_heads], task % pass.in.kv_heads, room.at);
    }
  });
}

template <class Element>
Operands<Element> operands(const Tensor& q, const Tensor& k, const Tensor& v) {
  return {elements<Element>(q), elements<Element>(k), elements<Element>(v), q.size(0), q.size(1), k.size(1), q.size(2)};
}

}  // namespace

namespace torch_ext {

Attended tree_attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& trees) {
  Attended made{at::empty_like(q), at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat))};
  by_kind(q, [&]<class Element>(const Element*) {
    ::share_out(Forward<Element>{mutable_elements<Element>(made.out), mutable_elements<float>(made.sums),
                                 operands<Element>(q, k, v)},
                rows_of(trees));
  });
  return made;
}

AttentionGradients tree_attention_gradients(const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v,
                                            const Attended& attended, const std::vector<int64_t>& trees) {
  AttentionGradients made{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  by_kind(q, [&]<class Element>(const Element*) {
    ::share_out(Backward<Element>{mutable_elements<Element>(made.q), mutable_elements<Element>(made.k),
                                  mutable_elements<Element>(made.v), elements<Element>(grad),
                                  elements<Element>(attended.out), elements<float>(attended.sums),
                                  operands<Element>(q, k, v)},
                rows_of(trees));
  });
  return made;
}

}  // namespace torch_ext

namespace {

struct TreeAttention : torch::autograd::Function<TreeAttention> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<int64_t>* trees) {
    const auto [out, sums] = tree_attention(q, k, v, *trees);
    context->save_for_backward({q, k, v, out, sums});
    context->saved_data["trees"] = *trees;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const auto [q, k, v] = tree_attention_gradients(grads[0].contiguous(), saved[0], saved[1], saved[2], {saved[3], saved[4]},
                                                    context->saved_data["trees"].toIntVector());
    return {q, k, v, Tensor()};
  }
};

}  // namespace

int32_t torch_ext_tree_attention(const Tensor* q, const Tensor* k, const Tensor* v, const int64_t* trees, size_t length,
                                 Tensor** made, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const std::vector<int64_t> lengths(trees, trees + length);
    *made = new Tensor(TreeAttention::apply(*q, *k, *v, &lengths));
  });
}
