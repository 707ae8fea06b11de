//! What a decoder layer does between its matrix products, each in one pass over memory forwards and one backwards.
//!
//! libtorch composes these of operations that each read and write everything, and whose graph keeps what lies between them.
//! Here a graph keeps the operands. Numbers are computed in fp32; where libtorch's composition rounds to the operands' kind on
//! the way forward, so do these. Gradients are rounded once, at their end, and cannot be differentiated again.

use tch::{Kind, Tensor};
use torch_sys::C_tensor;

use crate::check::{LANES, check_dense, check_shape, check_stored};
use crate::ffi::Message;
use crate::{TorchExtError, ffi};

/// Root-mean-square norm over the last dimension: `x / √(mean(x²) + eps)`, rounded to the kind of `x`, times `weight`
/// ([Zhang and Sennrich 2019](https://arxiv.org/abs/1910.07467), rounded as in transformers' Llama).
///
/// The gradient of `weight` is summed in fp32, in an order that does not depend on the number of threads.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::full([1, 16], 3.0, (Kind::Float, Device::Cpu));
/// let weight = Tensor::full([16], 2.0, (Kind::Float, Device::Cpu));
/// assert_eq!(torch_ext::rms_norm(&x, &weight, 0.0)?.double_value(&[0, 7]), 2.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `x` `[..., d]`, `weight` `[d]`, d a multiple of 16; both Float or both `BFloat16`, contiguous, on the CPU. Returns the shape
/// and kind of `x`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, TorchExtError> {
    check_stored("x", x)?;
    let kind = x.kind();
    check_dense("x", x, kind)?;
    check_dense("the weight", weight, kind)?;
    let shape = x.size();
    let width = shape.last().copied().unwrap_or(0);
    if width == 0 || width % LANES != 0 {
        return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![-1, LANES] });
    }
    check_shape("the weight", weight, &[width])?;
    made("normalise", |made, message| {
        // SAFETY: `x` and `weight` are live, `made` points at a handle, and kinds, shapes and layout are the ones that the
        // shim takes for granted. A graph holds counted handles of its own.
        unsafe { ffi::torch_ext_rms_norm(x.as_ptr(), weight.as_ptr(), eps, made, message) }
    })
}

/// The gate of a `SwiGLU` layer: `silu(gate) · up`, with `silu(x) = x / (1 + e⁻ˣ)` rounded to the kind of `gate`
/// ([Shazeer 2020](https://arxiv.org/abs/2002.05202)).
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let (gate, up) = (Tensor::zeros([1, 16], (Kind::Float, Device::Cpu)), Tensor::ones([1, 16], (Kind::Float, Device::Cpu)));
/// assert_eq!(torch_ext::swiglu(&gate, &up)?.double_value(&[0, 0]), 0.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `gate` and `up` of one shape, with a multiple of 16 elements; both Float or both `BFloat16`, contiguous, on the CPU. Returns
/// their shape and kind.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor, TorchExtError> {
    check_stored("the gate", gate)?;
    let kind = gate.kind();
    check_dense("the gate", gate, kind)?;
    check_dense("what is gated", up, kind)?;
    let shape = gate.size();
    check_shape("what is gated", up, &shape)?;
    if shape.iter().product::<i64>() % LANES != 0 {
        return Err(TorchExtError::Shape { tensor: "the gate", found: shape, expected: vec![-1, LANES] });
    }
    made("gate", |made, message| {
        // SAFETY: as in `rms_norm`.
        unsafe { ffi::torch_ext_swiglu(gate.as_ptr(), up.as_ptr(), made, message) }
    })
}

/// Rotary position embedding of heads: `x · cos`, rounded to the kind of `x`, plus the halves of `x` exchanged, times `sin`
/// ([Su et al. 2021](https://arxiv.org/abs/2104.09864), in the layout of halves of transformers, whose sign lies in the first
/// half of `sin`).
///
/// ```
/// use tch::Tensor;
///
/// // A quarter of a turn: (1, 0) becomes (0, 1).
/// let x = Tensor::from_slice(&[1f32, 0.0]).view([1, 1, 2]);
/// let (cos, sin) = (Tensor::from_slice(&[0f32, 0.0]), Tensor::from_slice(&[-1f32, 1.0]));
/// let turned = torch_ext::rotate(&x, &cos.view([1, 1, 2]), &sin.view([1, 1, 2]))?;
/// assert_eq!(Vec::<f32>::try_from(turned.view(-1))?, [0.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `x` `[N, heads, d]`, d even; `cos` and `sin` `[N, 1, d]`, which get no gradient; all Float or all `BFloat16`, contiguous, on
/// the CPU. Returns the shape and kind of `x`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TorchExtError> {
    check_stored("x", x)?;
    let kind: Kind = x.kind();
    check_dense("x", x, kind)?;
    let shape = x.size();
    let &[rows, _, dim] = shape.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![-1, -1, -1] });
    };
    if dim % 2 != 0 {
        return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![-1, -1, 2] });
    }
    for (tensor, given) in [("the cosines", cos), ("the sines", sin)] {
        check_dense(tensor, given, kind)?;
        check_shape(tensor, given, &[rows, 1, dim])?;
    }
    made("turn", |made, message| {
        // SAFETY: as in `rms_norm`.
        unsafe { ffi::torch_ext_rotate(x.as_ptr(), cos.as_ptr(), sin.as_ptr(), made, message) }
    })
}

/// The tensor that a call makes.
pub(crate) fn made(
    what: &'static str,
    function: impl FnOnce(*mut *mut C_tensor, Message) -> i32,
) -> Result<Tensor, TorchExtError> {
    let mut handle = std::ptr::null_mut();
    ffi::call(what, |message| function(&raw mut handle, message))?;
    // SAFETY: the call succeeded, so that `handle` is a tensor that the shim made with `new` for whoever called, as tch's are.
    Ok(unsafe { Tensor::from_ptr(handle) })
}
