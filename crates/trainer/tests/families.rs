//! Training of tiny models of all families: the options of scoring agree, in full and with adapters.

mod common;

use std::path::Path;

use common::Record;
use policy_model::{Lora, ModelConfig, Policy, Targets};
use pref_data::{Layout, Padding, TokenPair};
use pref_loss::{Beta, PreferenceLoss};
use rand::RngExt;
use seeds::Seeds;
use serde_json::{Value, json};
use tch::{Device, Kind};
use test_support::REORDERED_FP32;
use trainer::{
    Activations, AdamWSettings, Decay, Head, Length, MicroBatch, MomentKind, Order, Outcome,
    PreferenceObjective, Scoring, SequenceLogps, TrainSettings, Trained, Trainer,
};

/// No optimizations: the baseline of the comparisons.
const PLAIN: Scoring = Scoring {
    layout: Layout::Separate,
    padding: Padding::Right(0),
    head: Head::Full,
    activations: Activations::Kept,
};

/// Returns a model of each configuration that policy-model compares with transformers.
fn policies() -> Vec<(String, Policy)> {
    tch::set_num_threads(1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy-model/tests/fixtures/families.json");
    let recording: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let policy = |case: &Value| {
        let mut config = case["config"].clone();
        // Larger than usual, so that the layers matter.
        config["initializer_range"] = json!(0.2);
        let config = ModelConfig::from_json(config).unwrap();
        let policy = Policy::initialize(config, &Seeds::new(5), Kind::Float, Device::Cpu).unwrap();
        (case["name"].as_str().unwrap().to_owned(), policy)
    };
    recording["cases"].as_array().unwrap().iter().map(policy).collect()
}

/// Returns pairs of at most 11 tokens, on which the frequencies of no model depend.
fn pairs() -> Vec<TokenPair> {
    let mut rng = Seeds::new(1).stream("pairs");
    let mut ids = |longest: usize| -> Vec<u32> {
        (0..rng.random_range(1..=longest)).map(|_| rng.random_range(3..64)).collect()
    };
    let mut pair = |i: usize| TokenPair {
        id: format!("pair-{i}"),
        prompt: ids(5),
        chosen: ids(6),
        rejected: ids(6),
        flipped: false,
    };
    (0..8).map(&mut pair).collect()
}

fn train(policy: &Policy, trained: Trained, kind: Kind, scoring: Scoring) -> Record {
    let settings = TrainSettings {
        length: Length::Epochs(1.0),
        batch_size: 4,
        micro_batch: MicroBatch::Examples(4),
        learning_rate: 1e-3,
        warmup_ratio: 0.0,
        decay: Decay::Linear,
        adamw: AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.01,
            moments: MomentKind::Float,
        },
        max_grad_norm: 1.0,
        checkpoints: vec![1.0],
        kind,
        trained,
        order: Order::Shuffled,
        seeds: Seeds::new(0),
    };
    let pairs = pairs();
    let reference = SequenceLogps::compute(policy, &pairs, scoring, |_| {}).unwrap();
    let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() }.into();
    let (pairs, reference) = (pairs.as_slice(), Some(&reference));
    let objective = PreferenceObjective { pairs, reference, loss, kl_pairs: None, scoring };
    let mut trainer = Trainer::new(policy, &objective, settings).unwrap();
    let mut record = Record::default();
    assert_eq!(trainer.run(&mut record).unwrap(), Outcome::Finished);
    record
}

fn assert_close(a: &Record, b: &Record, what: &str) {
    assert_eq!(a.steps.len(), 2);
    for (a, b) in a.steps.iter().zip(&b.steps) {
        let close = |x: f64, y: f64| (x - y).abs() <= REORDERED_FP32 * x.abs().max(1.0);
        assert!(close(a.loss, b.loss), "{what}, step {}: loss {} and {}", a.step, a.loss, b.loss);
        assert!(close(a.grad_norm, b.grad_norm), "{what}: norm {} and {}", a.grad_norm, b.grad_norm);
    }
}

#[test]
fn the_options_of_scoring_agree_for_every_family() {
    const FAST: Scoring = Scoring::FAST;
    for (name, policy) in policies() {
        let targets = match policy.config().experts() {
            Some(_) => Targets::names(["q_proj", "o_proj"]),
            None => Targets::AllLinear,
        };
        let mut lora = Lora::new(2, 8.0, targets);
        lora.use_dora = true;
        lora.dropout = 0.2;
        if !policy.config().tie_word_embeddings {
            lora.modules_to_save = vec!["lm_head".to_owned(), "embed_tokens".to_owned()];
        }
        for trained in [Trained::All, Trained::Adapters(lora)] {
            let plain = train(&policy, trained.clone(), Kind::Float, PLAIN);
            // With experts, 0.001 times the loss that balances them, which is about the number of a token's experts.
            let balancing = match policy.config().experts() {
                Some(experts) => 5e-4 * experts.per_token as f64..2e-3 * experts.per_token as f64,
                None => -1e-5..1e-5,
            };
            assert!(balancing.contains(&(plain.steps[0].loss - std::f64::consts::LN_2)), "{name}");
            assert!(plain.steps[0].grad_norm > 1e-3, "{name}: {}", plain.steps[0].grad_norm);
            for scoring in [
                FAST,
                Scoring { head: FAST.head, ..PLAIN },
                Scoring { activations: Activations::KeptByLayer, ..FAST },
                Scoring { activations: Activations::Recomputed, ..FAST },
            ] {
                let other = train(&policy, trained.clone(), Kind::Float, scoring);
                assert_close(&plain, &other, &format!("{name}, {trained:?}, {scoring:?}"));
            }
            let low = train(&policy, trained, Kind::BFloat16, FAST);
            let apart = (low.steps[1].loss - plain.steps[1].loss).abs();
            assert!(apart < 0.1, "{name} in bfloat16: {apart}");
        }
    }
}
