//! LD, WPO, KTO and weighted sums on tensors against those on slices, which `tokens.rs` and `trl.rs` compare with
//! TRL.
#![cfg(feature = "tch")]

use pref_loss::{
    Beta, HeadError, KlEstimate, KtoBatch, KtoLoss, KtoOutput, LdAlpha, LossOutput, LossSum, PairBatch,
    PairLogpTensors, PairLogps, PairTokens, PrefLossError, PreferenceLoss, Weight, WpoTokens, ld_logp,
    ld_logps, wpo_weights,
};
use tch::{Device, IndexOp, Kind, Tensor};

/// f64 on both sides, relative to the larger of value and 1.
const SAME_F64: f64 = 1e-12;

const LEN: i64 = 6;
const VOCAB: i64 = 9;
/// First scored token and number of scored tokens of each response; a pair is two rows.
const SCORED: [(usize, usize); 4] = [(2, 4), (2, 2), (1, 1), (1, 5)];

fn logits() -> Tensor {
    let angles = Tensor::arange(4 * LEN * VOCAB, (Kind::Double, Device::Cpu)) * 0.731;
    (angles.sin() * 3.0).view([4, LEN, VOCAB])
}

fn ids() -> Tensor {
    let ids = (Tensor::arange(4 * LEN, (Kind::Int64, Device::Cpu)) * 5).remainder(VOCAB).view([4, LEN]);
    // What is not scored may be anything.
    ids.masked_fill(&mask().logical_not(), -100)
}

fn mask() -> Tensor {
    let mask = Tensor::zeros([4, LEN], (Kind::Bool, Device::Cpu));
    for (row, &(first, count)) in SCORED.iter().enumerate() {
        let _ = mask.i((row as i64, first as i64..(first + count) as i64)).fill_(1);
    }
    mask
}

/// log π(token) and log Σ π² of each of a row's scored tokens.
fn token_numbers(row: usize) -> [Vec<f64>; 2] {
    let (first, count) = SCORED[row];
    let softmax = logits().softmax(-1, Kind::Double);
    let at = |token: usize| softmax.i((row as i64, token as i64 - 1));
    let tokens = first..first + count;
    let logp = |token: usize| {
        let id = ids().int64_value(&[row as i64, token as i64]);
        at(token).double_value(&[id]).ln()
    };
    let collision = |token: usize| at(token).square().sum(Kind::Double).double_value(&[]).ln();
    [tokens.clone().map(logp).collect(), tokens.map(collision).collect()]
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous()).unwrap()
}

fn assert_close(ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= SAME_F64 * b.abs().max(1.0), "{ours:?} for {theirs:?}");
    }
}

#[test]
fn length_desensitized_sums_and_gradients() {
    let others: Vec<u32> = [1, 0, 3, 2].map(|row: usize| SCORED[row].1 as u32).to_vec();
    let alpha = LdAlpha::new(0.3).unwrap();
    let expected: Vec<f64> =
        (0..4).map(|row| ld_logp(&token_numbers(row)[0], others[row] as usize, alpha)).collect();
    let logits = logits().set_requires_grad(true);
    let sums = ld_logps(&logits, &ids(), &mask(), &others, alpha).unwrap();
    assert_close(&numbers(&sums), &expected);
    sums.sum(Kind::Double).backward();
    // d logp / d its own logit is 1 − π, weighed by α beyond the partner's two tokens.
    let own = |token: i64| {
        let id = ids().int64_value(&[0, token]);
        let slope = logits.grad().double_value(&[0, token - 1, id]);
        slope / (1.0 - token_numbers(0)[0][token as usize - 2].exp())
    };
    assert_close(&[own(2), own(3), own(4), own(5)], &[1.0, 1.0, 0.3, 0.3]);
}

#[test]
fn weights_of_single_responses() {
    let expected: Vec<f64> = (0..4)
        .map(|row| {
            let [logps, log_collisions] = token_numbers(row);
            WpoTokens { logps: &logps, log_collisions: &log_collisions }.weight().unwrap()
        })
        .collect();
    let weights = wpo_weights(&logits().set_requires_grad(true), &ids(), &mask()).unwrap();
    assert!(!weights.requires_grad());
    assert_close(&numbers(&weights), &expected);
}

