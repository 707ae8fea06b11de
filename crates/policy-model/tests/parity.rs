//! Compares tiny random models of every family with transformers' results for the same folders.

use std::path::{Path, PathBuf};

use policy_model::{Finish, GenerationOptions, GenerationRequest, Policy, Rows, Sampling};
use seeds::Seeds;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use test_support::LOGITS_FP32;

const MODELS: [&str; 5] = ["llama", "llama-old", "mistral", "qwen2", "qwen3"];

/// The recording of `fixtures/make_tiny.py` for a model.
#[derive(Deserialize)]
struct Expected {
    sequences: Vec<Vec<u32>>,
    logits: Vec<Vec<f64>>,
    token_logps: Vec<Vec<f64>>,
    prompts: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
    max_new_tokens: usize,
    eos_token_id: u32,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn load(name: &str) -> (Policy, Expected) {
    // Tiny matrices gain nothing from threads, and tests run in parallel.
    tch::set_num_threads(1);
    let text = std::fs::read(folder(name).join("expected.json")).unwrap();
    let policy = Policy::load(&folder(name), Kind::Float, Device::Cpu).unwrap();
    (policy, serde_json::from_slice(&text).unwrap())
}

fn slices(rows: &[Vec<u32>]) -> Vec<&[u32]> {
    rows.iter().map(Vec::as_slice).collect()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn largest_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    // `max` on floats would drop a NaN.
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |largest, d| if d <= largest { largest } else { d })
}

#[test]
fn logits_and_token_logps_match_transformers() {
    for name in MODELS {
        let (policy, expected) = load(name);
        let rows = Rows::causal(&slices(&expected.sequences), Device::Cpu);
        let hidden = policy.hidden_states(&rows).unwrap();
        for (row, ids) in expected.sequences.iter().enumerate() {
            let length = ids.len() as i64;
            let states = hidden.get(row as i64).narrow(0, 0, length);
            let difference = largest_difference(&values(&policy.logits(&states)), &expected.logits[row]);
            assert!(difference < LOGITS_FP32, "{name}, sequence {row}: logits differ by {difference}");

            let targets = rows.ids.get(row as i64).narrow(0, 1, length - 1);
            let logps = policy.token_logps(&states.narrow(0, 0, length - 1), &targets);
            let difference = largest_difference(&values(&logps), &expected.token_logps[row]);
            assert!(
                difference < LOGITS_FP32,
                "{name}, sequence {row}: log-probabilities differ by {difference}"
            );
        }
    }
}

#[test]
fn greedy_continuations_match_transformers() {
    for name in MODELS {
        let (policy, expected) = load(name);
        let sampling = Sampling::greedy(expected.max_new_tokens, vec![expected.eos_token_id]);
        let stream = Seeds::new(0).stream("unused");
        let request = |prompt: &Vec<u32>| GenerationRequest {
            prompt: prompt.clone(),
            sampling: sampling.clone(),
            stream: stream.clone(),
        };
        let requests: Vec<_> = expected.prompts.iter().map(request).collect();
        for max_batch in [1, 2, 8] {
            let generations = policy.generate(&requests, &GenerationOptions { max_batch }).unwrap();
            for (row, (generation, expected)) in generations.iter().zip(&expected.greedy).enumerate() {
                let mut found = generation.tokens.clone();
                if let Finish::Stop(token) = generation.finish {
                    found.push(token);
                }
                assert_eq!(&found, expected, "{name}, prompt {row}, batches of {max_batch}");
                assert_eq!(generation.margins.len(), found.len());
            }
        }
    }
}
