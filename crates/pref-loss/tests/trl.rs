//! Losses, gradients and rewards against TRL's, in plain Rust and on tensors. `fixtures/losses.py` made the numbers.

use std::collections::BTreeMap;

use pref_loss::{LossOutput, PairBatch, PairLogps, PairTokens, PreferenceLoss};
use serde::Deserialize;

/// f64 on both sides; relative to the larger of value and 1, since sums pass through hundreds of nats.
const SAME_F64: f64 = 1e-12;
/// TRL computes ORPO's log-odds and the logarithms of EXO's ε in float32.
const SAME_F32: f64 = 2e-6;
/// TRL's metrics pass through Python floats unrounded.
const REWARDS: f64 = 1e-12;

#[derive(Deserialize)]
struct Fixture {
    batches: BTreeMap<String, Batch>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Batch {
    policy_chosen: Vec<f64>,
    policy_rejected: Vec<f64>,
    ref_chosen: Vec<f64>,
    ref_rejected: Vec<f64>,
    chosen_tokens: Vec<u32>,
    rejected_tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Case {
    batch: String,
    loss: PreferenceLoss,
    losses: Vec<f64>,
    chosen_grads: Vec<f64>,
    rejected_grads: Vec<f64>,
    rewards: Option<Rewards>,
}

#[derive(Deserialize)]
struct Rewards {
    chosen: Vec<f64>,
    rejected: Vec<f64>,
    accuracies: Vec<f64>,
    margins: Vec<f64>,
}

impl Case {
    fn name(&self) -> String {
        format!("{:?} on {}", self.loss, self.batch)
    }

    fn tolerance(&self) -> f64 {
        match self.loss.name() {
            "orpo" | "exo_pair" => SAME_F32,
            _ => SAME_F64,
        }
    }

    /// Whether the fixture has the batch's mean loss instead of one loss per pair.
    fn is_whole_batch(&self) -> bool {
        matches!(self.loss, PreferenceLoss::Aot { .. } | PreferenceLoss::AotUnpaired { .. })
    }

    /// Our losses as the fixture has them.
    fn reported(&self, losses: Vec<f64>) -> Vec<f64> {
        match self.is_whole_batch() {
            true => vec![losses.iter().sum::<f64>() / losses.len() as f64],
            false => losses,
        }
    }
}

impl Batch {
    fn tokens(&self) -> PairTokens<'_> {
        PairTokens { chosen: &self.chosen_tokens, rejected: &self.rejected_tokens }
    }

    fn pairs(&self) -> PairBatch<'_, f64> {
        PairBatch::new(
            PairLogps { chosen: &self.policy_chosen, rejected: &self.policy_rejected },
            PairLogps { chosen: &self.ref_chosen, rejected: &self.ref_rejected },
            self.tokens(),
        )
        .unwrap()
    }
}

fn fixture() -> Fixture {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/losses.json")).unwrap();
    assert_eq!(fixture.cases.len(), 643);
    fixture
}

fn assert_close(ours: &[f64], theirs: &[f64], tolerance: f64, what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (pair, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let allowed = tolerance * b.abs().max(1.0);
        assert!((a - b).abs() <= allowed, "{what}, pair {pair}: ours {a}, TRL's {b}");
    }
}

#[test]
fn closed_forms_on_slices_match_trl() {
    let Fixture { batches, cases } = fixture();
    let mut out = LossOutput::default();
    for case in cases {
        case.loss.evaluate(&batches[&case.batch].pairs(), &mut out).unwrap();
        let name = case.name();
        assert_close(
            &case.reported(out.losses().to_vec()),
            &case.losses,
            case.tolerance(),
            &format!("losses of {name}"),
        );
        assert_close(
            out.chosen_grads(),
            &case.chosen_grads,
            case.tolerance(),
            &format!("chosen gradients of {name}"),
        );
        assert_close(
            out.rejected_grads(),
            &case.rejected_grads,
            case.tolerance(),
            &format!("rejected gradients of {name}"),
        );
    }
}

#[test]
fn rewards_match_trl() {
    let Fixture { batches, cases } = fixture();
    let mut compared = 0;
    for case in cases {
        let Some(theirs) = &case.rewards else { continue };
        let batch = batches[&case.batch].pairs();
        let ours: Vec<_> = case.loss.rewards(&batch).collect();
        let column = |of: fn(&pref_loss::Reward<f64>) -> f64| ours.iter().map(of).collect::<Vec<_>>();
        let name = case.name();
        assert_close(&column(|reward| reward.chosen), &theirs.chosen, REWARDS, &name);
        assert_close(&column(|reward| reward.rejected), &theirs.rejected, REWARDS, &name);
        assert_close(&column(|reward| reward.margin()), &theirs.margins, REWARDS, &name);
        assert_close(
            &column(|reward| f64::from(u8::from(reward.is_accurate()))),
            &theirs.accuracies,
            0.0,
            &name,
        );
        compared += 1;
    }
    assert_eq!(compared, 15, "DPO at five betas on three batches");
}

#[cfg(feature = "tch")]
mod tensors {
    use pref_loss::{PairLogpTensors, PairTokens, PreferenceLoss};
    use tch::{Kind, Tensor};

