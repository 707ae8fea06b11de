//! The load-balancing loss of a mixture of experts against transformers, and in all options of scoring.

mod common;
#[path = "../../policy-model/tests/recorded/mod.rs"]
#[expect(dead_code, reason = "this test needs weights and tokens only")]
mod recorded;

use std::path::Path;

use common::Record;
use policy_model::Policy;
use pref_data::{Dialogue, Layout, Padding, TokenPair};
use pref_loss::{Beta, PreferenceLoss};
use recorded::{ids, policy};
use seeds::Seeds;
use serde_json::Value;
use tch::Kind;
use trainer::{
    Activations, AdamWSettings, Decay, Head, Length, MicroBatch, MomentKind, Objective, Order,
    PreferenceObjective, Scoring, SequenceLogps, StepMetrics, SupervisedObjective, TrainSettings, Trained,
    Trainer,
};

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy-model/tests/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns each recorded case with its policy.
fn cases() -> Vec<(Value, Policy)> {
    tch::set_num_threads(1);
    let (families, recording) = (read("families.json"), read("router.json"));
    let coefficient = recording["coefficient"].as_f64().unwrap();
    let policy = |case: &Value| {
        let mut families = families["cases"].as_array().unwrap().iter();
        let family = families.find(|family| family["name"] == case["name"]).unwrap();
        policy(&family["config"]).with_router_loss(coefficient)
    };
    recording["cases"].as_array().unwrap().iter().map(|case| (case.clone(), policy(case))).collect()
}

/// Returns the metrics of a step that changes nothing.
fn step(policy: &Policy, objective: &dyn Objective, micro_batch: usize) -> StepMetrics {
    let settings = TrainSettings {
        length: Length::Steps(1),
        batch_size: objective.examples(),
        micro_batch: MicroBatch::Examples(micro_batch),
        learning_rate: 0.0,
        warmup_ratio: 0.0,
        decay: Decay::Linear,
        adamw: AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            moments: MomentKind::Float,
        },
        max_grad_norm: 0.0,
        checkpoints: vec![1.0],
        kind: Kind::Float,
        trained: Trained::All,
        order: Order::AsGiven,
        seeds: Seeds::new(0),
    };
    let mut record = Record::default();
    Trainer::new(policy, objective, settings).unwrap().run(&mut record).unwrap();
    record.steps.remove(0)
}

fn is_close(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 2e-4 * expected.abs().max(1e-3)
}

const ACTIVATIONS: [Activations; 3] = [Activations::Kept, Activations::KeptByLayer, Activations::Recomputed];

#[test]
fn loss_and_gradient_are_those_of_transformers() {
    for (case, policy) in cases() {
        let sequences = [27, 9, 14].map(|length| ids(&format!("sequence {length}"), length, &policy));
        let dialogues = sequences.map(|ids| Dialogue::completion(&ids[..1], &ids[1..]).unwrap());
        let number = |key: &str| case[key].as_f64().unwrap();
        let without = policy.to_kind(Kind::Float).unwrap().with_router_loss(0.0);
        for padding in [Padding::None, Padding::Right(0)] {
            for activations in ACTIVATIONS {
                let objective =
                    SupervisedObjective { dialogues: &dialogues, padding, head: Head::Chunked, activations };
                let found = step(&policy, &objective, 3);
                let what = format!("{}, {padding:?}, {activations:?}: {found:?}", case["name"]);
                assert!(is_close(found.loss, number("loss")), "{what}");
                assert!(is_close(found.grad_norm, number("grad_norm")), "{what}");
                let plain = step(&without, &objective, 3);
                assert!(is_close(found.loss - plain.loss, 0.5 * number("aux_loss")), "{what}");
                assert!(!is_close(found.grad_norm, plain.grad_norm), "{what}");
            }
        }
    }
}

#[test]
fn a_shared_prompt_counts_for_both_responses() {
    for (case, policy) in cases() {
        let pair = |name: &str| TokenPair {
            id: name.to_owned(),
            prompt: ids(&format!("prompt {name}"), 6, &policy),
            chosen: ids(&format!("chosen {name}"), 4, &policy),
            rejected: ids(&format!("rejected {name}"), 5, &policy),
            flipped: false,
        };
        let pairs = ["a", "b", "c"].map(pair);
        let run = |layout, padding, activations, micro_batch| {
            let scoring = Scoring { layout, padding, head: Head::Chunked, activations };
            let reference = SequenceLogps::compute(&policy, &pairs, scoring, |_| {}).unwrap();
            let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() }.into();
            let reference = Some(&reference);
            let objective = PreferenceObjective { pairs: &pairs, reference, loss, kl_pairs: None, scoring };
            step(&policy, &objective, micro_batch)
        };
        let expected = run(Layout::Separate, Padding::None, Activations::Kept, 3);
        assert!(expected.loss > std::f64::consts::LN_2 + 0.1, "{}: {}", case["name"], expected.loss);
        for layout in [Layout::SharedPrompt, Layout::Separate] {
            for padding in [Padding::None, Padding::Right(0)] {
                for activations in ACTIVATIONS {
                    let found = run(layout, padding, activations, 3);
                    let what = format!("{}, {layout:?}, {padding:?}, {activations:?}", case["name"]);
                    assert!(is_close(found.loss, expected.loss), "{what}: {} {}", found.loss, expected.loss);
                    assert!(is_close(found.grad_norm, expected.grad_norm), "{what}: {found:?} {expected:?}");
                }
            }
        }
        // Each micro-batch is balanced on its own, as in TRL.
        let alone = run(Layout::SharedPrompt, Padding::None, Activations::Kept, 1);
        assert!(alone.loss > std::f64::consts::LN_2 + 0.1);
    }
}
