// What a decoder layer does between its products, in one pass each, with gradients. Callers check kinds, shapes, layout and
// device; all tensors of a call are of one kind (fp32 or bf16), contiguous, on the CPU. `made` receives a tensor with a graph
// where an operand wants a gradient; its gradients have none of their own. See shim.h for the rules of the surface.
#pragma once

#include "shim.h"

extern "C" {

// x / √(mean(x²) + eps), rounded, · weight: over the last dimension, which is a multiple of 16.
int32_t torch_ext_rms_norm(const at::Tensor* x, const at::Tensor* weight, double eps, at::Tensor** made,
                           TorchExtMessage message) noexcept;

// silu(gate), rounded, · up: of one shape, of a multiple of 16 elements.
int32_t torch_ext_swiglu(const at::Tensor* gate, const at::Tensor* up, at::Tensor** made, TorchExtMessage message) noexcept;

// x · cos, rounded, + (the halves of x exchanged) · sin: x [N, heads, d], cos and sin [N, 1, d], which want no gradient.
int32_t torch_ext_rotate(const at::Tensor* x, const at::Tensor* cos, const at::Tensor* sin, at::Tensor** made,
                         TorchExtMessage message) noexcept;
}
