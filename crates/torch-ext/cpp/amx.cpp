#include "amx.h"

#include "vectors.h"

#if defined(__x86_64__) && defined(__linux__) && defined(HAS_SHUFFLES)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#define TARGET_AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl")))

namespace torch_ext {
namespace {

// Rows of a tile, each of a cache line: sixteen fp32 sums, or as many pairs of bf16.
constexpr int64_t TILE = 16;
// Elements of bf16 in a row of a tile.
constexpr int64_t STEP = 2 * TILE;
// Two tiles of either operand at a time make four products of four loads.
constexpr int64_t SIDE = 2 * TILE;

// The configuration of the eight tiles: all are full.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Swaps blocks of `width` across the diagonal of pairs of rows; for 8, 4, 2 and 1 in turn this transposes.
#define SHUFFLED(a, b, at)                                                                                            \
  __builtin_shufflevector(a, b, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9), at(10), at(11), \
                          at(12), at(13), at(14), at(15))
template <int width>
INLINED void exchange(Floats (&rows)[TILE]) {
#define OF_FIRST(lane) ((lane) & width ? TILE + (lane) - width : (lane))
#define OF_SECOND(lane) ((lane) & width ? TILE + (lane) : (lane) + width)
  for (int row = 0; row < TILE; ++row) {
    if (row & width) continue;
    const Floats first = rows[row], second = rows[row + width];
    rows[row] = SHUFFLED(first, second, OF_FIRST);
    rows[row + width] = SHUFFLED(first, second, OF_SECOND);
  }
#undef OF_FIRST
#undef OF_SECOND
}

INLINED void transpose(Floats (&rows)[TILE]) {
  exchange<8>(rows);
  exchange<4>(rows);
  exchange<2>(rows);
  exchange<1>(rows);
}

// Packs the rows of x as the second operand of a product of tiles: adjacent pairs of sixteen rows, interleaved. For
// every SIDE rows and every STEP columns there are two consecutive tiles; missing rows are zeros.
TARGET_AMX void pack(float* to, const uint16_t* x, int64_t rows, int64_t in) {
  for (int64_t first = 0; first < rows; first += SIDE) {
    for (int64_t column = 0; column < in; column += STEP) {
      for (int64_t half = first; half < first + SIDE; half += TILE, to += TILE * TILE) {
        Floats pairs[TILE] = {};
        for (int64_t row = half; row < std::min(half + TILE, rows); ++row) {
          std::memcpy(&pairs[row - half], x + row * in + column, sizeof(Floats));
        }
        transpose(pairs);
        std::memcpy(to, pairs, sizeof pairs);
      }
    }
  }
}

struct Product {
  uint16_t* out;
  const float* packed;
  const uint16_t* weight;
  int64_t rows, outs, in;
};

// SIDE outputs of SIDE rows, summed in the first four tiles. Prefetches the weight rows at `ahead`.
TARGET_AMX void sum(const Product& product, const uint16_t* weight, const float* packed, const uint16_t* ahead) {
  const int64_t stride = product.in * sizeof(uint16_t);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t at = 0; at < product.in; at += STEP, packed += 2 * TILE * TILE) {
    _tile_loadd(4, weight + at, stride);
    _tile_loadd(5, weight + TILE * product.in + at, stride);
    _tile_loadd(6, packed, 64);
    _tile_loadd(7, packed + TILE * TILE, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    if (ahead == nullptr) continue;
    for (int64_t row = 0; row < SIDE; ++row) {
      __builtin_prefetch(ahead + row * product.in + at);
    }
  }
}

// Stores a tile of sums, one output per row, as sixteen outputs of each of `count` rows.
TARGET_AMX void spread(const float* sums, uint16_t* out, int64_t outs, int64_t count) {
  Floats rows[TILE];
  std::memcpy(rows, sums, sizeof rows);
  transpose(rows);
  for (int64_t row = 0; row < count; ++row) store(out + row * outs, rows[row]);
}

TARGET_AMX void multiply(const Product& product, int64_t begin, int64_t end) {
  const TileConfig config;
  _tile_loadconfig(&config);
  alignas(64) float sums[4][TILE * TILE];
  for (int64_t block = begin; block < end; ++block) {
    const uint16_t* weight = product.weight + block * SIDE * product.in;
    const float* packed = product.packed;
    for (int64_t first = 0; first < product.rows; first += SIDE, packed += SIDE * product.in / 2) {
      const bool is_first = first == 0 && block + 1 < end;
      sum(product, weight, packed, is_first ? weight + SIDE * product.in : nullptr);
      _tile_stored(0, sums[0], 64);
      _tile_stored(1, sums[1], 64);
      _tile_stored(2, sums[2], 64);
      _tile_stored(3, sums[3], 64);
      for (int64_t tile = 0; tile < 4; ++tile) {
        const int64_t row = first + tile % 2 * TILE;
        uint16_t* to = product.out + row * product.outs + block * SIDE + tile / 2 * TILE;
        spread(sums[tile], to, product.outs, std::min(TILE, product.rows - row));
      }
    }
  }
  _tile_release();
}

bool request_tiles() noexcept {
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTARGET_AMXATA
  return __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-tile") &&
         syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

}  // namespace

bool has_amx() noexcept {
  static const bool has = request_tiles();
  return has;
}

void multiply_amx(uint16_t* out, const uint16_t* x, const uint16_t* weight, int64_t rows, int64_t outs, int64_t in) {
  const int64_t padded = (rows + SIDE - 1) / SIDE * SIDE;
  std::vector<float> packed(padded * in / 2);
  pack(packed.data(), x, rows, in);
  const Product product{out, packed.data(), weight, rows, outs, in};
  at::parallel_for(0, outs / SIDE, std::max<int64_t>(1, GRAIN / (SIDE * in)),
                   [&](int64_t begin, int64_t end) { multiply(product, begin, end); });
}

}  // namespace torch_ext

#else

namespace torch_ext {

bool has_amx() noexcept { return false; }

void multiply_amx(uint16_t*, const uint16_t*, const uint16_t*, int64_t, int64_t, int64_t) {}

}  // namespace torch_ext

#endif
