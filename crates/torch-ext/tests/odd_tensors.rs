//! Calls each function with operands that are not plain memory, or that change between the forward and the backward
//! pass. No call may access memory outside of a tensor (`cargo xtask sanitize` checks that). Results equal those of
//! plain copies.

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};
use torch_ext::{
    AdamWUpdate, AttentionBlock, GatedBlock, SharedPrefixRows, TorchExtError, accumulate, attention_block,
    decode_attention, decode_linear, fused_adamw, gated_block, gather_gradients, rms_norm, rotate,
    shared_prefix_attention, squared_norm, swiglu,
};

type Outcome = Result<Option<Tensor>, TorchExtError>;

/// A function, the shapes of its operands, and how many of them, from the first on, get a gradient.
struct Function {
    name: &'static str,
    shapes: &'static [&'static [i64]],
    trained: usize,
    call: fn(&[Tensor]) -> Outcome,
}

/// The layout of six tokens: a prefix of two and two continuations.
fn rows() -> SharedPrefixRows {
    SharedPrefixRows::new([(2, &[3, 1][..])])
}

fn call_attention_block(operands: &[Tensor]) -> Outcome {
    let [x, input_layernorm, q_proj, k_proj, v_proj, o_proj, q, k, v, cos, sin] = operands else {
        unreachable!("as many operands as shapes")
    };
    let biases = Some([q, k, v]);
    let weights = AttentionBlock { input_layernorm, eps: 1e-5, q_proj, k_proj, v_proj, o_proj, biases };
    attention_block(x, &weights, (cos, sin), &rows())
}

fn call_gated_block(operands: &[Tensor]) -> Outcome {
    let [x, post_attention_layernorm, gate_proj, up_proj, down_proj] = operands else {
        unreachable!("as many operands as shapes")
    };
    gated_block(x, &GatedBlock { post_attention_layernorm, eps: 1e-5, gate_proj, up_proj, down_proj })
}

/// The functions with a gradient, then those without.
const FUNCTIONS: [Function; 8] = [
    Function {
        name: "rms_norm",
        shapes: &[&[6, 32], &[32]],
        trained: 2,
        call: |operands| rms_norm(&operands[0], &operands[1], 1e-5),
    },
    Function {
        name: "swiglu",
        shapes: &[&[6, 32], &[6, 32]],
        trained: 2,
        call: |operands| swiglu(&operands[0], &operands[1]),
    },
    Function {
        name: "rotate",
        shapes: &[&[6, 2, 32], &[6, 1, 32], &[6, 1, 32]],
        trained: 1,
        call: |operands| rotate(&operands[0], &operands[1], &operands[2]),
    },
    Function {
        name: "shared_prefix_attention",
        shapes: &[&[6, 4, 16], &[6, 2, 16], &[6, 2, 16]],
        trained: 3,
        call: |operands| shared_prefix_attention(&operands[0], &operands[1], &operands[2], &rows()),
    },
    Function {
        name: "attention_block",
        shapes: &[
            &[6, 32],
            &[32],
            &[64, 32],
            &[32, 32],
            &[32, 32],
            &[32, 64],
            &[64],
            &[32],
            &[32],
            &[6, 1, 16],
            &[6, 1, 16],
        ],
        trained: 9,
        call: call_attention_block,
    },
    Function {
        name: "gated_block",
        shapes: &[&[6, 32], &[32], &[48, 32], &[48, 32], &[32, 48]],
        trained: 5,
        call: call_gated_block,
    },
    Function {
        name: "decode_linear",
        shapes: &[&[3, 64], &[48, 64]],
        trained: 0,
        call: |operands| decode_linear(&operands[0], &operands[1]),
    },
    Function {
        name: "decode_attention",
        shapes: &[&[2, 4, 16], &[2, 2, 5, 16], &[2, 2, 5, 16]],
        trained: 0,
        call: |operands| {
            let first = Tensor::from_slice(&[0i64, 3]);
            decode_attention(&operands[0], &operands[1], &operands[2], &first)
        },
    },
];

const WITH_GRADIENT: usize = 6;

#[derive(Clone, Copy, Debug)]
enum Oddity {
    Empty,
    Shorter,
    Longer,
    Scalar,
    Flat,
    Expanded,
    Transposed,
    Offset,
    Negated,
    ImaginaryOfConjugate,
    Conjugate,
    ZeroTensor,
    Mkldnn,
    Sparse,
    Double,
    Half,
    Undefined,
}

const ODDITIES: [Oddity; 17] = [
    Oddity::Empty,
    Oddity::Shorter,
    Oddity::Longer,
    Oddity::Scalar,
    Oddity::Flat,
    Oddity::Expanded,
    Oddity::Transposed,
    Oddity::Offset,
    Oddity::Negated,
    Oddity::ImaginaryOfConjugate,
    Oddity::Conjugate,
    Oddity::ZeroTensor,
    Oddity::Mkldnn,
    Oddity::Sparse,
    Oddity::Double,
    Oddity::Half,
    Oddity::Undefined,
];

