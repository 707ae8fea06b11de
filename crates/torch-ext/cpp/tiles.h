// Products of bf16 matrices by a processor that multiplies tiles (AMX).
#pragma once

#include <cstdint>

namespace torch_ext {

// Whether this processor has tiles of bf16, and the system lets this process use them.
bool has_tiles() noexcept;

// Whether `multiply_tiles` takes weights of this shape.
inline bool fits_tiles(int64_t outs, int64_t in) noexcept { return outs % 32 == 0 && in % 32 == 0 && in > 0; }

// x [rows, in] · weight [outs, in]ᵀ, summed in fp32 and rounded once. The weight is read as it lies, and once.
void multiply_tiles(uint16_t* out, const uint16_t* x, const uint16_t* weight, int64_t rows, int64_t outs, int64_t in);

}  // namespace torch_ext
