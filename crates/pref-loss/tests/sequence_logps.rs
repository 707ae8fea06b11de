//! Sums of token log-probabilities against dense log-softmax, masks and autograd.
#![cfg(feature = "tch")]

use pref_loss::{HeadError, sequence_logps, token_logps};
use tch::{Device, IndexOp, Kind, Tensor};

/// Between two orders of the same fp32 sums, relative.
const REORDERED_FP32: f64 = 1e-5;

const BATCH: i64 = 3;
const LEN: i64 = 7;
const VOCAB: i64 = 11;

fn logits(kind: Kind) -> Tensor {
    let angles = Tensor::arange(BATCH * LEN * VOCAB, (Kind::Double, Device::Cpu)) * 0.731;
    (angles.sin() * 3.0).view([BATCH, LEN, VOCAB]).to_kind(kind)
}

fn ids() -> Tensor {
    (Tensor::arange(BATCH * LEN, (Kind::Int64, Device::Cpu)) * 5).remainder(VOCAB).view([BATCH, LEN])
}

fn mask(scored: &[(i64, i64)]) -> Tensor {
    let mask = Tensor::zeros([BATCH, LEN], (Kind::Bool, Device::Cpu));
    for &at in scored {
        let _ = mask.i(at).fill_(1);
    }
    mask
}

const SCORED: [(i64, i64); 6] = [(0, 2), (0, 3), (0, 6), (2, 1), (2, 2), (2, 5)];

/// Every position's log-softmax, the unscored ones multiplied by 0.
fn dense(logits: &Tensor, ids: &Tensor, mask: &Tensor) -> Tensor {
    let logps = logits.i((.., ..LEN - 1, ..)).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
    let logps = logps.gather(-1, &ids.i((.., 1..)).unsqueeze(-1), false).squeeze_dim(-1);
    (logps * mask.i((.., 1..))).sum_dim_intlist(1, false, Kind::Double)
}

fn largest(difference: &Tensor) -> f64 {
    difference.abs().max().double_value(&[])
}

#[test]
fn sums_and_gradients_match_a_dense_mask() {
    for (kind, sums, tolerance, gradients) in [
        (Kind::Double, Kind::Double, 1e-13, 1e-13),
        (Kind::Float, Kind::Float, REORDERED_FP32, REORDERED_FP32),
        // bfloat16 logits are exact in f64, so the sums have all digits of f32; gradients are rounded to bfloat16.
        (Kind::BFloat16, Kind::Float, REORDERED_FP32, 0.01),
        (Kind::Half, Kind::Float, REORDERED_FP32, 0.001),
    ] {
        let run = |of: &dyn Fn(&Tensor) -> Tensor| {
            let logits = logits(kind).set_requires_grad(true);
            let sums = of(&logits);
            (&sums * Tensor::from_slice(&[0.3, -0.7, 1.1])).sum(Kind::Double).backward();
            (sums.detach(), logits.grad())
        };
        let (expected, expected_grad) = run(&|logits| dense(logits, &ids(), &mask(&SCORED)));
        let (found, grad) = run(&|logits| {
            let logps = sequence_logps(logits, &ids(), &mask(&SCORED)).unwrap();
            assert_eq!(logps.tokens, [3, 0, 3]);
            logps.sums
        });
        assert_eq!((found.kind(), found.size()), (sums, vec![BATCH]));
        assert!(largest(&(&found - &expected)) <= tolerance * 20.0, "{kind:?}: {found}");
        assert!(largest(&(grad - &expected_grad)) <= gradients, "{kind:?}");
        assert_eq!(found.double_value(&[1]), 0.0);
    }
}

#[test]
fn token_logps_are_shifted_by_one() {
    let logps = token_logps(&logits(Kind::Float), &ids()).unwrap();
    assert_eq!(logps.size(), [BATCH, LEN - 1]);
    for (sequence, token) in SCORED {
        let one = sequence_logps(&logits(Kind::Float), &ids(), &mask(&[(sequence, token)])).unwrap();
        let expected = one.sums.double_value(&[sequence]);
        assert!((logps.double_value(&[sequence, token - 1]) - expected).abs() <= REORDERED_FP32);
    }
    let short =
        |len: i64| token_logps(&logits(Kind::Float).i((.., ..len, ..)), &ids().i((.., ..len))).unwrap();
    assert_eq!(short(1).size(), [BATCH, 0]);
    assert_eq!(short(0).size(), [BATCH, 0]);
}