    use super::{Fixture, SAME_F64, assert_close, fixture};

    fn logps(chosen: &[f64], rejected: &[f64]) -> PairLogpTensors {
        PairLogpTensors {
            chosen: Tensor::from_slice(chosen).set_requires_grad(true),
            rejected: Tensor::from_slice(rejected).set_requires_grad(true),
        }
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    /// What autograd left; the SFT term leaves nothing at the rejected responses.
    fn gradient(tensor: &Tensor) -> Vec<f64> {
        let gradient = tensor.grad();
        if gradient.defined() { values(&gradient) } else { vec![0.0; tensor.numel()] }
    }

    #[test]
    fn autograd_matches_trl() {
        let Fixture { batches, cases } = fixture();
        for case in cases {
            let batch = &batches[&case.batch];
            let policy = logps(&batch.policy_chosen, &batch.policy_rejected);
            let reference = logps(&batch.ref_chosen, &batch.ref_rejected);
            let losses = case.loss.forward(&policy, &reference, batch.tokens()).unwrap();
            losses.sum(Kind::Double).backward();
            let name = case.name();
            assert_close(&case.reported(values(&losses.detach())), &case.losses, case.tolerance(), &name);
            assert_close(&gradient(&policy.chosen), &case.chosen_grads, case.tolerance(), &name);
            assert_close(&gradient(&policy.rejected), &case.rejected_grads, case.tolerance(), &name);
            assert!(!reference.chosen.grad().defined() && !reference.rejected.grad().defined());
        }
    }

    #[test]
    fn closed_forms_on_tensors_match_trl() {
        let Fixture { batches, cases } = fixture();
        for case in cases {
            let batch = &batches[&case.batch];
            let policy = logps(&batch.policy_chosen, &batch.policy_rejected);
            let reference = logps(&batch.ref_chosen, &batch.ref_rejected);
            let fused = case.loss.fused(&policy, Some(&reference), batch.tokens()).unwrap();
            let name = case.name();
            assert!(!fused.losses.requires_grad());
            assert_close(&case.reported(values(&fused.losses)), &case.losses, case.tolerance(), &name);
            assert_close(&values(&fused.chosen_grads), &case.chosen_grads, case.tolerance(), &name);
            assert_close(&values(&fused.rejected_grads), &case.rejected_grads, case.tolerance(), &name);
        }
    }

    #[test]
    fn reward_tensors_equal_plain_rewards() {
        let Fixture { batches, cases } = fixture();
        for case in cases.iter().filter(|case| case.loss.name() == "dpo") {
            let batch = &batches[&case.batch];
            let policy = logps(&batch.policy_chosen, &batch.policy_rejected);
            let rewards =
                case.loss.reward_tensors(&policy, &logps(&batch.ref_chosen, &batch.ref_rejected)).unwrap();
            let pairs = batch.pairs();
            let plain: Vec<_> = case.loss.rewards(&pairs).collect();
            let margins: Vec<f64> = plain.iter().map(|reward| reward.margin()).collect();
            let accuracies: Vec<f64> =
                plain.iter().map(|reward| f64::from(u8::from(reward.is_accurate()))).collect();
            assert!(!rewards.chosen.requires_grad());
            assert_close(&values(&rewards.margins()), &margins, SAME_F64, &case.name());
            assert_close(&values(&rewards.accuracies()), &accuracies, 0.0, &case.name());
        }
    }

    #[test]
    fn mismatched_tensors_are_errors() {
        let loss: PreferenceLoss = serde_json::from_str(r#"{"kind": "dpo", "beta": 0.1}"#).unwrap();
        let tokens = PairTokens { chosen: &[9, 12], rejected: &[11, 10] };
        let fit = || logps(&[-20.0, -31.0], &[-25.0, -30.0]);
        let refusal = |policy: &PairLogpTensors, reference: &PairLogpTensors, tokens| {
            loss.forward(policy, reference, tokens).unwrap_err().to_string()
        };
        let long = logps(&[-20.0, -31.0], &[-25.0, -30.0, -1.0]);
        assert_eq!(
            refusal(&fit(), &long, tokens),
            "the reference's rejected log-probs have shape [3], expected [2]: one sum per sequence"
        );
        let grid = PairLogpTensors { chosen: fit().chosen.view([1, 2]), ..fit() };
        assert_eq!(
            refusal(&grid, &fit(), tokens),
            "the policy's chosen log-probs have shape [1, 2], expected [pairs]: one sum per sequence"
        );
        let coarse = PairLogpTensors { rejected: fit().rejected.to_kind(Kind::BFloat16), ..fit() };
        assert_eq!(
            refusal(&coarse, &fit(), tokens),
            "the policy's rejected log-probs are BFloat16, expected Double: take log-softmax and sums in float32, since \
             hundreds of nats in bfloat16 step by whole nats"
        );
        assert_eq!(
            refusal(&fit(), &fit(), PairTokens { chosen: &[9], ..tokens }),
            "the token counts of the chosen responses are 1, but the batch has 2 pairs: give one per pair"
        );
    }
}
