#include "quantized.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/linspace.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "adamw.h"
#include "checks.h"
#include "guarded.h"
#include "vectors.h"

namespace {

using namespace torch_ext;
using at::Tensor;

// Numbers that share a scale: weights in NF4, and moments in the dynamic code.
constexpr int64_t NF4_BLOCK = 64, DYNAMIC_BLOCK = 256;

int64_t blocks_of(int64_t count, int64_t size) { return count / size + (count % size != 0); }

// Blocks [begin, end) of numbers in NF4.
template <class Element>
struct DequantizeNf4 {
  Element* out;
  const uint8_t* codes;
  const float* scales;
  Floats values;
  int64_t count;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t from = block * NF4_BLOCK, last = std::min(count, from + NF4_BLOCK);
      int64_t at = from;
#if defined(HAS_SHUFFLES) && !defined(__clang__)
      for (; at + 2 * LANES <= last; at += 2 * LANES) two_vectors(codes + at / 2, scales[block], out + at);
#endif
      for (; at < last; ++at) {
        const uint8_t both = codes[at / 2];
        narrowed(values[at % 2 == 0 ? both >> 4 : both & 15] * scales[block], out + at);
      }
    }
  }

#if defined(HAS_SHUFFLES) && !defined(__clang__)
  // The numbers of sixteen bytes.
  INLINED void two_vectors(const uint8_t* from, float scale, Element* to) const {
    typedef uint8_t Bytes __attribute__((vector_size(LANES)));
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    const Ints both = __builtin_convertvector(bytes, Ints);
    const Floats high = __builtin_shuffle(values, both >> 4) * scale, low = __builtin_shuffle(values, both & 15) * scale;
    store(to, __builtin_shufflevector(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    store(to + LANES, __builtin_shufflevector(high, low, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
  }
#endif
};

// The dynamic code of Dettmers (2016): a sign, a decimal exponent in unary, and a fraction in the bits that are left.
struct DynamicCode {
  float values[256];
  // Between each number and the next; the last is infinite.
  float bounds[256];
  // For the upper half of an fp32, the code of the lowest number with that half.
  uint8_t lowest[1 << 16];

  explicit DynamicCode(bool is_signed) {
    std::vector<float> numbers{0.0f, 1.0f};
    for (int64_t decade = 0; decade < 7; ++decade) {
      const int64_t fractions = int64_t(is_signed ? 1 : 2) << decade;
      const Tensor edges = at::linspace(0.1, 1.0, fractions + 1, at::kFloat);
      const float* edge = edges.const_data_ptr<float>();
      const float power = float(std::pow(10.0, decade - 6));
      for (int64_t at = 0; at < fractions; ++at) {
        const float middle = (edge[at] + edge[at + 1]) / 2.0f * power;
        numbers.push_back(middle);
        if (is_signed) numbers.push_back(-middle);
      }
    }
    std::sort(numbers.begin(), numbers.end());
    TORCH_CHECK(numbers.size() == 256, "the dynamic code has 256 numbers");
    std::copy(numbers.begin(), numbers.end(), values);
    for (int64_t at = 0; at < 255; ++at) bounds[at] = (values[at] + values[at + 1]) / 2.0f;
    bounds[255] = std::numeric_limits<float>::infinity();
    for (uint32_t half = 0; half < 1 << 16; ++half) {
      // The lowest number has the largest magnitude below zero.
      const uint32_t word = half << 16 | (half >> 15 ? 0xFFFF : 0);
      float number;
      std::memcpy(&number, &word, sizeof number);
      lowest[half] = uint8_t(std::lower_bound(bounds, bounds + 255, number) - bounds);
    }
  }

  // The code of the nearest number. Of NaN it is some code.
  INLINED uint8_t nearest(float x) const {
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    uint8_t code = lowest[word >> 16];
    while (x > bounds[code]) ++code;
    return code;
  }

  static const DynamicCode& with_sign() {
    static const DynamicCode code(true);
    return code;
  }

  static const DynamicCode& without_sign() {
    static const DynamicCode code(false);
    return code;
  }
};

// The moment of a block, and its largest magnitude.
struct Moment {
  uint8_t* codes;
  float* scales;
  const DynamicCode& code;

  INLINED void read(int64_t block, int64_t count, float* numbers) const {
    for (int64_t at = 0; at < count; ++at) {
      numbers[at] = code.values[codes[block * DYNAMIC_BLOCK + at]] * scales[block];
    }
  }

  // `lowest` is the least code of a positive number.
  INLINED void write(int64_t block, int64_t count, const float* numbers, float scale, uint8_t lowest) const {
    const float factor = 1.0f / std::max(scale, 1e-38f);
    for (int64_t at = 0; at < count; ++at) {
      const uint8_t nearest = code.nearest(numbers[at] * factor);
      codes[block * DYNAMIC_BLOCK + at] = numbers[at] > 0.0f ? std::max(nearest, lowest) : nearest;
    }
    scales[block] = scale;
  }
};

template <class Element>
struct AdamW8bit {
  AdamWStep step;
  float* weights;
  const float* gradient;
  Moment first, second;
  Element* copy;  // Or null.
  int64_t count;

  INLINED void operator()(int64_t begin, int64_t end) const {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t from = block * DYNAMIC_BLOCK, numbers = std::min(DYNAMIC_BLOCK, count - from);
      float firsts[DYNAMIC_BLOCK] = {}, seconds[DYNAMIC_BLOCK] = {};
      first.read(block, numbers, firsts);
      second.read(block, numbers, seconds);
      Floats most_first = {}, most_second = {};
      for (int64_t at = 0; at < numbers; at += LANES) {
        const int64_t left = std::min(LANES, numbers - at), here = from + at;
        const AdamWStep::Updated updated = step(load_some(weights + here, left), load_some(gradient + here, left),
                                                load(firsts + at), load(seconds + at));
        const Floats magnitude = updated.first < 0.0f ? -updated.first : updated.first;
        most_first = magnitude > most_first ? magnitude : most_first;
        most_second = updated.second > most_second ? updated.second : most_second;
        store(firsts + at, updated.first);
        store(seconds + at, updated.second);
        store_some(weights + here, updated.weight, left);
        if (copy != nullptr) store_some(copy + here, updated.weight, left);
      }
      first.write(block, numbers, firsts, highest(most_first), 0);
      // A second moment of zero would divide a first moment by eps alone.
      second.write(block, numbers, seconds, highest(most_second), 1);
    }
  }
};

}  // namespace

int32_t torch_ext_dequantize_nf4(at::Tensor* out, const at::Tensor* codes, const at::Tensor* scales,
                                 const float* values, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const int64_t count = out->numel(), blocks = blocks_of(count, NF4_BLOCK);
    check_dense("the numbers", *out, check_operand("the numbers", *out), out->sizes());
    check_dense("the codes", *codes, at::kByte, {blocks_of(count, 2)});
    check_dense("the scales", *scales, at::kFloat, {blocks});
    const auto* from = codes->const_data_ptr<uint8_t>();
    by_kind(*out, [&]<class Element>(const Element*) {
      const DequantizeNf4<Element> kernel{mutable_elements<Element>(*out), from, elements<float>(*scales), load(values),
                                          count};
      parallel_run(kernel, blocks, GRAIN / NF4_BLOCK);
    });
  });
}