#[test]
fn invalid_masks_are_errors() {
    let (logits, ids) = (logits(), ids());
    let nothing = mask();
    let _ = nothing.i(1).fill_(0);
    assert_eq!(wpo_weights(&logits, &ids, &nothing).unwrap_err(), HeadError::NothingScored { sequence: 1 });
    let first = mask();
    let _ = first.i((2, 0)).fill_(1);
    assert_eq!(wpo_weights(&logits, &ids, &first).unwrap_err(), HeadError::FirstToken { sequence: 2 });
    let alpha = LdAlpha::new(0.5).unwrap();
    let short = ld_logps(&logits, &ids, &mask(), &[1, 2, 3], alpha).unwrap_err();
    assert!(short.to_string().contains("partners' token counts"), "{short}");
    // Padding that went wrong stays where it is.
    let nan = logits.shallow_clone();
    let _ = nan.i((2, 3..)).fill_(f64::NAN);
    assert!(!numbers(&ld_logps(&nan, &ids, &mask(), &[1; 4], alpha).unwrap())[2].is_nan());
}

const POLICY: [f64; 3] = [-20.5, -31.0, -8.25];
const REFERENCE: [f64; 3] = [-22.0, -30.0, -9.0];

#[test]
fn unpaired_responses() {
    let loss = KtoLoss {
        beta: Beta::new(0.2).unwrap(),
        desirable: Weight::new(1.3).unwrap(),
        undesirable: Weight::new(0.6).unwrap(),
    };
    let desirable = [true, false, true];
    let baseline = KlEstimate::new(&REFERENCE, &[-22.5, -30.5, -8.0]).unwrap();
    let policy = Tensor::from_slice(&POLICY).set_requires_grad(true);
    let reference = Tensor::from_slice(&REFERENCE);
    assert_eq!(
        KlEstimate::from_tensors(&reference, &Tensor::from_slice(&[-22.5, -30.5, -8.0])).unwrap(),
        baseline
    );
    let losses = loss.forward(&policy, &reference, &desirable, baseline).unwrap();
    losses.sum(Kind::Double).backward();
    let mut out = KtoOutput::default();
    loss.evaluate(&KtoBatch::new(&POLICY, &REFERENCE, &desirable).unwrap(), baseline, &mut out);
    assert_close(&numbers(&losses.detach()), out.losses());
    assert_close(&numbers(&policy.grad()), out.grads());

    let refused = |policy: &Tensor, desirable: &[bool]| {
        loss.forward(policy, &reference, desirable, KlEstimate::ZERO).unwrap_err()
    };
    assert_eq!(refused(&policy, &[true]), PrefLossError::Responses { expected: 3, found: 1 });
    let shape = refused(&policy.view([3, 1]), &desirable).to_string();
    assert!(shape.contains("policy's unpaired log-probs") && shape.contains("[responses]"), "{shape}");
}

#[test]
fn weighted_sums() {
    let beta = Beta::new(0.1).unwrap();
    let sum = LossSum::with_sft(PreferenceLoss::Dpo { beta }, Weight::new(0.7).unwrap());
    let logps = |[a, b]: [&[f64; 3]; 2]| PairLogpTensors {
        chosen: Tensor::from_slice(a).set_requires_grad(true),
        rejected: Tensor::from_slice(b).set_requires_grad(true),
    };
    let other = [-25.0, -12.0, -14.5];
    let tokens = PairTokens { chosen: &[9, 12, 3], rejected: &[11, 10, 5] };
    let (policy, reference) = (logps([&POLICY, &other]), logps([&REFERENCE, &REFERENCE]));
    let losses = sum.forward(&policy, Some(&reference), tokens).unwrap();
    losses.sum(Kind::Double).backward();
    let (mut out, mut scratch) = (LossOutput::default(), LossOutput::default());
    let batch = PairBatch::new(
        PairLogps { chosen: &POLICY, rejected: &other },
        PairLogps { chosen: &REFERENCE, rejected: &REFERENCE },
        tokens,
    );
    sum.evaluate(&batch.unwrap(), &mut out, &mut scratch).unwrap();
    assert_close(&numbers(&losses.detach()), out.losses());
    assert_close(&numbers(&policy.chosen.grad()), out.chosen_grads());
    assert_close(&numbers(&policy.rejected.grad()), out.rejected_grads());
    let missing = sum.forward(&policy, None, tokens).unwrap_err();
    assert_eq!(missing, PrefLossError::MissingReference { loss: "dpo" });
}
