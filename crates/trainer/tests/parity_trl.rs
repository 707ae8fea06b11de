//! Compares training of the real 135M model with TRL's `DPOTrainer`; runs if `PREF_REAL_MODEL` names its folder.

mod common;
mod peer;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use common::Record;
use peer::peer_settings;
use policy_model::Policy;
use pref_data::TokenPair;
use pref_loss::{Beta, LabelSmoothing, LogpReduction, NoiseRate, PreferenceLoss};
use serde::Deserialize;
use tch::{Device, Kind};
use test_support::{
    TRAJECTORY_GRAD_NORM, TRAJECTORY_LOGPS, TRAJECTORY_LOSS, TRAJECTORY_LOSS_IPO_SUM, TRAJECTORY_MARGIN,
};
use trainer::{MicroBatch, PreferenceObjective, Scoring, SequenceLogps, Trainer};

/// The recording of `fixtures/trl_trajectory.py`.
#[derive(Deserialize)]
struct Trajectories {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    loss_type: String,
    peak_learning_rate: f64,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: Number,
    learning_rate: f64,
    #[serde(rename = "rewards/margins")]
    margins: Number,
    #[serde(rename = "logps/chosen")]
    chosen_logps: Number,
}

/// The recording of `fixtures/trl_fifty.py`.
#[derive(Deserialize)]
struct Fifty {
    #[serde(flatten)]
    tokens: Tokens,
    runs: Vec<Run>,
}

/// TRL logs some numbers as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Float(f64),
    Text(String),
}

impl Number {
    fn get(&self) -> f64 {
        match self {
            Self::Float(value) => *value,
            Self::Text(text) => text.parse().expect("TRL logs numbers"),
        }
    }
}

#[derive(Deserialize)]
struct Tokens {
    max_length: usize,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    prompt_ids: Vec<u32>,
    chosen_ids: Vec<u32>,
    rejected_ids: Vec<u32>,
}

fn fixture<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn pairs(tokens: Tokens) -> Vec<TokenPair> {
    let Tokens { max_length, pairs } = tokens;
    let cut =
        |prompt: &[u32], response: &[u32]| response[..response.len().min(max_length - prompt.len())].to_vec();
    let pair = |(i, p): (usize, &Pair)| TokenPair {
        id: i.to_string(),
        prompt: p.prompt_ids.clone(),
        chosen: cut(&p.prompt_ids, &p.chosen_ids),
        rejected: cut(&p.prompt_ids, &p.rejected_ids),
        flipped: false,
    };
    pairs.iter().enumerate().map(pair).collect()
}

fn loss(name: &str) -> PreferenceLoss {
    let beta = Beta::new(0.1).unwrap();
    match name {
        "sigmoid" => PreferenceLoss::Dpo { beta },
        "ipo" => PreferenceLoss::Ipo { beta, reduction: LogpReduction::Mean },
        "ipo_sum" => PreferenceLoss::Ipo { beta, reduction: LogpReduction::Sum },
        "hinge" => PreferenceLoss::Hinge { beta },
        "robust" => PreferenceLoss::Robust { beta, label_smoothing: NoiseRate::new(0.1).unwrap() },
        "cdpo" => PreferenceLoss::Cdpo { beta, label_smoothing: LabelSmoothing::new(0.1).unwrap() },
        other => panic!("unknown loss of TRL: {other}"),
    }
}