int32_t torch_ext_dynamic_code(int32_t is_signed, float* values, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const DynamicCode& code = is_signed ? DynamicCode::with_sign() : DynamicCode::without_sign();
    std::copy(code.values, code.values + 256, values);
  });
}

int32_t torch_ext_adamw_8bit(at::Tensor* weights, const at::Tensor* gradient, at::Tensor* first, at::Tensor* second,
                             at::Tensor* first_scales, at::Tensor* second_scales, at::Tensor* copy,
                             const TorchExtAdamW* update, TorchExtMessage message) noexcept {
  return guarded(message, [&] {
    const int64_t count = weights->numel(), blocks = blocks_of(count, DYNAMIC_BLOCK);
    check_dense("the weights", *weights, at::kFloat, {count});
    check_dense("the gradient", *gradient, at::kFloat, {count});
    for (const Tensor* codes : {first, second}) check_dense("the codes of a moment", *codes, at::kByte, {count});
    for (const Tensor* scales : {first_scales, second_scales}) {
      check_dense("the scales of a moment", *scales, at::kFloat, {blocks});
    }
    std::vector<const Tensor*> all{weights, gradient, first, second, first_scales, second_scales};
    if (copy != nullptr) {
      check_dense("the copy", *copy, check_operand("the copy", *copy), weights->sizes());
      all.push_back(copy);
    }
    check_disjoint(all);
    const auto with = [&]<class Element>(Element* to) {
      const auto moment = [](const Tensor& codes, const Tensor& scales, const DynamicCode& code) {
        return Moment{codes.mutable_data_ptr<uint8_t>(), mutable_elements<float>(scales), code};
      };
      const AdamW8bit<Element> kernel{
          .step = AdamWStep(*update),
          .weights = mutable_elements<float>(*weights),
          .gradient = elements<float>(*gradient),
          .first = moment(*first, *first_scales, DynamicCode::with_sign()),
          .second = moment(*second, *second_scales, DynamicCode::without_sign()),
          .copy = to,
          .count = count,
      };
      parallel_run(kernel, blocks, GRAIN / DYNAMIC_BLOCK / 4);
    };
    if (copy == nullptr) return with(static_cast<float*>(nullptr));
    by_kind(*copy, [&]<class Element>(const Element*) { with(mutable_elements<Element>(*copy)); });
  });
}
