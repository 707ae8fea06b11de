//! Compares ten steps of every loss with TRL, or with float64 where TRL lacks it (`fixtures/losses.py`).

mod common;
mod peer;

use std::path::Path;

use common::Record;
use peer::peer_settings;
use policy_model::Policy;
use pref_data::{Dialogue, TokenPair};
use pref_loss::ld_logp;
use serde::Deserialize;
use tch::{Device, Kind};
use test_support::{REORDERED_FP32, TRAJECTORY_GRAD_NORM};
use trainer::recipe::{LossKind, LossSection};
use trainer::{
    MicroBatch, Objective, PreferenceObjective, Scoring, SequenceLogps, StepMetrics, SupervisedObjective,
    TrainError, Trainer,
};

/// The largest difference of a loss, relative to the larger of 1 and the loss. SPPO's squares are up to 10 here.
const LOSS: f64 = 1e-4;

#[derive(Deserialize)]
struct Fixture {
    settings: Settings,
    pairs: Vec<Row>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Settings {
    batch_size: usize,
    learning_rate: f64,
}

#[derive(Deserialize)]
struct Row {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
    /// The reference's log-probability of each token, in nats.
    chosen_reference: Vec<f64>,
    rejected_reference: Vec<f64>,
}

#[derive(Deserialize)]
struct Run {
    loss: LossSection,
    oracle: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
}

impl Fixture {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/losses.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn pairs(&self) -> Vec<TokenPair> {
        let pair = |(index, row): (usize, &Row)| TokenPair {
            id: index.to_string(),
            prompt: row.prompt.clone(),
            chosen: row.chosen.clone(),
            rejected: row.rejected.clone(),
            flipped: false,
        };
        self.pairs.iter().enumerate().map(pair).collect()
    }

    /// Returns the reference's sums over tokens, length-desensitized if the loss is.
    fn reference(&self, loss: &LossSection) -> SequenceLogps {
        let sum = |logps: &[f64], others: &[f64]| match loss.ld_alpha {
            Some(alpha) => ld_logp(logps, others.len(), alpha),
            None => logps.iter().sum(),
        };
        SequenceLogps {
            chosen: self
                .pairs
                .iter()
                .map(|row| sum(&row.chosen_reference, &row.rejected_reference))
                .collect(),
            rejected: self
                .pairs
                .iter()
                .map(|row| sum(&row.rejected_reference, &row.chosen_reference))
                .collect(),
        }
    }

    /// Trains with a loss of the fixture, on its pairs in their order.
    fn train(&self, loss: &LossSection, micro_batch: usize) -> Vec<StepMetrics> {
        let pairs = self.pairs();
        let Some(built) = loss.build().unwrap() else {
            let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen).unwrap();
            let dialogues: Vec<Dialogue> = pairs.iter().map(chosen).collect();
            let Scoring { padding, head, activations, .. } = Scoring::FAST;
            let objective = SupervisedObjective { dialogues: &dialogues, padding, head, activations };
            return self.run(&objective, micro_batch).unwrap();
        };
        let reference = self.reference(loss);
        let reference = built.reads_reference().then_some(&reference);
        assert_eq!(reference.is_some(), loss.needs_reference());
        let scoring = Scoring::FAST;
        let objective =
            PreferenceObjective { pairs: &pairs, reference, loss: built, kl_pairs: None, scoring };
        self.run(&objective, micro_batch).unwrap()
    }

    fn run(&self, objective: &dyn Objective, micro_batch: usize) -> Result<Vec<StepMetrics>, TrainError> {
        let settings = peer_settings(
            self.settings.learning_rate,
            self.settings.batch_size,
            MicroBatch::Examples(micro_batch),
        );
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy-model/tests/fixtures/llama");
        let policy = Policy::load(&model, Kind::Float, Device::Cpu).unwrap();
        let mut record = Record::default();
        Trainer::new(&policy, objective, settings)?.run(&mut record)?;
        Ok(record.steps)
    }
}

/// Returns the keys of a loss, in one line.
fn keys(loss: &LossSection) -> String {
    let given = serde_json::to_value(loss).unwrap();
    let default = serde_json::to_value(LossSection::default()).unwrap();
    let differs =
        |(key, value): &(&String, &serde_json::Value)| *key != "kind" && default.get(key) != Some(*value);
    let others =
        given.as_object().unwrap().iter().filter(differs).map(|(key, value)| format!("{key} = {value}"));
    [format!("`{}`", loss.kind.name())].into_iter().chain(others).collect::<Vec<_>>().join(", ")
}

#[test]
fn ten_steps_of_every_loss_follow_trl_or_float64() {
    let fixture = Fixture::read();
    println!("| loss | oracle | largest difference of the loss | of the gradient norm |\n|---|---|---|---|");
    for run in &fixture.runs {
        // Two micro-batches a step, which AOT and β-DPO compare as one batch.
        let steps = fixture.train(&run.loss, 2);
        assert_eq!(steps.len(), run.steps.len());
        let (mut loss, mut norm) = (0.0_f64, 0.0_f64);
        for (ours, theirs) in steps.iter().zip(&run.steps) {
            loss = loss.max((ours.loss - theirs.loss).abs() / theirs.loss.max(1.0));
            norm = norm.max((ours.grad_norm / theirs.grad_norm - 1.0).abs());
        }
        let keys = keys(&run.loss);
        println!("| {keys} | {} | {loss:.0e} | {:.4}% |", run.oracle, 100.0 * norm);
        assert!(loss < LOSS, "{keys}: losses differ by {loss}");
        assert!(norm < TRAJECTORY_GRAD_NORM, "{keys}: gradient norms differ by a factor of 1 ± {norm}");
    }
    let missing = |kind: &LossKind| !fixture.runs.iter().any(|run| run.loss.kind == *kind);
    let missing: Vec<_> = LossKind::ALL.into_iter().filter(missing).collect();
    assert_eq!(missing, [LossKind::Kto], "KTO has a fixture of its own");
}

#[test]
fn micro_batches_change_losses_by_rounding_only() {
    let fixture = Fixture::read();
    for run in &fixture.runs {
        let (whole, parts) = (fixture.train(&run.loss, 4), fixture.train(&run.loss, 1));
        for (whole, parts) in whole.iter().zip(&parts) {
            // Relative for SPPO, whose squares reach 10.
            let difference = (whole.loss - parts.loss).abs() / whole.loss.max(1.0);
            assert!(difference < REORDERED_FP32, "{}: {} and {}", keys(&run.loss), whole.loss, parts.loss);
            assert_eq!(whole.beta.is_some(), run.loss.dynamic_beta.is_some());
        }
    }
}

#[test]
fn a_batch_that_is_not_finite_is_an_error_of_a_loss_that_compares_pairs() {
    let fixture = Fixture::read();
    let section: LossSection = serde_json::from_value(serde_json::json!({ "kind": "aot" })).unwrap();
    let loss = section.build().unwrap().unwrap();
    let pairs = fixture.pairs();
    let mut reference = fixture.reference(&section);
    reference.chosen[2] = f64::NAN;
    let objective = PreferenceObjective {
        pairs: &pairs[..4],
        reference: Some(&reference),
        loss,
        kl_pairs: None,
        scoring: Scoring::FAST,
    };
    let error = fixture.run(&objective, 2).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { step: 1, .. }), "{error}");
}