/// Reproducible numbers in (-1, 1) without a pattern.
fn numbers(shape: &[i64], seed: f64, kind: Kind) -> Tensor {
    let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu)) + seed;
    ((at * 12.9898).sin() * 43_758.545_3).frac().view(shape).to_kind(kind)
}

impl Oddity {
    /// Returns an odd variant of `plain`; `None` where libtorch has none of its kind.
    fn apply(self, plain: &Tensor) -> Option<Tensor> {
        let (plain, shape) = (plain.detach(), plain.size());
        let last = shape.len() as i64 - 1;
        let complex = |x: &Tensor| Tensor::f_complex(x, x).ok();
        Some(match self {
            Self::Empty => plain.narrow(0, 0, 0),
            Self::Shorter => plain.narrow(0, 0, 1).copy(),
            Self::Longer => Tensor::cat(&[&plain, &plain], 0),
            Self::Scalar => plain.sum(plain.kind()),
            Self::Flat => plain.view(-1),
            Self::Expanded => plain.narrow(last, 0, 1).expand(&shape, false),
            Self::Transposed => plain.transpose(0, last).contiguous().transpose(0, last),
            Self::Offset => Tensor::cat(&[&plain, &plain], 0).narrow(0, shape[0], shape[0]),
            Self::Negated => plain.f_internal_neg_view().ok()?,
            Self::ImaginaryOfConjugate => complex(&plain)?.conj().imag(),
            Self::Conjugate => complex(&plain)?.conj(),
            Self::ZeroTensor => {
                Tensor::f_internal_efficientzerotensor(&shape, (plain.kind(), Device::Cpu)).ok()?
            }
            Self::Mkldnn => plain.f_to_mkldnn(plain.kind()).ok()?,
            Self::Sparse => plain.f_to_sparse_sparse_dim(1).ok()?,
            Self::Double => plain.to_kind(Kind::Double),
            Self::Half => plain.to_kind(Kind::Half),
            Self::Undefined => Tensor::new(),
        })
    }
}

fn operands(function: &Function, kind: Kind) -> Vec<Tensor> {
    let operand = |(seed, shape): (usize, &&[i64])| numbers(shape, seed as f64 + 0.1, kind);
    function.shapes.iter().enumerate().map(operand).collect()
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Float), Just(Kind::BFloat16)]
}

