//! Passes over all weights against PyTorch's results and arithmetic in doubles, their preconditions, and allocation.

mod common;

use common::on_each_instruction_set;
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

/// The result of three updates by `torch.optim.AdamW` (2.13) with `UPDATE`. Initially w = [1, −2, 3]; the gradients are
/// [0.5, −1, 2], [−0.25, 0.5, 1], [1, 1, −1].
const AFTER_THREE: [f64; 3] = [0.780_244_529_247_283_9, -1.843_454_241_752_624_5, 2.680_715_560_913_086];

/// Absolute; fp32 keeps seven digits.
const TOLERANCE: f64 = 1e-6;

#[test]
fn three_updates_match_pytorch() {
    let mut weights = Tensor::from_slice(&[1f32, -2.0, 3.0]);
    let (mut first, mut second) = (weights.zeros_like(), weights.zeros_like());
    for (index, gradient) in [[0.5f32, -1.0, 2.0], [-0.25, 0.5, 1.0], [1.0, 1.0, -1.0]].iter().enumerate() {
        // Twice the gradient, scaled by one half: the same update.
        let mut gradient = Tensor::from_slice(gradient) * 2.0;
        let update = AdamWUpdate { step: index as u64 + 1, gradient_scale: 0.5, ..UPDATE };
        fused_adamw(&mut weights, &mut gradient, &mut first, &mut second, None, &update).unwrap();
    }
    for (got, expected) in Vec::<f32>::try_from(&weights).unwrap().iter().zip(AFTER_THREE) {
        assert!((f64::from(*got) - expected).abs() < TOLERANCE, "{got} instead of {expected}");
    }
}

#[test]
fn operands_that_do_not_fit_are_errors_and_nothing_is_written() {
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
    let shared = fresh();
    let error = run(shared.shallow_clone(), shared);
    assert!(error.to_string().contains("share memory"), "{error}");
}

/// Lengths around the vector length of the kernels, and for several threads.
const LENGTHS: [i64; 6] = [0, 1, 15, 16, 4_099, 200_003];

/// Relative to the update in doubles.
const UPDATE_ERROR: f64 = 3e-6;

/// Reproducible numbers in (-1, 1) without a pattern.
fn numbers(length: i64, seed: f64) -> Tensor {
    let at = Tensor::arange(length, (Kind::Double, Device::Cpu)) + seed;
    ((at * 12.9898).sin() * 43_758.545_3).frac().to_kind(Kind::Float)
}

#[test]
fn updates_of_any_length_match_doubles_and_are_copied() {
    on_each_instruction_set(|| {
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
                assert_eq!(gradient, given, "the gradient is not modified");
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
    });
}

#[test]
fn sums_match_libtorch() {
    on_each_instruction_set(|| {
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
        let mut sum = numbers(3, 0.1).to_kind(Kind::Double);
        let error = accumulate(&mut sum, &numbers(3, 0.2)).unwrap_err();
        assert!(matches!(error, TorchExtError::Kind { tensor: "the sum", .. }), "{error}");
    });
}

#[test]
fn norms_match_doubles_and_propagate_nan() {
    on_each_instruction_set(|| {
        for length in LENGTHS {
            let x = numbers(length, 0.1);
            let expected = x.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
            let found = squared_norm(&x).unwrap().unwrap();
            assert!((found - expected).abs() <= 1e-6 * expected, "{found} instead of {expected}");
        }
        let with_nan =
            Tensor::cat(&[numbers(70_000, 0.1), Tensor::from_slice(&[f32::NAN]), numbers(70_000, 0.1)], 0);
        assert!(squared_norm(&with_nan).unwrap().unwrap().is_nan());
        assert!(squared_norm(&numbers(4, 0.1).to_kind(Kind::Double)).is_err());
        assert!(squared_norm(&numbers(4, 0.1).view([2, 2]).tr()).unwrap().is_none(), "unsupported");
    });
}

#[test]
fn untouched_zeros_are_writable_zeros() {
    // Zero elements, less than a page, and more than a large page.
    for elements in [0, 1, 1000, (1 << 20) + 3] {
        let zeros = untouched_zeros(elements, Device::Cpu).unwrap();
        assert_eq!((zeros.size(), zeros.kind()), (vec![elements], Kind::Float));
        assert_eq!(zeros.data_ptr() as usize % 64, 0, "aligned like libtorch's tensors");
        assert_eq!(zeros.count_nonzero(None::<i64>).int64_value(&[]), 0);
        let mut part = zeros.narrow(0, elements / 2, elements - elements / 2);
        drop(zeros);
        let sum = part.fill_(2.0).sum(Kind::Double).double_value(&[]);
        assert_eq!(sum, 2.0 * part.numel() as f64, "a view keeps the memory alive");
    }
    for elements in [i64::MAX, i64::MAX / 4, -1] {
        let message = untouched_zeros(elements, Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("no memory"), "{message}");
    }
}
