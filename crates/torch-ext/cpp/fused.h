// The elementwise parts of a decoder layer, one pass each, with gradients. Operands are of one kind (fp32 or bf16),
// dense, on the CPU. `out` receives a tensor with a graph where an operand requires a gradient; its gradients have no
// graph. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// x / √(mean(x²) + eps), rounded, · weight: over the last dimension, which is a multiple of 16.
int32_t torch_ext_rms_norm(const at::Tensor* x, const at::Tensor* weight, double eps, at::Tensor** out,
                           TorchExtMessage message) noexcept;

// silu(gate), rounded, · up: of one shape, with a multiple of 16 elements.
int32_t torch_ext_swiglu(const at::Tensor* gate, const at::Tensor* up, at::Tensor** out,
                         TorchExtMessage message) noexcept;

// x · cos, rounded, + (x with its halves swapped) · sin: x [N, heads, d], cos and sin [N, 1, d], which get no gradient.
int32_t torch_ext_rotate(const at::Tensor* x, const at::Tensor* cos, const at::Tensor* sin, at::Tensor** out,
                         TorchExtMessage message) noexcept;
}
