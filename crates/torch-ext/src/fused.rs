//! The elementwise parts of a decoder layer, each in one pass over memory forward and one backward.
//!
//! libtorch composes them of operations that each read and write every element, and whose graph keeps the intermediate
//! results. Here a graph keeps the operands only. Arithmetic is in fp32; forward passes round to the operands' kind where
//! libtorch's composition does. Gradients are rounded once, at their end, and have no graph.

use tch::Tensor;
use torch_sys::C_tensor;

use crate::check::{LANES, check_alike, check_shape, has_kernel, is_whole_vectors};
use crate::ffi::Message;
use crate::{TorchExtError, ffi};

/// Root-mean-square norm over the last dimension: `x / √(mean(x²) + eps)`, rounded to the kind of `x`, times `weight`
/// ([Zhang and Sennrich 2019](https://arxiv.org/abs/1910.07467), rounded as in transformers' Llama).
///
/// Sums the gradient of `weight` in fp32, in an order that does not depend on the number of threads.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::full([1, 16], 3.0, (Kind::Float, Device::Cpu));
/// let weight = Tensor::full([16], 2.0, (Kind::Float, Device::Cpu));
/// let normed = torch_ext::rms_norm(&x, &weight, 0.0)?.expect("a supported width");
/// assert_eq!(normed.double_value(&[0, 7]), 2.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `x` `[..., d]`, `weight` `[d]`. Returns the shape and kind of `x`; `None` unless d is a multiple of 16 and both are Float or
/// `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`] and [`TorchExtError::Shape`] where the operands do not fit each other;
/// [`TorchExtError::Torch`] where libtorch fails, such as for lack of memory.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Option<Tensor>, TorchExtError> {
    let operands = [("x", x), ("the weight", weight)];
    check_alike(&operands)?;
    let width = x.size().last().copied().unwrap_or(0);
    check_shape("the weight", weight, &[width])?;
    if !is_whole_vectors(width) || !has_kernel(&operands) {
        return Ok(None);
    }
    output("normalize", |out, message| {
        // SAFETY: the tensors are live, `out` points to a handle, and the shim checks kinds, shapes and layouts before it reads
        // memory. A graph holds counted handles of its own.
        unsafe { ffi::torch_ext_rms_norm(x.as_ptr(), weight.as_ptr(), eps, out, message) }
    })
    .map(Some)
}

/// The gate of a `SwiGLU` layer: `silu(gate) · up`, with `silu(x) = x / (1 + e⁻ˣ)` rounded to the kind of `gate`
/// ([Shazeer 2020](https://arxiv.org/abs/2002.05202)).
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let (gate, up) = (Tensor::zeros([1, 16], (Kind::Float, Device::Cpu)), Tensor::ones([1, 16], (Kind::Float, Device::Cpu)));
/// let gated = torch_ext::swiglu(&gate, &up)?.expect("a supported size");
/// assert_eq!(gated.double_value(&[0, 0]), 0.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `gate` and `up` of one shape. Returns their shape and kind; `None` unless their number of elements is a multiple of 16 and
/// both are Float or `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// As [`rms_norm`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Option<Tensor>, TorchExtError> {
    let operands = [("the gate", gate), ("the gated tensor", up)];
    check_alike(&operands)?;
    check_shape("the gated tensor", up, &gate.size())?;
    if gate.numel() as i64 % LANES != 0 || !has_kernel(&operands) {
        return Ok(None);
    }
    output("gate", |out, message| {
        // SAFETY: as in `rms_norm`.
        unsafe { ffi::torch_ext_swiglu(gate.as_ptr(), up.as_ptr(), out, message) }
    })
    .map(Some)
}

/// Rotary position embedding of heads: `x · cos`, rounded to the kind of `x`, plus `x` with its halves swapped, times `sin`
/// ([Su et al. 2021](https://arxiv.org/abs/2104.09864), in the half-split layout of transformers, with the sign in the first
/// half of `sin`).
///
/// ```
/// use tch::Tensor;
///
/// // A quarter turn: (1, 0) becomes (0, 1).
/// let x = Tensor::from_slice(&[1f32, 0.0]).view([1, 1, 2]);
/// let (cos, sin) = (Tensor::from_slice(&[0f32, 0.0]), Tensor::from_slice(&[-1f32, 1.0]));
/// let rotated = torch_ext::rotate(&x, &cos.view([1, 1, 2]), &sin.view([1, 1, 2]))?.expect("supported operands");
/// assert_eq!(Vec::<f32>::try_from(rotated.view(-1))?, [0.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `x` `[N, heads, d]`, d even; `cos` and `sin` `[N, 1, d]`, which get no gradient. Returns the shape and kind of `x`; `None`
/// unless all are Float or `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// As [`rms_norm`].
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Option<Tensor>, TorchExtError> {
    let operands = [("x", x), ("the cosines", cos), ("the sines", sin)];
    check_alike(&operands)?;
    let shape = x.size();
    let (rows, dim) = match *shape.as_slice() {
        [rows, _, dim] if dim % 2 == 0 => (rows, dim),
        _ => return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![-1, -1, 2] }),
    };
    check_shape("the cosines", cos, &[rows, 1, dim])?;
    check_shape("the sines", sin, &[rows, 1, dim])?;
    if !has_kernel(&operands) {
        return Ok(None);
    }
    output("rotate", |out, message| {
        // SAFETY: as in `rms_norm`.
        unsafe { ffi::torch_ext_rotate(x.as_ptr(), cos.as_ptr(), sin.as_ptr(), out, message) }
    })
    .map(Some)
}

/// The tensor that a call of the shim returns.
pub(crate) fn output(
    what: &'static str,
    function: impl FnOnce(*mut *mut C_tensor, Message) -> i32,
) -> Result<Tensor, TorchExtError> {
    let mut handle = std::ptr::null_mut();
    ffi::call(what, |message| function(&raw mut handle, message))?;
    // SAFETY: the call succeeded, so `handle` is a tensor that the shim created with `new` for the caller, as tch does.
    Ok(unsafe { Tensor::from_ptr(handle) })
}
