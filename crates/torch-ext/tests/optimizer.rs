//! The fused update against PyTorch's figures, and its preconditions.

use tch::{Kind, Tensor};
use torch_ext::{AdamWUpdate, TorchExtError, fused_adamw};

const UPDATE: AdamWUpdate = AdamWUpdate {
    learning_rate: 0.1,
    betas: (0.9, 0.99),
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 1.0,
};

/// Three updates by `torch.optim.AdamW` (2.13) of w = [1, −2, 3] with `UPDATE`, gradients [0.5, −1, 2], [−0.25, 0.5, 1],
/// [1, 1, −1].
const AFTER_THREE: [f64; 3] = [0.780_244_529_247_283_9, -1.843_454_241_752_624_5, 2.680_715_560_913_086];

/// Absolute; fp32 keeps seven digits.
const TOLERANCE: f64 = 1e-6;

#[test]
fn three_updates_are_pytorchs() {
    let mut weights = Tensor::from_slice(&[1f32, -2.0, 3.0]);
    let (mut first, mut second) = (weights.zeros_like(), weights.zeros_like());
    for (index, gradient) in [[0.5f32, -1.0, 2.0], [-0.25, 0.5, 1.0], [1.0, 1.0, -1.0]].iter().enumerate() {
        // Twice the gradient, scaled by a half: the same update.
        let mut gradient = Tensor::from_slice(gradient) * 2.0;
        let update = AdamWUpdate { step: index as u64 + 1, gradient_scale: 0.5, ..UPDATE };
        fused_adamw(&mut weights, &mut gradient, &mut first, &mut second, &update).unwrap();
    }
    for (got, expected) in Vec::<f32>::try_from(&weights).unwrap().iter().zip(AFTER_THREE) {
        assert!((f64::from(*got) - expected).abs() < TOLERANCE, "{got} for {expected}");
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let fresh = || Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]);
    let run = |mut gradient: Tensor, mut second: Tensor| {
        let (mut weights, mut first) = (fresh(), fresh());
        let error = fused_adamw(&mut weights, &mut gradient, &mut first, &mut second, &UPDATE)
            .expect_err("a wrong argument");
        assert_eq!(weights, fresh());
        error
    };
    let error = run(fresh().to_kind(Kind::Double), fresh());
    assert!(matches!(error, TorchExtError::Kind { tensor: "the gradient", .. }), "{error}");
    let error = run(fresh(), fresh().narrow(0, 0, 3));
    assert!(matches!(error, TorchExtError::Shape { tensor: "the second moment", .. }), "{error}");
    let strided = Tensor::from_slice(&[0f32; 8]).view([4, 2]).select(1, 0);
    let error = run(strided, fresh());
    assert!(matches!(error, TorchExtError::NotContiguous { tensor: "the gradient" }), "{error}");
}