#[test]
fn sums_of_bfloat16_tokens_are_exact() {
    // Uniform logits: every token costs ln 11, and 999 of them in bfloat16 would be a multiple of 16.
    let logits = Tensor::zeros([1, 1_000, VOCAB], (Kind::BFloat16, Device::Cpu));
    let ids = Tensor::zeros([1, 1_000], (Kind::Int64, Device::Cpu));
    let mask = ids.eq(0);
    let _ = mask.i((0, 0)).fill_(0);
    let logps = sequence_logps(&logits, &ids, &mask).unwrap();
    assert_eq!(logps.tokens, [999]);
    let expected = -999.0 * 11_f64.ln();
    assert!((logps.sums.double_value(&[0]) / expected - 1.0).abs() <= 1e-7);
}

#[test]
fn unscored_positions_are_never_read() {
    let (logits, ids) = (logits(Kind::Float), ids());
    let clean = sequence_logps(&logits, &ids, &mask(&SCORED)).unwrap().sums;
    let _ = ids.i((0, 4)).fill_(-100);
    let _ = logits.i((0, 3)).fill_(f64::NAN);
    let _ = logits.i((1, 0)).fill_(f64::NAN);
    let logits = logits.set_requires_grad(true);
    let spoilt = sequence_logps(&logits, &ids, &mask(&SCORED)).unwrap().sums;
    assert_eq!(spoilt.detach(), clean);
    spoilt.sum(Kind::Float).backward();
    assert_eq!(logits.grad().isnan().any().int64_value(&[]), 0);
}

#[test]
fn nan_propagates_to_its_own_sequence() {
    let spoilt = logits(Kind::Float);
    let _ = spoilt.i((0, 1)).fill_(f64::NAN);
    let sums = sequence_logps(&spoilt, &ids(), &mask(&SCORED)).unwrap().sums;
    assert!(sums.double_value(&[0]).is_nan());
    assert!(sums.double_value(&[2]).is_finite());
    let none = sequence_logps(&logits(Kind::Float), &ids(), &mask(&[])).unwrap();
    assert_eq!((none.tokens, largest(&none.sums)), (vec![0, 0, 0], 0.0));
}

#[test]
fn scoring_a_first_token_is_an_error() {
    let first = sequence_logps(&logits(Kind::Float), &ids(), &mask(&[(0, 2), (2, 0)])).unwrap_err();
    assert_eq!(first, HeadError::FirstToken { sequence: 2 });
}

#[test]
fn ids_outside_of_the_vocabulary_are_errors() {
    for id in [VOCAB, -100] {
        let ids = ids();
        let _ = ids.i((2, 5)).fill_(id);
        let error = sequence_logps(&logits(Kind::Float), &ids, &mask(&SCORED)).unwrap_err();
        assert_eq!(error, HeadError::Target { index: 5, id, vocab: VOCAB });
        let error = token_logps(&logits(Kind::Float), &ids).unwrap_err();
        assert_eq!(error, HeadError::Target { index: 16, id, vocab: VOCAB });
    }
}

#[test]
fn errors_name_the_mismatched_tensor() {
    let zeros = |size: &[i64], kind| Tensor::zeros(size, (kind, Device::Cpu));
    let (logits, ids, mask) = (logits(Kind::Float), ids(), mask(&SCORED));
    let named = |logits: &Tensor, ids: &Tensor, mask: &Tensor| match sequence_logps(logits, ids, mask) {
        Err(HeadError::Shape { tensor, .. }) => format!("shape of {tensor}"),
        Err(HeadError::Kind { tensor, .. }) => format!("kind of {tensor}"),
        other => format!("{other:?}"),
    };
    assert_eq!(named(&zeros(&[3, 7], Kind::Float), &ids, &mask), "shape of logits");
    assert_eq!(named(&zeros(&[3, 7, 11], Kind::Int64), &ids, &mask), "kind of logits");
    assert_eq!(named(&logits, &zeros(&[3, 6], Kind::Int64), &mask), "shape of ids");
    assert_eq!(named(&logits, &zeros(&[3, 7], Kind::Int), &mask), "kind of ids");
    assert_eq!(named(&logits, &ids, &zeros(&[3, 6], Kind::Bool)), "shape of mask");
    assert_eq!(named(&logits, &ids, &zeros(&[3, 7], Kind::Float)), "kind of mask");
}
