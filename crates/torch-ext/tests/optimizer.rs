//! The passes over all weights against PyTorch's figures and arithmetic in doubles, their preconditions, and the memory of weights.

use tch::{Device, Kind, Tensor};
use torch_ext::{AdamWUpdate, TorchExtError, accumulate, fused_adamw, squared_norm, untouched_zeros};

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
        fused_adamw(&mut weights, &mut gradient, &mut first, &mut second, None, &update).unwrap();
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
        let error = fused_adamw(&mut weights, &mut gradient, &mut first, &mut second, None, &UPDATE)
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

/// Lengths around what the kernels take at once, and beyond what one thread is given.
const LENGTHS: [i64; 6] = [0, 1, 15, 16, 4_099, 200_003];

/// Relative to what the update of doubles comes to.
const UPDATE_ERROR: f64 = 3e-6;

/// Numbers in (-1, 1) that look like drawn ones, others for each seed.
fn numbers(length: i64, seed: f64) -> Tensor {
    let at = Tensor::arange(length, (Kind::Double, Device::Cpu)) + seed;
    ((at * 12.9898).sin() * 43_758.545_3).frac().to_kind(Kind::Float)
}

#[test]
fn an_update_is_that_of_doubles_at_any_length_and_copied_as_it_is_rounded() {
    for length in LENGTHS {
        for kind in [Kind::Float, Kind::BFloat16] {
            let (mut weights, mut gradient) = (numbers(length, 0.1), numbers(length, 0.2));
            let (mut first, mut second) = (numbers(length, 0.3) * 0.1, numbers(length, 0.4).square());
            let [w, g, m, v] = [&weights, &gradient, &first, &second].map(|t| t.to_kind(Kind::Double));
            let mut copy = Tensor::zeros([length], (kind, Device::Cpu));
            let update = AdamWUpdate { step: 3, gradient_scale: 0.5, ..UPDATE };
            let given = gradient.copy();
            fused_adamw(&mut weights, &mut gradient, &mut first, &mut second, Some(&mut copy), &update)
                .unwrap();
            assert_eq!(gradient, given, "the gradient stays");
            let g = g * 0.5;
            let m: Tensor = m * 0.9 + &g * 0.1;
            let v: Tensor = v * 0.99 + g.square() * 0.01;
            let divisor = v.sqrt() / (1.0 - 0.99_f64.powi(3)).sqrt() + 1e-8;
            let w: Tensor = w * (1.0 - 0.1 * 0.1) - &m / divisor * (0.1 / (1.0 - 0.9_f64.powi(3)));
            for (got, expected) in [(&weights, w), (&first, m), (&second, v)] {
                let error = (got.to_kind(Kind::Double) - &expected).abs() / (expected.abs() + 1.0);
                let worst = if length == 0 { 0.0 } else { error.max().double_value(&[]) };
                assert!(worst < UPDATE_ERROR, "{worst} of {length} numbers");
            }
            assert_eq!(copy, weights.to_kind(kind), "{length} numbers in {kind:?}");
        }
    }
}

#[test]
fn gradients_are_added_as_libtorch_adds_them() {
    for length in LENGTHS {
        for kind in [Kind::Float, Kind::BFloat16] {
            let (mut sum, addend) = (numbers(length, 0.1), numbers(length, 0.2).to_kind(kind));
            let expected = &sum + addend.to_kind(Kind::Float);
            accumulate(&mut sum, &addend).unwrap();
            assert_eq!(sum, expected, "{length} numbers in {kind:?}");
        }
    }
    let error = accumulate(&mut numbers(3, 0.1), &numbers(4, 0.2)).unwrap_err();
    assert!(matches!(error, TorchExtError::Shape { tensor: "the addend", .. }), "{error}");
    let error = accumulate(&mut numbers(3, 0.1), &numbers(3, 0.2).to_kind(Kind::Half)).unwrap_err();
    assert!(matches!(error, TorchExtError::Kind { tensor: "the addend", .. }), "{error}");
}

#[test]
fn a_norm_is_that_of_doubles_and_shows_what_is_no_number() {
    for length in LENGTHS {
        let x = numbers(length, 0.1);
        let expected = x.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
        let found = squared_norm(&x).unwrap();
        assert!((found - expected).abs() <= 1e-6 * expected, "{found} for {expected}");
    }
    let with_hole =
        Tensor::cat(&[numbers(70_000, 0.1), Tensor::from_slice(&[f32::NAN]), numbers(70_000, 0.1)], 0);
    assert!(squared_norm(&with_hole).unwrap().is_nan());
    assert!(squared_norm(&numbers(4, 0.1).to_kind(Kind::Double)).is_err());
}

#[test]
fn untouched_zeros_are_zeros_to_write_in() {
    // None, less than a page, and more than a large page.
    for elements in [0, 1, 1000, (1 << 20) + 3] {
        let zeros = untouched_zeros(elements, Device::Cpu).unwrap();
        assert_eq!((zeros.size(), zeros.kind()), (vec![elements], Kind::Float));
        assert_eq!(zeros.data_ptr() as usize % 64, 0, "vectors lie as libtorch's do");
        assert_eq!(zeros.count_nonzero(None::<i64>).int64_value(&[]), 0);
        let mut part = zeros.narrow(0, elements / 2, elements - elements / 2);
        drop(zeros);
        let sum = part.fill_(2.0).sum(Kind::Double).double_value(&[]);
        assert_eq!(sum, 2.0 * part.numel() as f64, "a view keeps the memory");
    }
    for elements in [i64::MAX, i64::MAX / 4, -1] {
        let message = untouched_zeros(elements, Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("no memory"), "{message}");
    }
}
