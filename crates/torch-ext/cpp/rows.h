// Rows of tokens with a shared prefix, as shared-prefix attention reads them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "checks.h"

namespace torch_ext {

// Queries per block and keys per tile: the working set of both fits into the L2 cache.
constexpr int64_t SIDE = 64;
// Consecutive tokens with a causal mask: a prefix or a continuation.
struct Segment {
  int64_t token;  // The first one, among all tokens.
  int64_t length;
  int64_t place;  // The first one in a thread's scratch memory, where every segment begins a tile.
};

// A prefix, then continuations, each of which sees the prefix and itself.
struct Row {
  std::vector<Segment> segments;
  int64_t places;  // In a thread's scratch memory.
  int64_t cost;    // Pairs of a query and a key.
};

inline int64_t saturating_sum(int64_t one, int64_t other) {
  int64_t sum = 0;
  return __builtin_add_overflow(one, other, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

// The rows that `lengths` describes: per row its number of segments, then their lengths, which sum up to `tokens`.
inline std::vector<Row> rows_of(const std::vector<int64_t>& lengths, int64_t tokens) {
  std::vector<Row> rows;
  int64_t token = 0;
  for (size_t at = 0; at < lengths.size();) {
    const int64_t count = lengths[at++];
    TORCH_CHECK(count > 0 && uint64_t(count) <= lengths.size() - at, "a row has ", count, " segments");
    Row row{{}, 0, 0};
    const int64_t prefix = lengths[at];
    for (int64_t segment = 0; segment < count; ++segment) {
      const int64_t length = lengths[at++];
      TORCH_CHECK(length >= 0 && length <= tokens - token, "the rows have more tokens than the ", tokens,
                  " of the queries");
      row.segments.push_back({token, length, row.places});
      row.places += (length + SIDE - 1) / SIDE * SIDE;
      const int64_t keys = (segment == 0 ? 0 : prefix) + (length + 1) / 2;
      row.cost = saturating_sum(row.cost, saturating_product(length, keys));
      token += length;
    }
    rows.push_back(std::move(row));
  }
  TORCH_CHECK(token == tokens, "the rows have ", token, " tokens and the queries ", tokens);
  return rows;
}

}  // namespace torch_ext
