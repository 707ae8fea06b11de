//! What training does with all weights at once.

use tch::{Device, Kind, Tensor};

use crate::check::{check_dense, check_kind, check_shape, check_stored};
use crate::{TorchExtError, ffi};

/// What an update of AdamW depends on beside its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWUpdate {
    /// How far weights move.
    pub learning_rate: f64,
    /// Decay rates β₁, β₂ of the moments, in [0, 1).
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Updates made, this one included: 1 for the first.
    pub step: u64,
    /// The gradient is multiplied by it first, as gradient clipping does.
    pub gradient_scale: f64,
}

/// One update of AdamW (Loshchilov & Hutter 2019, Algorithm 2) in a single pass over memory, which also writes the new weights
/// to `copy`, in its kind: fp32 masters and the bfloat16 weights that compute with them.
///
/// On a CPU by a kernel of ours, which leaves the gradient as it is; elsewhere by libtorch's `_fused_adamw_`, which writes back
/// what a `gradient_scale` other than 1 makes of it. Both follow `torch.optim.AdamW(fused=True)` to fp32's rounding.
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
/// // The first update moves every weight by the learning rate, against its gradient's sign.
/// assert!((weights.double_value(&[0]) - 0.9).abs() < 1e-6);
/// assert!((weights.double_value(&[1]) + 1.9).abs() < 1e-6);
/// assert_eq!(copy, weights.to_kind(Kind::BFloat16));
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// All alike and contiguous, on one device, no two sharing memory; Float, but `copy`, which may be `BFloat16`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`], [`TorchExtError::Device`], [`TorchExtError::NotContiguous`];
/// nothing is written then.
pub fn fused_adamw(
    weights: &mut Tensor,
    gradient: &mut Tensor,
    exp_avg: &mut Tensor,
    exp_avg_sq: &mut Tensor,
    copy: Option<&mut Tensor>,
    update: &AdamWUpdate,
) -> Result<(), TorchExtError> {
    check_update([weights, gradient, exp_avg, exp_avg_sq], copy.as_deref())?;
    let update = ffi::AdamW {
        learning_rate: update.learning_rate,
        beta1: update.betas.0,
        beta2: update.betas.1,
        weight_decay: update.weight_decay,
        eps: update.eps,
        step: update.step as f64,
        gradient_divisor: 1.0 / update.gradient_scale,
    };
    let mut tensors = [weights, gradient, exp_avg, exp_avg_sq];
    if tensors[0].device() == Device::Cpu {
        return by_our_kernel(&mut tensors, copy, &update);
    }
    by_libtorch(&mut tensors, &update)?;
    if let Some(copy) = copy {
        let _guard = tch::no_grad_guard();
        copy.copy_(tensors[0]);
    }
    Ok(())
}

/// Updates tensors that are checked, in the order in which `fused_adamw` takes them.
fn by_our_kernel(
    [weights, gradient, exp_avg, exp_avg_sq]: &mut [&mut Tensor; 4],
    copy: Option<&mut Tensor>,
    update: &ffi::AdamW,
) -> Result<(), TorchExtError> {
    let copy = copy.map_or(std::ptr::null_mut(), Tensor::as_mut_ptr);
    ffi::call("update weights", |message| {
        // SAFETY: all pointers but a null `copy` come from live references and are used during the call only; kinds, shapes
        // and layout are the ones that the shim takes for granted, and it throws nothing.
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

/// As `by_our_kernel`, on any device.
fn by_libtorch(
    [weights, gradient, exp_avg, exp_avg_sq]: &mut [&mut Tensor; 4],
    update: &ffi::AdamW,
) -> Result<(), TorchExtError> {
    ffi::call("update weights", |message| {
        // SAFETY: all five pointers come from live references and are used during the call only; the shim takes each
        // tensor as a handle of its own and throws nothing.
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
    let (expected, device) = (fp32[0].size(), fp32[0].device());
    let names = ["the weights", "the gradient", "the first moment", "the second moment"];
    for (tensor, given) in names.into_iter().zip(fp32) {
        check_kind(tensor, given, Kind::Float)?;
    }
    if let Some(copy) = copy {
        check_stored("the copy", copy)?;
    }
    for (tensor, given) in names.into_iter().zip(fp32).chain(copy.map(|copy| ("the copy", copy))) {
        check_shape(tensor, given, &expected)?;
        let found = given.device();
        if found != device {
            return Err(TorchExtError::Device { tensor, found, expected: device });
        }
        if !given.is_contiguous() {
            return Err(TorchExtError::NotContiguous { tensor });
        }
    }
    Ok(())
}

/// Adds `addend` to `sum` in one pass over memory; libtorch first makes an fp32 tensor of one in bfloat16.
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
/// Alike, contiguous, on the CPU, not sharing memory; `sum` Float, `addend` Float or `BFloat16`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`], [`TorchExtError::Device`], [`TorchExtError::NotContiguous`];
/// nothing is written then.
pub fn accumulate(sum: &mut Tensor, addend: &Tensor) -> Result<(), TorchExtError> {
    check_dense("the sum", sum, Kind::Float)?;
    check_stored("the addend", addend)?;
    check_dense("the addend", addend, addend.kind())?;
    check_shape("the addend", addend, &sum.size())?;
    ffi::call("add", |message| {
        // SAFETY: both pointers come from live references and are used during the call only; kinds, shapes and layout are the
        // ones that the shim takes for granted.
        unsafe { ffi::torch_ext_accumulate(sum.as_mut_ptr(), addend.as_ptr(), message) }
    })
}

/// The sum of the squares of all elements, in one pass over memory: in fp32 within a few thousand of them, in f64 beyond, in an
/// order that does not depend on the number of threads.
///
/// ```
/// use tch::Tensor;
///
/// assert_eq!(torch_ext::squared_norm(&Tensor::from_slice(&[3f32, 4.0]))?, 25.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// Any; Float, contiguous, on the CPU.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::NotContiguous`].
pub fn squared_norm(x: &Tensor) -> Result<f64, TorchExtError> {
    check_dense("x", x, Kind::Float)?;
    let mut sum = 0.0;
    ffi::call("measure", |message| {
        // SAFETY: `x` is live and of the kind and layout that the shim takes for granted; `sum` is written during the call only.
        unsafe { ffi::torch_ext_squared_norm(x.as_ptr(), &raw mut sum, message) }
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of numbers around 1; fp32 keeps seven digits, and the two round in different places.
    const BETWEEN_KERNELS: f64 = 2e-6;

    #[test]
    fn libtorchs_update_is_that_of_our_kernel() {
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
        let ours = after(&|tensors, update| by_our_kernel(tensors, None, update).unwrap());
        let libtorchs = after(&|tensors, update| by_libtorch(tensors, update).unwrap());
        let difference = (ours - libtorchs).abs().max().double_value(&[]);
        assert!(difference < BETWEEN_KERNELS, "{difference}");
    }
}
