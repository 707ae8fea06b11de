//! Compares KTO on unpaired preferences with TRL's `KTOTrainer` (`fixtures/trl_kto.py`).

mod common;
mod peer;

use std::path::Path;

use common::Record;
use peer::peer_settings;
use policy_model::Policy;
use pref_data::TokenCompletion;
use pref_loss::{Beta, KtoLoss, Weight};
use serde::Deserialize;
use tch::{Device, Kind};
use test_support::{REORDERED_FP32, TRAJECTORY_GRAD_NORM, TRAJECTORY_LOSS, TRAJECTORY_MARGIN};
use trainer::{MicroBatch, Mismatched, Outcome, Scoring, StepMetrics, Trainer, UnpairedObjective};

#[derive(Deserialize)]
struct Fixture {
    settings: Settings,
    examples: Vec<Example>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Settings {
    batch_size: usize,
    max_length: usize,
    beta: f64,
    learning_rate: f64,
    desirable_weight: f64,
    undesirable_weight: f64,
}

#[derive(Deserialize)]
struct Example {
    prompt_ids: Vec<u32>,
    completion_ids: Vec<u32>,
    kl_completion_ids: Vec<u32>,
    label: bool,
    reference: f64,
    kl_reference: f64,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
    learning_rate: f64,
    kl: f64,
    #[serde(rename = "rewards/chosen")]
    chosen_reward: f64,
    #[serde(rename = "rewards/rejected")]
    rejected_reward: f64,
    #[serde(rename = "rewards/margins")]
    margin: f64,
    #[serde(rename = "logps/chosen")]
    chosen_logps: f64,
    #[serde(rename = "logps/rejected")]
    rejected_logps: f64,
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trl_kto.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The examples, truncated as TRL truncates them.
fn completions(fixture: &Fixture) -> Vec<TokenCompletion> {
    let example = |(index, row): (usize, &Example)| {
        let room = fixture.settings.max_length - row.prompt_ids.len();
        let (completion, removed) = row.completion_ids.split_at(row.completion_ids.len().min(room));
        TokenCompletion {
            id: index.to_string(),
            prompt: row.prompt_ids.clone(),
            completion: completion.to_vec(),
            removed: removed.to_vec(),
            is_desirable: row.label,
        }
    };
    fixture.examples.iter().enumerate().map(example).collect()
}

fn train(fixture: &Fixture, micro_batch: MicroBatch) -> Vec<StepMetrics> {
    let Settings { batch_size, max_length, beta, learning_rate, .. } = fixture.settings;
    let weight = |value| Weight::new(value).unwrap();
    let loss = KtoLoss {
        beta: Beta::new(beta).unwrap(),
        desirable: weight(fixture.settings.desirable_weight),
        undesirable: weight(fixture.settings.undesirable_weight),
    };
    let completions = completions(fixture);
    let reference: Vec<f64> = fixture.examples.iter().map(|row| row.reference).collect();
    let of_mismatched = fixture.examples.iter().map(|row| row.kl_reference).collect();
    let rotated = Mismatched::rotated(&completions, batch_size, max_length);
    let mismatched = Mismatched::new(rotated, of_mismatched);
    let objective = UnpairedObjective {
        completions: &completions,
        reference: &reference,
        loss,
        mismatched: &mismatched,
        scoring: Scoring::FAST,
    };
    let settings = peer_settings(learning_rate, batch_size, micro_batch);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy-model/tests/fixtures/llama");
    let policy = Policy::load(&model, Kind::Float, Device::Cpu).unwrap();
    let mut record = Record::default();
    let outcome = Trainer::new(&policy, &objective, settings).unwrap().run(&mut record).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    record.steps
}

#[test]
fn mismatched_completions_are_trls() {
    let fixture = fixture();
    let Settings { batch_size, max_length, .. } = fixture.settings;
    let rotated = Mismatched::rotated(&completions(&fixture), batch_size, max_length);
    for (row, ours) in fixture.examples.iter().zip(&rotated) {
        let mut trl = [&*row.prompt_ids, &row.kl_completion_ids].concat();
        trl.truncate(max_length);
        assert_eq!(ours.ids(), trl);
    }
}

#[test]
fn every_step_follows_trl() {
    let fixture = fixture();
    let steps = train(&fixture, MicroBatch::Examples(4));
    assert_eq!(steps.len(), fixture.steps.len());
    for (ours, trl) in steps.iter().zip(&fixture.steps) {
        let at = format!("step {}", ours.step);
        let close = |name: &str, ours: f64, trl: f64, tolerance: f64| {
            assert!((ours - trl).abs() < tolerance, "{at}: {name} {ours} instead of {trl}");
        };
        let metrics = ours.unpaired.unwrap();
        assert_eq!(ours.preference, None);
        close("learning rate", ours.learning_rate, trl.learning_rate, 1e-15);
        close("loss", ours.loss, trl.loss, TRAJECTORY_LOSS);
        close("gradient norm", ours.grad_norm / trl.grad_norm, 1.0, TRAJECTORY_GRAD_NORM);
        close("KL", ours.kl.unwrap(), trl.kl, TRAJECTORY_MARGIN);
        close("chosen reward", metrics.chosen_reward.unwrap(), trl.chosen_reward, TRAJECTORY_MARGIN);
        close("rejected reward", metrics.rejected_reward.unwrap(), trl.rejected_reward, TRAJECTORY_MARGIN);
        close("margin", metrics.margin.unwrap(), trl.margin, TRAJECTORY_MARGIN);
        close("chosen", metrics.chosen_logps.unwrap(), trl.chosen_logps, TRAJECTORY_MARGIN);
        close("rejected", metrics.rejected_logps.unwrap(), trl.rejected_logps, TRAJECTORY_MARGIN);
    }
    let counts: f64 =
        steps.iter().filter_map(|step| step.unpaired).map(|m| m.desirable + m.undesirable).sum();
    assert_eq!(counts, fixture.examples.len() as f64);
}

#[test]
fn micro_batches_change_results_by_rounding_only() {
    let fixture = fixture();
    let (whole, parts) = (train(&fixture, MicroBatch::Examples(4)), train(&fixture, MicroBatch::Tokens(20)));
    for (whole, parts) in whole.iter().zip(&parts) {
        assert!((whole.loss - parts.loss).abs() < REORDERED_FP32, "{} and {}", whole.loss, parts.loss);
        assert_eq!(whole.unpaired.unwrap().desirable, parts.unpaired.unwrap().desirable);
    }
}
