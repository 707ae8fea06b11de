//! Passes over all weights of a model.

use tch::{Device, Kind, Tensor};

use crate::check::{check_alike, check_contiguous, check_kind, check_shape, is_dense};
use crate::{TorchExtError, ffi};

/// The hyperparameters of one AdamW update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWUpdate {
    /// Step size.
    pub learning_rate: f64,
    /// Decay rates β₁, β₂ of the moments, in [0, 1).
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// Factor of the gradient, as in gradient clipping.
    pub gradient_scale: f64,
}

/// Computes one AdamW update (Loshchilov & Hutter 2019, Algorithm 2) in a single pass over memory. Also writes the new weights to
/// `copy`, in its kind: fp32 master weights and the bfloat16 weights for computation.
///
/// A kernel of this crate runs on a CPU, and does not modify the gradient. Elsewhere libtorch's `_fused_adamw_` runs, which scales
/// the gradient in place. Both match `torch.optim.AdamW(fused=True)` to fp32 rounding.
///
/// ```
/// use tch::{Kind, Tensor};
/// use torch_ext::{AdamWUpdate, fused_adamw};
///
/// let mut weights = Tensor::from_slice(&[1f32, -2.0]);
/// let mut gradient = Tensor::from_slice(&[0.5f32, -4.0]);
/// let (mut exp_avg, mut exp_avg_sq) = (weights.zeros_like(), weights.zeros_like());
/// let mut copy = weights.to_kind(Kind::BFloat16);
/// let update = AdamWUpdate {
///     learning_rate: 0.1, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, step: 1, gradient_scale: 1.0,
/// };
/// fused_adamw(&mut weights, &mut gradient, &mut exp_avg, &mut exp_avg_sq, Some(&mut copy), &update)?;
/// // The first update changes every weight by the learning rate, against its gradient's sign.
/// assert!((weights.double_value(&[0]) - 0.9).abs() < 1e-6);
/// assert!((weights.double_value(&[1]) + 1.9).abs() < 1e-6);
/// assert_eq!(copy, weights.to_kind(Kind::BFloat16));
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// All of one shape, contiguous, on one device, disjoint in memory; Float, except that `copy` may be `BFloat16`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`], [`TorchExtError::Device`], [`TorchExtError::NotContiguous`];
/// [`TorchExtError::Torch`] where two share memory. Nothing is written then.
pub fn fused_adamw(
    weights: &mut Tensor,
    gradient: &mut Tensor,
    exp_avg: &mut Tensor,
    exp_avg_sq: &mut Tensor,
    copy: Option<&mut Tensor>,
    update: &AdamWUpdate,
) -> Result<(), TorchExtError> {
    check_update([weights, gradient, exp_avg, exp_avg_sq], copy.as_deref())?;
    let update = shim_update(update);
    let mut tensors = [weights, gradient, exp_avg, exp_avg_sq];
    if tensors[0].device() == Device::Cpu {
        return update_by_kernel(&mut tensors, copy, &update);
    }
    update_by_libtorch(&mut tensors, &update)?;
    if let Some(copy) = copy {
        let _guard = tch::no_grad_guard();
        copy.copy_(tensors[0]);
    }
    Ok(())
}

pub(crate) fn shim_update(update: &AdamWUpdate) -> ffi::AdamW {
    ffi::AdamW {
        learning_rate: update.learning_rate,
        beta1: update.betas.0,
        beta2: update.betas.1,
        weight_decay: update.weight_decay,
        eps: update.eps,
        step: update.step as f64,
        gradient_divisor: 1.0 / update.gradient_scale,
    }
}

/// Updates checked tensors, in the order of the arguments of `fused_adamw`.
fn update_by_kernel(
    [weights, gradient, exp_avg, exp_avg_sq]: &mut [&mut Tensor; 4],
    copy: Option<&mut Tensor>,
    update: &ffi::AdamW,
) -> Result<(), TorchExtError> {
    let copy = copy.map_or(std::ptr::null_mut(), Tensor::as_mut_ptr);
    ffi::call("update weights", |message| {
        // SAFETY: all pointers but a null `copy` come from live references and are used during the call only. The shim checks
        // kinds, shapes, layouts and overlaps before it reads memory.
        unsafe {
            ffi::torch_ext_adamw(
                weights.as_mut_ptr(),
                gradient.as_ptr(),
                exp_avg.as_mut_ptr(),
                exp_avg_sq.as_mut_ptr(),
                copy,
                update,
                message,
            )
        }
    })
}

/// As `update_by_kernel`, on any device.
fn update_by_libtorch(
    [weights, gradient, exp_avg, exp_avg_sq]: &mut [&mut Tensor; 4],
    update: &ffi::AdamW,
) -> Result<(), TorchExtError> {
    ffi::call("update weights", |message| {
        // SAFETY: all pointers come from live references and are used during the call only; libtorch checks the tensors.
        unsafe {
            ffi::torch_ext_fused_adamw(
                weights.as_mut_ptr(),
                gradient.as_mut_ptr(),
                exp_avg.as_mut_ptr(),
                exp_avg_sq.as_mut_ptr(),
                update,
                message,
            )
        }
    })
}