fn oddity() -> impl Strategy<Value = Oddity> {
    prop::sample::select(&ODDITIES[..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A function of odd operands has the result of their plain copies, or none.
    #[test]
    fn odd_operands_are_computed_as_they_are_or_not_at_all(
        function in 0..FUNCTIONS.len(),
        places in prop::collection::vec((any::<prop::sample::Index>(), oddity()), 1..3),
        kind in kind(),
    ) {
        let function = &FUNCTIONS[function];
        let mut operands = operands(function, kind);
        let plain: Vec<Tensor> = operands.iter().map(Tensor::copy).collect();
        let mut same_values = true;
        for (place, oddity) in &places {
            let place = place.index(operands.len());
            let Some(odd) = oddity.apply(&plain[place]) else { continue };
            same_values &= matches!(oddity, Oddity::Transposed | Oddity::Offset);
            operands[place] = odd;
        }
        if let Ok(Some(found)) = (function.call)(&operands) {
            let copies: Vec<Tensor> = operands.iter().map(|odd| odd.resolve_neg().contiguous()).collect();
            let expected = (function.call)(&copies).unwrap().expect("plain copies have a kernel");
            prop_assert!(found.equal(&expected), "{} of {places:?}", function.name);
            let of_plain = (function.call)(&plain).unwrap().unwrap();
            prop_assert!(!same_values || found.equal(&of_plain), "{} of {places:?}", function.name);
        }
    }

    /// A backward pass after a change of an operand succeeds or fails, without undefined behavior.
    #[test]
    fn operands_may_change_before_the_backward_pass(
        function in 0..WITH_GRADIENT,
        place in any::<prop::sample::Index>(),
        oddity in oddity(),
        kind in kind(),
        is_engine in any::<bool>(),
    ) {
        let function = &FUNCTIONS[function];
        let mut operands = operands(function, kind);
        for operand in &mut operands[..function.trained] {
            *operand = operand.set_requires_grad(true);
        }
        let out = (function.call)(&operands).unwrap().unwrap();
        let place = place.index(operands.len());
        let Some(odd) = oddity.apply(&operands[place]) else { return Ok(()) };
        if !odd.defined() || operands[place].f_set_data(&odd).is_err() {
            return Ok(());
        }
        let grad = Tensor::ones(out.size(), (kind, Device::Cpu));
        if is_engine {
            let root = (&out * &grad).sum(Kind::Float);
            drop(Tensor::f_run_backward(&[root], &operands[..function.trained], false, false));
        } else {
            drop(gather_gradients(&out, &grad, &operands[0], &[], &mut []));
        }
    }

    /// Sums of odd tensors are those of libtorch.
    #[test]
    fn odd_addends_are_added_as_they_are(
        oddity in oddity(),
        is_sum in any::<bool>(),
        kind in kind(),
    ) {
        let plain = numbers(&[6, 40], 0.1, if is_sum { Kind::Float } else { kind });
        let Some(odd) = oddity.apply(&plain) else { return Ok(()) };
        let other = numbers(&[6, 40], 0.2, if is_sum { kind } else { Kind::Float });
        let (mut sum, addend) = if is_sum { (odd, other) } else { (other, odd) };
        let dense = |tensor: &Tensor| tensor.f_to_dense(None::<Kind>, false)?.f_to_kind(Kind::Float);
        let expected = (sum.defined() && addend.defined()).then(|| dense(&sum)?.f_add(&dense(&addend)?));
        if accumulate(&mut sum, &addend).is_ok() && let Some(Ok(expected)) = expected {
            prop_assert!(sum.equal(&expected), "{oddity:?}");
        }
    }

    /// Passes over weights check all their tensors.
    #[test]
    fn odd_weights_are_updated_as_they_are_or_not_at_all(
        place in 0..5usize,
        oddity in oddity(),
    ) {
        let mut tensors: Vec<Tensor> = (0..5).map(|seed| numbers(&[6, 40], seed as f64, Kind::Float).square()).collect();
        let Some(odd) = oddity.apply(&tensors[place]) else { return Ok(()) };
        if odd.defined() && odd.kind() == Kind::Float {
            drop(squared_norm(&odd));
        }
        tensors[place] = odd;
        let [weights, gradient, first, second, copy] = tensors.as_mut_slice() else { unreachable!() };
        let update = AdamWUpdate {
            learning_rate: 0.1, betas: (0.9, 0.99), eps: 1e-8, weight_decay: 0.1, step: 1, gradient_scale: 1.0,
        };
        let updated = fused_adamw(weights, gradient, first, second, Some(copy), &update);
        prop_assert!(updated.is_err() || copy.equal(weights), "{oddity:?}");
    }
}

#[test]
fn a_negated_view_is_subtracted() {
    let mut sum = Tensor::from_slice(&[5f32, 5.0]);
    accumulate(&mut sum, &Tensor::from_slice(&[1f32, 2.0]).internal_neg_view()).unwrap();
    assert_eq!(Vec::<f32>::try_from(&sum).unwrap(), [4.0, 3.0]);
}

#[test]
fn backward_passes_after_set_data_to_a_shorter_tensor_fail() {
    for function in &FUNCTIONS[..WITH_GRADIENT] {
        let mut operands = operands(function, Kind::Float);
        for operand in &mut operands[..function.trained] {
            *operand = operand.set_requires_grad(true);
        }
        let out = (function.call)(&operands).unwrap().unwrap();
        // The cosines of a rotation, whose gradient does not need `x`; `x` otherwise.
        let place = usize::from(function.name == "rotate");
        let shorter = Oddity::Shorter.apply(&operands[place]).unwrap();
        operands[place].set_data(&shorter);
        let grad = Tensor::ones(out.size(), (Kind::Float, Device::Cpu));
        let error = gather_gradients(&out, &grad, &operands[usize::from(place == 0)], &[], &mut []);
        let error = error.map(|_| function.name).unwrap_err().to_string();
        assert!(error.contains("shape"), "{}: {error}", function.name);
    }
}

#[test]
fn attention_of_oversized_shapes_is_refused() {
    let float = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let first = Tensor::from_slice(&[0i64]);
    let outcome = |q: &Tensor, k: &Tensor| decode_attention(q, k, k, &first);
    let columns = 1i64 << 62;
    let endless = float(&[1, 1, 1, 16]).expand([1, 1, columns / 16, 16], false);
    assert!(matches!(outcome(&float(&[1, 1, 16]), &endless), Ok(None)));
    let heads_of_nothing = float(&[1, 1, columns, 0]);
    assert!(matches!(outcome(&float(&[1, 1, 0]), &heads_of_nothing), Err(TorchExtError::Shape { .. })));
    let no_heads = float(&[1, 0, 16]);
    assert!(matches!(outcome(&no_heads, &float(&[1, 2, 3, 16])), Err(TorchExtError::Shape { .. })));
    let endless_x = float(&[columns, 0]);
    assert!(decode_linear(&endless_x, &float(&[columns, 0])).is_err(), "the result exceeds any memory");
}
