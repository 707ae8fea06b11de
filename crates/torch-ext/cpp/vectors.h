// Vectors of sixteen fp32 numbers, loaded from and stored to the kinds that the kernels read and write, and parallel
// loops over them.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>

#include "instructions.h"

#define INLINED inline __attribute__((always_inline))
// GCC has it since version 12.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HAS_SHUFFLES
#endif
#endif

namespace torch_ext {

constexpr int64_t LANES = 16;

typedef float Floats __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));

INLINED Floats load(const float* from) {
  Floats floats;
  std::memcpy(&floats, from, sizeof floats);
  return floats;
}

// A bf16 is the upper half of the fp32 of the same value.
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

// The sum of the lanes, pairwise: in sequence, each addition would wait for the previous one.
INLINED float total(Floats sum) {
  typedef float Eight __attribute__((vector_size(8 * sizeof(float))));
  typedef float Four __attribute__((vector_size(4 * sizeof(float))));
  Eight eights[2];
  std::memcpy(eights, &sum, sizeof eights);
  const Eight eight = eights[0] + eights[1];
  Four fours[2];
  std::memcpy(fours, &eight, sizeof fours);
  const Four four = fours[0] + fours[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// The maximum of the lanes, pairwise.
INLINED float highest(Floats numbers) {
  typedef float Eight __attribute__((vector_size(8 * sizeof(float))));
  typedef float Four __attribute__((vector_size(4 * sizeof(float))));
  Eight eights[2];
  std::memcpy(eights, &numbers, sizeof eights);
  const Eight eight = eights[0] > eights[1] ? eights[0] : eights[1];
  Four fours[2];
  std::memcpy(fours, &eight, sizeof fours);
  const Four four = fours[0] > fours[1] ? fours[0] : fours[1];
  const float even = four[0] > four[2] ? four[0] : four[2], odd = four[1] > four[3] ? four[1] : four[3];
  return even > odd ? even : odd;
}

// The lane sums of eight vectors, each in the order of `total`, in the first half of the result.
#ifdef HAS_SHUFFLES
INLINED Floats totals(const Floats (&x)[8]) {
  Floats eights[4], fours[2];
  for (int64_t at = 0; at < 4; ++at) {
    const Floats a = x[2 * at], b = x[2 * at + 1];
    eights[at] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                 __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  for (int64_t at = 0; at < 2; ++at) {
    const Floats a = eights[2 * at], b = eights[2 * at + 1];
    fours[at] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }
  const Floats a = fours[0], b = fours[1];
  const Floats twos = __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29) +
                      __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31);
  return __builtin_shufflevector(twos, twos, 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(twos, twos, 1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15);
}
#else
INLINED Floats totals(const Floats (&x)[8]) {
  Floats sums = {};
  for (int64_t at = 0; at < 8; ++at) sums[at] = total(x[at]);
  return sums;
}
#endif

// `x` with its halves of eight lanes swapped.
INLINED Floats halves_swapped(Floats x) {
#ifdef HAS_SHUFFLES
  return __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
#else
  float lanes[LANES];
  std::memcpy(lanes + LANES / 2, &x, sizeof lanes / 2);
  std::memcpy(lanes, reinterpret_cast<const char*>(&x) + sizeof lanes / 2, sizeof lanes / 2);
  std::memcpy(&x, lanes, sizeof x);
  return x;
#endif
}

// fp32 words whose upper halves are the nearest bf16s, ties to even as libtorch rounds; NaN stays NaN.
INLINED Words nearest_halves(Floats floats) {
  Words words;
  std::memcpy(&words, &floats, sizeof words);
  const Words nearest = words + 0x7FFFu + ((words >> 16) & 1u);
  return floats != floats ? Words{} + 0x7FC00000u : nearest;
}

INLINED void store(uint16_t* to, Floats floats) {
  const Halves halves = __builtin_convertvector(nearest_halves(floats) >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

// `floats` rounded to the kind that the second argument points to.
INLINED Floats rounded(Floats floats, const float*) { return floats; }

INLINED Floats rounded(Floats floats, const uint16_t*) {
  const Words words = nearest_halves(floats) & 0xFFFF0000u;
  std::memcpy(&floats, &words, sizeof floats);
  return floats;
}

// e^x for x ≤ 0, to about two units in the last place: 2^n · e^r with |r| ≤ ln 2 / 2, and e^r by its Taylor polynomial.
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

// The last `count` numbers of a tensor, fewer than a vector, followed by zeros.
template <class Element>
INLINED Floats load_some(const Element* from, int64_t count) {
  Element padded[LANES] = {};
  std::memcpy(padded, from, count * sizeof(Element));
  return load(padded);
}

template <class Element>
INLINED void store_some(Element* to, Floats floats, int64_t count) {
  Element padded[LANES];
  store(padded, floats);
  std::memcpy(to, padded, count * sizeof(Element));
}

// The elements of a tensor; bf16 as raw words.
template <class Element>
const Element* elements(const at::Tensor& tensor);
template <>
inline const float* elements<float>(const at::Tensor& tensor) {
  return tensor.const_data_ptr<float>();
}
template <>
inline const uint16_t* elements<uint16_t>(const at::Tensor& tensor) {
  return reinterpret_cast<const uint16_t*>(tensor.const_data_ptr<at::BFloat16>());
}

template <class Element>
Element* mutable_elements(const at::Tensor& tensor);
template <>
inline float* mutable_elements<float>(const at::Tensor& tensor) {
  return tensor.mutable_data_ptr<float>();
}
template <>
inline uint16_t* mutable_elements<uint16_t>(const at::Tensor& tensor) {
  return reinterpret_cast<uint16_t*>(tensor.mutable_data_ptr<at::BFloat16>());
}

// Calls `f` with a null pointer of the type of `tensor`'s elements.
template <class F>
void by_kind(const at::Tensor& tensor, F f) {
  if (tensor.scalar_type() == at::kFloat) {
    f(static_cast<const float*>(nullptr));
  } else {
    f(static_cast<const uint16_t*>(nullptr));
  }
}

// Elements that are worth a thread.
constexpr int64_t GRAIN = 1 << 16;

// Calls `kernel(begin, end)` for ranges of at least `grain` that cover `count`, on all of libtorch's threads.
template <class Kernel>
void parallel_run(const Kernel& kernel, int64_t count, int64_t grain) {
  const Instructions set = instructions();
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { run(set, kernel, begin, end); });
}

}  // namespace torch_ext
