//! Norm, gate and rotation against libtorch's operations in doubles, values and gradients.

mod common;

use common::on_each_instruction_set;
use tch::{Device, Kind, Tensor};
use torch_ext::{TorchExtError, rms_norm, rotate, swiglu};

/// Relative to the largest number: a few ulps of an fp32 sum, and one bf16 ulp per rounding.
const TOLERANCES: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 1.2e-2)];

/// Reproducible numbers in (-1, 1) without a pattern.
fn numbers(shape: &[i64], seed: f64, kind: Kind) -> Tensor {
    let count = shape.iter().product::<i64>();
    let at = Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed;
    (((at * 12.9898).sin() * 43_758.545_3).frac()).view(shape).to_kind(kind)
}

/// The same numbers in doubles, as leaves of another graph.
fn doubles(operands: &[&Tensor]) -> Vec<Tensor> {
    operands.iter().map(|t| t.detach().to_kind(Kind::Double).set_requires_grad(true)).collect()
}

/// Asserts that `found` equals `exact`, and the gradients of `operands` those of `exact_operands`.
fn assert_same(
    what: &str,
    tolerance: f64,
    (found, operands): (&Tensor, &[&Tensor]),
    (exact, exact_operands): (&Tensor, &[Tensor]),
) {
    let near = |name: &str, found: &Tensor, exact: &Tensor| {
        assert_eq!(found.size(), exact.size(), "{what}, {name}");
        let scale = exact.abs().max().double_value(&[]).max(1e-3);
        let difference = (found.to_kind(Kind::Double) - exact).abs().max().double_value(&[]) / scale;
        assert!(difference < tolerance, "{what}, {name}: {difference}");
    };
    near("value", found, exact);
    let grad = numbers(&found.size(), 0.5, found.kind());
    (found * &grad).sum(Kind::Float).backward();
    (exact * grad.to_kind(Kind::Double)).sum(Kind::Double).backward();
    for (at, (operand, exact)) in operands.iter().zip(exact_operands).enumerate() {
        near(&format!("gradient {at}"), &operand.grad(), &exact.grad());
    }
}

#[test]
fn the_norm_matches_doubles() {
    on_each_instruction_set(|| {
        for (kind, tolerance) in TOLERANCES {
            // Several blocks of the weight's gradient, heads, and a single row.
            for shape in [&[70, 576][..], &[5, 3, 16], &[1, 64]] {
                let width = *shape.last().unwrap();
                let x = (numbers(shape, 1.0, kind) * 3.0).detach().set_requires_grad(true);
                let weight = (numbers(&[width], 2.0, kind) + 1.0).detach().set_requires_grad(true);
                let found = rms_norm(&x, &weight, 1e-5).unwrap().unwrap();
                assert_eq!(found.kind(), kind);
                let exact_operands = doubles(&[&x, &weight]);
                let [x64, weight64] = exact_operands.as_slice() else { unreachable!() };
                let exact = x64 * (x64.square().mean_dim(-1, true, Kind::Double) + 1e-5).rsqrt() * weight64;
                assert_same("norm", tolerance, (&found, &[&x, &weight]), (&exact, &exact_operands));
            }
        }
    });
}

#[test]
fn the_gate_matches_doubles() {
    on_each_instruction_set(|| {
        for (kind, tolerance) in TOLERANCES {
            let gate = (numbers(&[37, 160], 1.0, kind) * 20.0).detach().set_requires_grad(true);
            let up = numbers(&[37, 160], 2.0, kind).set_requires_grad(true);
            let exact_operands = doubles(&[&gate, &up]);
            let exact = exact_operands[0].silu() * &exact_operands[1];
            let found = swiglu(&gate, &up).unwrap().unwrap();
            assert_same("gate", tolerance, (&found, &[&gate, &up]), (&exact, &exact_operands));
        }
    });
}

#[test]
fn the_rotation_matches_doubles() {
    on_each_instruction_set(|| {
        for (kind, tolerance) in TOLERANCES {
            // Halves of whole vectors, of half a vector, and of both.
            for dim in [64, 16, 48] {
                let x = numbers(&[19, 3, dim], 1.0, kind).set_requires_grad(true);
                let (cos, sin) = (numbers(&[19, 1, dim], 2.0, kind), numbers(&[19, 1, dim], 3.0, kind));
                let exact_operands = doubles(&[&x]);
                let x64 = &exact_operands[0];
                let exact =
                    x64 * cos.to_kind(Kind::Double) + x64.roll(dim / 2, -1) * sin.to_kind(Kind::Double);
                let found = rotate(&x, &cos, &sin).unwrap().unwrap();
                assert_same("rotation", tolerance, (&found, &[&x]), (&exact, &exact_operands));
            }
        }
    });
}

