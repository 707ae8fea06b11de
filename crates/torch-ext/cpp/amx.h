// Products of bf16 matrices by tiles (AMX).
#pragma once

#include <cstdint>

namespace torch_ext {

// Whether this processor has tiles of bf16, and the system lets this process use them.
bool has_amx() noexcept;

// Whether `multiply_amx` takes weights of this shape.
inline bool fits_amx(int64_t outs, int64_t in) noexcept { return outs % 32 == 0 && in % 32 == 0 && in > 0; }

// x [rows, in] · weight [outs, in]ᵀ, summed in fp32 and rounded once. Reads the weight in place, once.
void multiply_amx(uint16_t* out, const uint16_t* x, const uint16_t* weight, int64_t rows, int64_t outs, int64_t in);

}  // namespace torch_ext
