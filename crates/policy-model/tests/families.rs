//! Compares tiny models of all families and rope types with transformers: log-probabilities, answers, gradients, saved folders.

use std::collections::BTreeMap;
use std::path::Path;

use policy_model::{
    Checkpointing, Family, Finish, Generation, GenerationOptions, GenerationRequest, LayerwiseBackward,
    ModelConfig, PackedRow, PackedRows, Policy, PolicyError, Rows, Sampling,
};
use recorded::{
    GRADIENT_FP32, ids, indices, largest_difference, packed_logps, policy, scored, slices, uniform, values,
};
use seeds::Seeds;
use serde::Deserialize;
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use test_support::LOGITS_FP32;

mod recorded;

/// The recording of `fixtures/make_families.py`.
#[derive(Deserialize)]
struct Recording {
    lengths: Vec<usize>,
    prompts: Vec<usize>,
    max_new_tokens: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    given: Value,
    config: Value,
    architecture: String,
    tensors: BTreeMap<String, Vec<i64>>,
    token_logps: Vec<Vec<f64>>,
    greedy: Vec<Vec<u32>>,
    gradients: BTreeMap<String, [f64; 2]>,
}

fn recording() -> Recording {
    // Tiny matrices gain nothing from threads, and tests run in parallel.
    tch::set_num_threads(1);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn sequences(recording: &Recording, policy: &Policy) -> Vec<Vec<u32>> {
    recording.lengths.iter().map(|length| ids(&format!("sequence {length}"), *length, policy)).collect()
}

#[test]
fn every_family_has_a_case() {
    let tested: Vec<String> =
        recording().cases.iter().map(|case| case.config["model_type"].as_str().unwrap().to_owned()).collect();
    for family in Family::ALL {
        assert!(tested.iter().any(|name| name == family.model_type()), "{family:?} has no case");
    }
}

#[test]
fn log_probabilities_and_tensors_match_transformers() {
    let recording = recording();
    for case in &recording.cases {
        let expected: Vec<f64> = case.token_logps.concat();
        for config in [&case.config, &case.given] {
            let policy = policy(config);
            let shapes: BTreeMap<String, Vec<i64>> = policy.config().parameter_shapes().into_iter().collect();
            assert_eq!(shapes, case.tensors, "{}", case.name);
            let count: i64 = case.tensors.values().map(|shape| shape.iter().product::<i64>()).sum();
            assert_eq!(policy.config().parameter_count(), count as u64, "{}", case.name);
            assert_eq!(policy.config().family.architecture(), case.architecture, "{}", case.name);

            let sequences = sequences(&recording, &policy);
            let packed = tch::no_grad(|| values(&packed_logps(&policy, &sequences)));
            let difference = largest_difference(&packed, &expected);
            assert!(difference < LOGITS_FP32, "{}, packed: {difference}", case.name);
            let padded = tch::no_grad(|| values(&padded_logps(&policy, &sequences)));
            let difference = largest_difference(&padded, &expected);
            // Padding lengthens rows, on which the frequencies of these depend.
            let is_by_length = matches!(case.name.as_str(), "phi3" | "phi3-partial" | "llama-dynamic");
            assert!(difference < LOGITS_FP32 || is_by_length, "{}, padded: {difference}", case.name);
        }
    }
}

fn padded_logps(policy: &Policy, sequences: &[Vec<u32>]) -> Tensor {
    let rows = Rows::causal(&slices(sequences), Device::Cpu);
    let hidden = policy.hidden_states(&rows).unwrap();
    let logps = sequences.iter().enumerate().map(|(row, ids)| {
        let length = ids.len() as i64 - 1;
        let targets = rows.ids.get(row as i64).narrow(0, 1, length);
        policy.token_logps(&hidden.get(row as i64).narrow(0, 0, length), &targets)
    });
    Tensor::cat(&logps.collect::<Vec<_>>(), 0)
}

#[test]
fn greedy_answers_match_transformers() {
    let recording = recording();
    for case in &recording.cases {
        let policy = policy(&case.config);
        let sampling = Sampling::greedy(recording.max_new_tokens, vec![2]);
        let request = |length: &usize| GenerationRequest {
            prompt: ids(&format!("prompt {length}"), *length, &policy),
            sampling: sampling.clone(),
            stream: Seeds::new(0).stream("unused"),
        };
        let requests: Vec<_> = recording.prompts.iter().map(request).collect();
        for max_batch in [1, 3] {
            let answers = policy.generate(&requests, &GenerationOptions { max_batch }).unwrap();
            let answers: Vec<Vec<u32>> = answers.into_iter().map(with_stop).collect();
            assert_eq!(answers, case.greedy, "{}, batches of {max_batch}", case.name);
        }
    }
}

fn with_stop(Generation { mut tokens, finish, .. }: Generation) -> Vec<u32> {
    if let Finish::Stop(token) = finish {
        tokens.push(token);
    }
    tokens
}

/// Removes and returns the gradients of all parameters.
fn take_gradients(policy: &Policy) -> BTreeMap<String, Tensor> {
    let take = |(name, tensor): &(String, Tensor)| {
        let gradient = tensor.grad();
        let gradient = if gradient.defined() { gradient.copy() } else { tensor.zeros_like() };
        tensor.shallow_clone().zero_grad();
        (name.clone(), gradient)
    };
    policy.parameters().iter().map(take).collect()
}

/// Computes the gradient one layer at a time, as the trainer does.
fn layerwise_gradients(
    policy: &Policy,
    rows: &PackedRows,
    (before, targets): (&Tensor, &Tensor),
    checkpointing: Checkpointing,
) -> BTreeMap<String, Tensor> {
    let embedded = tch::no_grad(|| policy.embed(&rows.ids));
    let layers: LayerwiseBackward<'_> =
        policy.packed_layerwise(&embedded, rows, Some(before), checkpointing).unwrap();
    policy.token_logps(layers.hidden_states(), targets).sum(Kind::Double).backward();
    let grad_output = layers.output().grad();
    let grad_embedded = layers
        .backward::<PolicyError>(grad_output, |_, [output, gradient], input| {
            (output * gradient).sum(Kind::Double).backward();
            Ok(input.grad())
        })
        .unwrap();
    let mut gradients = take_gradients(policy);
    let table = gradients.get_mut("model.embed_tokens.weight").unwrap();
    let _ = table.index_add_(0, &rows.ids, &grad_embedded);
    gradients
}

fn assert_same_gradients(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>, what: &str) {
    for (name, gradient) in expected {
        let norm = gradient.norm().double_value(&[]);
        let apart = (&found[name] - gradient).norm().double_value(&[]);
        assert!(apart <= GRADIENT_FP32 * norm.max(1e-3), "{what}, {name}: {apart} of {norm}");
    }
}

#[test]
fn gradients_match_transformers_in_every_layout() {
    let recording = recording();
    for case in &recording.cases {
        let policy = policy(&case.config);
        let sequences = sequences(&recording, &policy);
        packed_logps(&policy, &sequences).sum(Kind::Double).backward();
        let plain = take_gradients(&policy);
        for (name, [norm, along]) in &case.gradients {
            let gradient = &plain[name];
            let direction = Tensor::from_slice(&uniform(&format!("direction {name}"), gradient.numel()));
            let found_norm = gradient.to_kind(Kind::Double).norm().double_value(&[]);
            let found_along = gradient.to_kind(Kind::Double).view(-1).dot(&direction).double_value(&[]);
            let apart = (found_norm - norm).abs().max((found_along - along).abs());
            assert!(
                apart <= GRADIENT_FP32 * norm.max(1e-3) * direction.norm().double_value(&[]).max(1.0),
                "{}, {name}: norm {found_norm} instead of {norm}, {found_along} instead of {along}",
                case.name
            );
        }
        let rows = PackedRows::causal(&slices(&sequences), Device::Cpu);
        let (before, targets) = scored(&sequences);
        for checkpointing in [Checkpointing::Off, Checkpointing::PerLayer] {
            let by_layer = layerwise_gradients(&policy, &rows, (&before, &targets), checkpointing);
            assert_same_gradients(&by_layer, &plain, &format!("{}, {checkpointing:?}", case.name));
        }
        // Equally long, so that no padding lengthens a row.
        let same: Vec<Vec<u32>> = ["a", "b"].map(|name| ids(name, 13, &policy)).to_vec();
        packed_logps(&policy, &same).sum(Kind::Double).backward();
        let packed = take_gradients(&policy);
        padded_logps(&policy, &same).sum(Kind::Double).backward();
        assert_same_gradients(&take_gradients(&policy), &packed, &format!("{}, padded", case.name));
    }
}

#[test]
fn a_shared_prompt_has_the_gradient_of_separate_rows() {
    for case in &recording().cases {
        let policy = policy(&case.config);
        let (prompt, length) = (ids("prompt", 9, &policy), 5);
        let responses = ["chosen", "rejected"].map(|name| ids(name, length, &policy));
        let separate: Vec<Vec<u32>> = responses.iter().map(|ids| [prompt.as_slice(), ids].concat()).collect();
        let logps = packed_logps(&policy, &separate).view([2, -1]).narrow(1, 8, length as i64);
        logps.sum(Kind::Double).backward();
        let expected = take_gradients(&policy);

        let long = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect::<Vec<i64>>();
        let targets = long(&responses.concat());
        let rows = PackedRows {
            ids: indices(&[long(&prompt), targets.clone()].concat()),
            positions: indices(&[(0..14).collect::<Vec<i64>>(), (9..14).collect()].concat()),
            rows: vec![PackedRow { prefix: 9, continuations: vec![length, length] }],
            dropout: None,
            routing: None,
        };
        let before = indices(&[8, 9, 10, 11, 12, 8, 14, 15, 16, 17]);
        let hidden = policy.packed_hidden_states(&policy.embed(&rows.ids), &rows, Some(&before)).unwrap();
        let shared = policy.token_logps(&hidden, &indices(&targets));
        let apart = largest_difference(&values(&shared), &values(&logps));
        assert!(apart < LOGITS_FP32, "{}: {apart}", case.name);
        shared.sum(Kind::Double).backward();
        assert_same_gradients(&take_gradients(&policy), &expected, &case.name);
    }
}

#[test]
fn bfloat16_is_close_to_fp32() {
    let recording = recording();
    for case in &recording.cases {
        let policy = policy(&case.config);
        let low = policy.to_kind(Kind::BFloat16).unwrap();
        let sequences = sequences(&recording, &policy);
        let found = tch::no_grad(|| values(&packed_logps(&low, &sequences)));
        // bfloat16 has eight bits; three layers cause errors of a few ulps of logits around ten.
        let mean = found.iter().zip(case.token_logps.concat()).map(|(a, b)| (a - b).abs()).sum::<f64>()
            / found.len() as f64;
        assert!(mean > 0.0 && mean < 0.3, "{}: {mean}", case.name);
        let request = GenerationRequest {
            prompt: ids("prompt 7", 7, &policy),
            sampling: Sampling::greedy(12, Vec::new()),
            stream: Seeds::new(0).stream("unused"),
        };
        let answers = low.generate(&[request], &GenerationOptions { max_batch: 1 }).unwrap();
        assert_eq!(answers[0].tokens.len(), 12, "{}", case.name);
    }
}

#[test]
fn saved_folders_have_the_tensors_of_transformers() {
    let out = tempfile::tempdir().unwrap();
    for case in &recording().cases {
        let policy = policy(&case.config);
        let dir = out.path().join(&case.name);
        policy.save(&dir, Kind::Float, None).unwrap();
        let saved = Tensor::read_safetensors(dir.join("model.safetensors")).unwrap();
        let saved: BTreeMap<String, Vec<i64>> =
            saved.into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
        assert_eq!(saved, case.tensors, "{}", case.name);
        let again = Policy::load(&dir, Kind::Float, Device::Cpu).unwrap();
        for ((name, a), (_, b)) in policy.parameters().iter().zip(again.parameters()) {
            assert!(a.equal(b), "{}, {name}", case.name);
        }
        for (key, value) in case.config.as_object().unwrap() {
            assert_eq!(&again.config().raw()[key], value, "{}: {key}", case.name);
        }
    }
}

#[test]
fn initial_norms_are_neutral() {
    for case in &recording().cases {
        let config = ModelConfig::from_json(case.config.clone()).unwrap();
        let neutral = if config.family.model_type().starts_with("gemma") { 0.0 } else { 1.0 };
        let fresh = Policy::initialize(config, &Seeds::new(0), Kind::Float, Device::Cpu).unwrap();
        for (name, tensor) in fresh.parameters().iter().filter(|(name, _)| name.ends_with("norm.weight")) {
            assert!(values(tensor).iter().all(|&value| value == neutral), "{}: {name}", case.name);
        }
    }
}

/// What a family's models may have that is refused, by `model_type`.
const MISSING: [(&str, &str); 6] = [
    ("gemma", "bidirectional attention"),
    ("gemma2", "bidirectional attention; no fused attention, no tiled head"),
    ("gemma3_text", "bidirectional attention; images"),
    ("phi", "no tiled head"),
    ("mixtral", "adapters of experts"),
    ("qwen3_moe", "adapters of experts"),
];

/// The start and end of the table in `docs/models.md`.
const TABLE: [&str; 2] =
    ["<!-- table: UPDATE_MODELS=1 cargo test -p policy-model --test families -->\n", "<!-- end -->"];

#[test]
fn the_table_of_models_is_current() {
    let recording = recording();
    let mut table = "| `model_type` | class in transformers | models | checked in | largest difference | missing |\n|---|---|---|---|---|---|\n".to_owned();
    for family in Family::ALL {
        let cases: Vec<&Case> =
            recording.cases.iter().filter(|case| case.config["model_type"] == family.model_type()).collect();
        let difference = cases.iter().map(|case| {
            let policy = policy(&case.config);
            let found = tch::no_grad(|| values(&packed_logps(&policy, &sequences(&recording, &policy))));
            largest_difference(&found, &case.token_logps.concat())
        });
        let largest = difference.fold(0.0, f64::max);
        assert!(largest < LOGITS_FP32, "{family:?}: {largest}");
        let names = cases.iter().map(|case| format!("`{}`", case.name)).collect::<Vec<_>>().join(", ");
        let missing =
            MISSING.iter().find(|(name, _)| *name == family.model_type()).map_or("", |(_, what)| what);
        let (model_type, class) = (family.model_type(), family.architecture());
        table += &format!(
            "| `{model_type}` | `{class}` | {names} | score, train, decode, save | {largest:.0e} | {missing} |\n"
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/models.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(TABLE[0]).unwrap();
    let (found, after) = rest.split_once(TABLE[1]).unwrap();
    if std::env::var_os("UPDATE_MODELS").is_some() {
        std::fs::write(&path, [before, TABLE[0], &table, TABLE[1], after].concat()).unwrap();
        return;
    }
    // The differences themselves depend on the processor.
    let others = |table: &str| -> Vec<Vec<String>> {
        let cells = |line: &str| line.split(" | ").map(str::to_owned).collect::<Vec<_>>();
        let rows = table.lines().map(cells);
        rows.map(|mut row| {
            row.drain(4.min(row.len())..5.min(row.len()));
            row
        })
        .collect()
    };
    let update = "run `UPDATE_MODELS=1 cargo test -p policy-model --test families`";
    assert_eq!(others(found), others(&table), "{update}");
}