#[test]
fn operands_without_gradients_get_none() {
    let weight = numbers(&[32], 1.0, Kind::Float);
    let x = numbers(&[4, 32], 2.0, Kind::Float).set_requires_grad(true);
    rms_norm(&x, &weight, 1e-5).unwrap().unwrap().sum(Kind::Float).backward();
    assert!(x.grad().defined() && !weight.grad().defined());
    let silent = tch::no_grad(|| rms_norm(&x, &weight, 1e-5)).unwrap().unwrap();
    assert!(!silent.requires_grad());
    let frozen = swiglu(&x.detach(), &numbers(&[4, 32], 3.0, Kind::Float)).unwrap().unwrap();
    assert!(!frozen.requires_grad());
}

#[test]
fn the_gradient_of_the_weight_does_not_depend_on_threads() {
    let gradient = |threads| {
        tch::set_num_threads(threads);
        let weight = Tensor::ones([64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = numbers(&[3000, 64], 1.0, Kind::Float);
        let normed = rms_norm(&x, &weight, 1e-5).unwrap().unwrap();
        (normed * numbers(&[3000, 64], 2.0, Kind::Float)).sum(Kind::Float).backward();
        weight.grad()
    };
    let before = tch::get_num_threads();
    let (one, four) = (gradient(1), gradient(4));
    tch::set_num_threads(before);
    assert!(one.equal(&four));
}

#[test]
fn nan_propagates() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let gate = numbers(&[1, 16], 1.0, kind);
        let _ = gate.get(0).get(3).fill_(f64::NAN);
        let ones = Tensor::ones([1, 16], (kind, Device::Cpu));
        let gated = swiglu(&gate, &ones).unwrap().unwrap();
        assert!(gated.double_value(&[0, 3]).is_nan() && gated.double_value(&[0, 4]).is_finite());
        let normed = rms_norm(&gate, &ones.view(16), 1e-5).unwrap().unwrap();
        assert!(normed.double_value(&[0, 4]).is_nan(), "the mean of the row is NaN");
    }
}

#[test]
fn empty_tensors_are_supported() {
    let empty = Tensor::zeros([0, 32], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let weight = Tensor::ones([32], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let normed = rms_norm(&empty, &weight, 1e-5).unwrap().unwrap();
    swiglu(&normed, &normed).unwrap().unwrap().sum(Kind::Float).backward();
    assert_eq!(weight.grad().abs().sum(Kind::Float).double_value(&[]), 0.0);
}

#[test]
fn operands_that_do_not_fit_each_other_are_errors() {
    let float = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let norm = |x: &Tensor, weight: &Tensor| rms_norm(x, weight, 1e-5).unwrap_err();
    assert!(matches!(
        norm(&float(&[2, 16]), &float(&[32])),
        TorchExtError::Shape { tensor: "the weight", .. }
    ));
    let low = float(&[16]).to_kind(Kind::BFloat16);
    assert!(matches!(norm(&float(&[2, 16]), &low), TorchExtError::Kind { tensor: "the weight", .. }));
    assert!(matches!(norm(&Tensor::new(), &low), TorchExtError::Undefined { tensor: "x" }));
    assert!(matches!(
        swiglu(&float(&[2, 16]), &float(&[2, 32])).unwrap_err(),
        TorchExtError::Shape { tensor: "the gated tensor", .. }
    ));
    let tables = float(&[2, 1, 8]);
    assert!(matches!(
        rotate(&float(&[3, 2, 8]), &tables, &tables).unwrap_err(),
        TorchExtError::Shape { tensor: "the cosines", .. }
    ));
    assert!(matches!(
        rotate(&float(&[2, 7]), &tables, &tables).unwrap_err(),
        TorchExtError::Shape { tensor: "x", .. }
    ));
}

#[test]
fn operands_without_a_kernel_are_unsupported() {
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
    let norm = |x: &Tensor| {
        let weight = zeros(&[x.size()[1]], x.kind());
        rms_norm(x, &weight, 1e-5).unwrap()
    };
    assert!(norm(&zeros(&[2, 16], Kind::Float)).is_some());
    for x in [zeros(&[2, 17], Kind::Float), zeros(&[2, 16], Kind::Double), zeros(&[2, 16], Kind::Half)] {
        assert!(norm(&x).is_none());
    }
    assert!(norm(&zeros(&[16, 16], Kind::Float).tr()).is_none());
    let odd = zeros(&[3, 5], Kind::Float);
    assert!(swiglu(&odd, &odd).unwrap().is_none());
    let (x, table) = (zeros(&[2, 3, 8], Kind::Double), zeros(&[2, 1, 8], Kind::Double));
    assert!(rotate(&x, &table, &table).unwrap().is_none());
}