fn check_update(fp32: [&Tensor; 4], copy: Option<&Tensor>) -> Result<(), TorchExtError> {
    let names = ["the weights", "the gradient", "the first moment", "the second moment"];
    for (tensor, given) in names.into_iter().zip(fp32) {
        check_kind(tensor, given, Kind::Float)?;
    }
    if let Some(copy) = copy
        && check_kind("the copy", copy, Kind::BFloat16).is_err()
    {
        check_kind("the copy", copy, Kind::Float)?;
    }
    let (shape, expected) = (fp32[0].size(), fp32[0].device());
    for (tensor, given) in names.into_iter().zip(fp32).chain(copy.map(|copy| ("the copy", copy))) {
        check_shape(tensor, given, &shape)?;
        let found = given.device();
        if found != expected {
            return Err(TorchExtError::Device { tensor, found, expected });
        }
        check_contiguous(tensor, given)?;
    }
    Ok(())
}

/// Adds `addend` to `sum` in one pass over memory: libtorch would first convert a bfloat16 addend to fp32.
///
/// libtorch adds where a tensor is not contiguous or not on the CPU, or the addend is neither Float nor `BFloat16`.
///
/// ```
/// use tch::{Kind, Tensor};
///
/// let mut sum = Tensor::from_slice(&[1f32, 2.0]);
/// torch_ext::accumulate(&mut sum, &Tensor::from_slice(&[0.5f32, 0.25]).to_kind(Kind::BFloat16))?;
/// assert_eq!(sum, Tensor::from_slice(&[1.5f32, 2.25]));
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// Of one shape, on one device, disjoint in memory; `sum` Float.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`], [`TorchExtError::Device`]; nothing is written then.
/// [`TorchExtError::Torch`] where libtorch fails.
pub fn accumulate(sum: &mut Tensor, addend: &Tensor) -> Result<(), TorchExtError> {
    check_kind("the sum", sum, Kind::Float)?;
    check_alike(&[("the addend", addend)])?;
    check_shape("the addend", addend, &sum.size())?;
    let (found, expected) = (addend.device(), sum.device());
    if found != expected {
        return Err(TorchExtError::Device { tensor: "the addend", found, expected });
    }
    ffi::call("add", |message| {
        // SAFETY: both pointers come from live references and are used during the call only. The shim checks kinds, shapes and
        // layouts before it reads memory.
        unsafe { ffi::torch_ext_accumulate(sum.as_mut_ptr(), addend.as_ptr(), message) }
    })
}

/// Returns the sum of the squares of all elements, in one pass over memory: in fp32 within blocks of a few thousand, in f64 over
/// blocks, in an order that does not depend on the number of threads.
///
/// ```
/// use tch::Tensor;
///
/// assert_eq!(torch_ext::squared_norm(&Tensor::from_slice(&[3f32, 4.0]))?, Some(25.0));
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// Any, Float. Returns `None` unless `x` is contiguous, on the CPU.
///
/// # Errors
/// [`TorchExtError::Kind`]; [`TorchExtError::Torch`] where libtorch fails.
pub fn squared_norm(x: &Tensor) -> Result<Option<f64>, TorchExtError> {
    check_kind("x", x, Kind::Float)?;
    if !is_dense(x) {
        return Ok(None);
    }
    let mut sum = 0.0;
    ffi::call("measure", |message| {
        // SAFETY: `x` is live, and the shim checks kind and layout before it reads memory; `sum` is written during the call only.
        unsafe { ffi::torch_ext_squared_norm(x.as_ptr(), &raw mut sum, message) }
    })?;
    Ok(Some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Absolute, for numbers around 1: fp32 has seven digits, and the two kernels round in different places.
    const TOLERANCE: f64 = 2e-6;

    #[test]
    fn libtorch_and_the_kernel_compute_the_same_update() {
        let options = (Kind::Double, Device::Cpu);
        let numbers =
            |seed: f64| ((Tensor::arange(1_003, options) + seed) * 12.9898).sin().to_kind(Kind::Float);
        let after = |by: &dyn Fn(&mut [&mut Tensor; 4], &ffi::AdamW)| {
            let mut given = [numbers(0.1), numbers(0.2), numbers(0.3) * 0.1, numbers(0.4).square()];
            let update = ffi::AdamW {
                learning_rate: 0.1,
                beta1: 0.9,
                beta2: 0.99,
                weight_decay: 0.1,
                eps: 1e-8,
                step: 3.0,
                gradient_divisor: 2.0,
            };
            by(&mut given.each_mut(), &update);
            let [weights, _, first, second] = given;
            Tensor::cat(&[weights, first, second], 0)
        };
        let ours = after(&|tensors, update| update_by_kernel(tensors, None, update).unwrap());
        let libtorchs = after(&|tensors, update| update_by_libtorch(tensors, update).unwrap());
        let difference = (ours - libtorchs).abs().max().double_value(&[]);
        assert!(difference < TOLERANCE, "{difference}");
    }
}
