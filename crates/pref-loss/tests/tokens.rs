//! LD, WPO and KTO against TRL's numbers (`fixtures/tokens.py` made them), and β-DPO against its formula.

use pref_loss::{
    Beta, DynamicBeta, KlEstimate, KtoBatch, KtoLoss, KtoOutput, LdAlpha, LossOutput, PairBatch, PairLogps,
    PairTokens, PrefLossError, PreferenceLoss, RewardMetrics, Weight, WpoTokens, ld_logp, wpo_weight,
};
use serde::Deserialize;

/// f64 on both sides, relative to the larger of value and 1.
const SAME_F64: f64 = 1e-12;

#[derive(Deserialize)]
struct Fixture {
    beta: Beta,
    pairs: Vec<Pair>,
    kto: Kto,
}

/// Numbers of the chosen and of the rejected response's tokens, and TRL's losses.
#[derive(Deserialize)]
struct Pair {
    policy: [Vec<f64>; 2],
    reference: [Vec<f64>; 2],
    collisions: [Vec<f64>; 2],
    ld_alpha: LdAlpha,
    ld_loss: f64,
    wpo_loss: f64,
}

#[derive(Deserialize)]
struct Kto {
    weights: [Weight; 2],
    policy: Vec<f64>,
    reference: Vec<f64>,
    kl_policy: Vec<f64>,
    kl_reference: Vec<f64>,
    desirable: Vec<bool>,
    kl: f64,
    losses: Vec<f64>,
    grads: Vec<f64>,
}

fn fixture() -> Fixture {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/tokens.json")).unwrap();
    assert_eq!(fixture.pairs.len(), 3);
    fixture
}

fn assert_close(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= SAME_F64 * theirs.abs().max(1.0), "ours {ours}, theirs {theirs}");
}

/// DPO's output for one pair with length-desensitized log-probabilities.
fn dpo(beta: Beta, pair: &Pair, alpha: LdAlpha) -> LossOutput<f64> {
    let sums = |logps: &[Vec<f64>; 2]| [0, 1].map(|side| ld_logp(&logps[side], logps[1 - side].len(), alpha));
    let (policy, reference) = (sums(&pair.policy), sums(&pair.reference));
    let [policy, reference] = [&policy, &reference]
        .map(|[c, r]| PairLogps { chosen: std::slice::from_ref(c), rejected: std::slice::from_ref(r) });
    let counts = [0, 1].map(|side: usize| pair.policy[side].len() as u32);
    let tokens = PairTokens { chosen: &counts[..1], rejected: &counts[1..] };
    let mut out = LossOutput::default();
    let batch = PairBatch::new(policy, reference, tokens).unwrap();
    PreferenceLoss::Dpo { beta }.evaluate(&batch, &mut out).unwrap();
    out
}

#[test]
fn length_desensitized_losses_match_trl() {
    let Fixture { beta, pairs, .. } = fixture();
    for pair in pairs {
        assert_close(dpo(beta, &pair, pair.ld_alpha).losses()[0], pair.ld_loss);
    }
}

#[test]
fn wpo_losses_match_trl() {
    let Fixture { beta, pairs, .. } = fixture();
    for pair in pairs {
        let mut out = dpo(beta, &pair, LdAlpha::new(1.0).unwrap());
        let [chosen, rejected] = [0, 1].map(|side: usize| WpoTokens {
            logps: &pair.policy[side],
            log_collisions: &pair.collisions[side],
        });
        out.weigh(&[wpo_weight(chosen, rejected).unwrap()]).unwrap();
        assert_close(out.losses()[0], pair.wpo_loss);
    }
}

#[test]
fn kto_matches_trl() {
    let Fixture { beta, kto, .. } = fixture();
    let baseline = KlEstimate::new(&kto.kl_policy, &kto.kl_reference).unwrap();
    assert_close(baseline.nats(), kto.kl);
    let loss = KtoLoss { beta, desirable: kto.weights[0], undesirable: kto.weights[1] };
    let batch = KtoBatch::new(&kto.policy, &kto.reference, &kto.desirable).unwrap();
    let mut out = KtoOutput::default();
    loss.evaluate(&batch, baseline, &mut out);
    for ((loss, grad), (theirs, their_grad)) in
        out.losses().iter().zip(out.grads()).zip(kto.losses.iter().zip(&kto.grads))
    {
        assert_close(*loss, *theirs);
        assert_close(*grad, *their_grad);
    }
    // A policy that fell below the reference has no negative baseline.
    assert_eq!(KlEstimate::new(&[-9.0], &[-4.0]).unwrap(), KlEstimate::ZERO);
}

#[test]
fn mismatched_batches_are_errors() {
    let lengths = Err(PrefLossError::Responses { expected: 2, found: 1 });
    assert_eq!(KtoBatch::new(&[-1.0, -2.0], &[-1.0], &[true, true]).map(|_| ()), lengths);
    assert_eq!(KtoBatch::new(&[-1.0, -2.0], &[-1.0, -2.0], &[true]).map(|_| ()), lengths);
    assert!(KlEstimate::new::<f64>(&[], &[]).is_err());
    assert!(KlEstimate::new(&[f32::NAN], &[0.0]).is_err());
    let empty = WpoTokens::<f64> { logps: &[], log_collisions: &[] };
    assert!(wpo_weight(empty, empty).is_err());
    assert!(LdAlpha::new(1.5).is_err() && LdAlpha::new(f64::NAN).is_err());
    assert!(DynamicBeta::new(Beta::DEFAULT, Weight::ONE, 1.0).is_err());
}

#[test]
fn dynamic_beta_follows_margins_and_stays_positive() {
    let (base, alpha) = (Beta::new(0.2).unwrap(), Weight::new(0.5).unwrap());
    let mut dynamic = DynamicBeta::new(base, alpha, 0.9).unwrap();
    assert_eq!(dynamic.next(&[1.0, 3.0]), base);
    // M₀ is 2.
    assert_close(dynamic.next(&[4.0]).get(), 0.2 * (1.0 + 0.5 * 2.0));
    // M₀ is now 0.9·2 + 0.1·4.
    assert_close(dynamic.next(&[2.2, 4.2]).get(), 0.2 * (1.0 + 0.5 * 1.0));
    assert!(dynamic.next(&[-1e9]).get() > 0.0);
    assert_eq!(dynamic.next(&[]), base);
    let mut dynamic = DynamicBeta::new(base, alpha, 0.9).unwrap();
    assert_eq!(dynamic.next(&[f64::NAN]), base);
}

#[test]
fn metrics_are_means_and_count_no_ties() {
    let logps = PairLogps { chosen: &[-20.0, -31.0, -8.0, -4.0], rejected: &[-25.0, -30.0, -9.0, -6.0] };
    let reference = PairLogps { chosen: &[-20.0, -33.0, -8.0, -5.0], rejected: &[-25.0, -30.0, -10.0, -7.0] };
    let tokens = PairTokens { chosen: &[9, 12, 4, 2], rejected: &[11, 10, 5, 3] };
    let batch = PairBatch::new(logps, reference, tokens).unwrap();
    let loss = PreferenceLoss::Dpo { beta: Beta::new(0.5).unwrap() };
    let metrics = RewardMetrics::of(loss.rewards(&batch));
    let expected =
        RewardMetrics { chosen: 0.375, rejected: 0.25, margins: 0.125, accuracies: 0.25, kl: 0.3125 };
    assert_eq!(metrics, expected);
    assert_eq!(RewardMetrics::of::<f64>([]), RewardMetrics::default());
}