/// Trains the first `steps` of `run`, with `batch_size` pairs each, and compares every step.
fn follow(run: &Run, steps: usize, batch_size: usize, start: &Start<'_>) {
    let Start { policy, pairs, reference } = *start;
    let loss = loss(&run.loss_type);
    // The schedule ends with the recorded run, which may have fewer pairs than the fixture.
    let pairs = &pairs[..run.steps.len() * batch_size];
    let reference = Some(reference);
    let objective =
        PreferenceObjective { pairs, reference, loss: loss.into(), kl_pairs: None, scoring: Scoring::FAST };
    let mut record = Record { stop_after: Some(steps), ..Record::default() };
    let settings = peer_settings(run.peak_learning_rate, batch_size, MicroBatch::Examples(batch_size));
    Trainer::new(policy, &objective, settings).unwrap().run(&mut record).unwrap();
    assert_eq!(record.steps.len(), steps);
    for (ours, trl) in record.steps.iter().zip(&run.steps) {
        let at = format!("{} at {}, step {}", run.loss_type, run.peak_learning_rate, ours.step);
        assert!((ours.learning_rate - trl.learning_rate).abs() < 1e-15, "{at}: learning rate");
        // IPO's losses are about 25: the tolerance is relative to the first one.
        let scale = run.steps[0].loss.max(1.0);
        let difference = (ours.loss - trl.loss).abs() / scale;
        let tolerance = if run.loss_type == "ipo_sum" { TRAJECTORY_LOSS_IPO_SUM } else { TRAJECTORY_LOSS };
        assert!(difference < tolerance, "{at}: loss {} instead of {}", ours.loss, trl.loss);
        let norm = trl.grad_norm.get();
        let difference = (ours.grad_norm - norm).abs() / norm;
        assert!(difference < TRAJECTORY_GRAD_NORM, "{at}: gradient norm {} for {norm}", ours.grad_norm);
        let preference = ours.preference.unwrap();
        let (margin, logps) = (trl.margins.get(), trl.chosen_logps.get());
        let difference = (preference.margin - margin).abs();
        assert!(difference < TRAJECTORY_MARGIN, "{at}: margin {} for {margin}", preference.margin);
        let difference = (preference.chosen_logps - logps).abs();
        assert!(difference < TRAJECTORY_LOGPS, "{at}: logps {} for {logps}", preference.chosen_logps);
    }
}

/// Serializes runs: each uses all threads.
static MACHINE: Mutex<()> = Mutex::new(());

/// The common start of all runs.
#[derive(Clone, Copy)]
struct Start<'a> {
    policy: &'a Policy,
    pairs: &'a [TokenPair],
    reference: &'a SequenceLogps,
}

#[test]
fn ten_steps_follow_trl() {
    let Some(model) = test_support::real_model("ten_steps_follow_trl") else { return };
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let policy = Policy::load(&model, Kind::Float, Device::Cpu).unwrap();
    let pairs = pairs(fixture("trl_tokens.json"));
    let reference = SequenceLogps::compute(&policy, &pairs, Scoring::FAST, |_| {}).unwrap();
    let start = Start { policy: &policy, pairs: &pairs, reference: &reference };
    let trajectories: Trajectories = fixture("trl_trajectory.json");
    assert!(trajectories.runs.len() >= 2, "the fixture holds both learning rates");
    for run in &trajectories.runs {
        // A step takes ten seconds on two cores: DPO runs to the end at one learning rate, and two steps suffice to compare
        // the other gradients.
        let to_the_end = run.loss_type == "sigmoid" && run.peak_learning_rate == 1e-5;
        let steps = if to_the_end { run.steps.len() } else { 2 };
        follow(run, steps, 4, &start);
    }
}

#[test]
fn fifty_steps_follow_trl() {
    let Some(model) = test_support::real_model("fifty_steps_follow_trl") else { return };
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let policy = Policy::load(&model, Kind::Float, Device::Cpu).unwrap();
    let Fifty { tokens, runs } = fixture("trl_fifty.json");
    let pairs = pairs(tokens);
    let reference = SequenceLogps::compute(&policy, &pairs, Scoring::FAST, |_| {}).unwrap();
    let start = Start { policy: &policy, pairs: &pairs, reference: &reference };
    let lengths: Vec<(&str, usize)> =
        runs.iter().map(|run| (run.loss_type.as_str(), run.steps.len())).collect();
    let fifty = ["sigmoid", "ipo", "hinge", "robust"].map(|name| (name, 50));
    let ten = ["cdpo", "ipo_sum"].map(|name| (name, 10));
    assert_eq!(lengths, [&fifty[..], &ten[..]].concat());
    for run in &runs {
        // `losses.rs` compares ten steps of every loss on a small model.
        let steps = if matches!(run.loss_type.as_str(), "sigmoid" | "ipo") { 50 } else { 10 };
        follow(run, steps, 1, &start);
    }
}
