//! Fused optimiser updates.

use tch::{Kind, Tensor};

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

/// One update of AdamW (Loshchilov & Hutter 2019, Algorithm 2) in a single pass over memory: libtorch's
/// `_fused_adamw_`, update for update that of `torch.optim.AdamW(fused=True)`.
///
/// With a `gradient_scale` other than 1 the scaled gradient is written back.
///
/// ```
/// use tch::Tensor;
/// use torch_ext::{AdamWUpdate, fused_adamw};
///
/// let mut weights = Tensor::from_slice(&[1f32, -2.0]);
/// let mut gradient = Tensor::from_slice(&[0.5f32, -4.0]);
/// let (mut exp_avg, mut exp_avg_sq) = (weights.zeros_like(), weights.zeros_like());
/// let update = AdamWUpdate {
///     learning_rate: 0.1, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, step: 1, gradient_scale: 1.0,
/// };
/// fused_adamw(&mut weights, &mut gradient, &mut exp_avg, &mut exp_avg_sq, &update)?;
/// // The first update moves every weight by the learning rate, against its gradient's sign.
/// assert!((weights.double_value(&[0]) - 0.9).abs() < 1e-6);
/// assert!((weights.double_value(&[1]) + 1.9).abs() < 1e-6);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// All four alike, Float, contiguous, on one device, no two sharing memory.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`], [`TorchExtError::Device`], [`TorchExtError::NotContiguous`];
/// nothing is written then.
pub fn fused_adamw(
    weights: &mut Tensor,
    gradient: &mut Tensor,
    exp_avg: &mut Tensor,
    exp_avg_sq: &mut Tensor,
    update: &AdamWUpdate,
) -> Result<(), TorchExtError> {
    let (expected, device) = (weights.size(), weights.device());
    let named: [(&'static str, &Tensor); 4] = [
        ("the weights", weights),
        ("the gradient", gradient),
        ("the first moment", exp_avg),
        ("the second moment", exp_avg_sq),
    ];
    for (tensor, given) in named {
        let (found, shape, on) = (given.kind(), given.size(), given.device());
        if found != Kind::Float {
            return Err(TorchExtError::Kind { tensor, found, expected: Kind::Float });
        }
        if shape != expected {
            return Err(TorchExtError::Shape { tensor, found: shape, expected });
        }
        if on != device {
            return Err(TorchExtError::Device { tensor, found: on, expected: device });
        }
        if !given.is_contiguous() {
            return Err(TorchExtError::NotContiguous { tensor });
        }
    }
    let update = ffi::AdamW {
        learning_rate: update.learning_rate,
        beta1: update.betas.0,
        beta2: update.betas.1,
        weight_decay: update.weight_decay,
        eps: update.eps,
        step: update.step as f64,
        gradient_divisor: 1.0 / update.gradient_scale,
    };
    ffi::call("update weights", |message| {
        // SAFETY: all five pointers come from live references and are used during the call only; the shim takes each
        // tensor as a handle of its own and throws nothing.
        unsafe {
            ffi::torch_ext_fused_adamw(
                weights.as_mut_ptr(),
                gradient.as_mut_ptr(),
                exp_avg.as_mut_ptr(),
                exp_avg_sq.as_mut_ptr(),
                &raw const update,
                message,
            )
        }
    })
}
