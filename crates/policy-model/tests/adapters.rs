//! Compares all variants of adapters with peft: log-probabilities, gradients, merged weights, saved folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use policy_model::{AdapterDropout, PackedRows, Policy, PolicyError, model_folders};
use recorded::{
    GRADIENT_FP32, ids, largest_difference, packed_logps, policy, scored, slices, uniform, values,
};
use serde::Deserialize;
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use test_support::LOGITS_FP32;

mod recorded;

/// The recording of `fixtures/make_adapters.py`.
#[derive(Deserialize)]
struct Case {
    name: String,
    base: String,
    config: Value,
    tensors: BTreeMap<String, Vec<i64>>,
    token_logps: Vec<f64>,
    merged_logps: Vec<f64>,
    gradients: BTreeMap<String, [f64; 2]>,
}

/// The prefix of names in peft.
const PREFIX: &str = "base_model.model.";

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns each case with its base.
fn cases() -> Vec<(Case, Policy)> {
    tch::set_num_threads(1);
    let families = read("families.json");
    let config_of = |base: &str| {
        let mut families = families["cases"].as_array().unwrap().iter();
        families.find(|family| family["name"] == base).unwrap()["config"].clone()
    };
    let cases: Vec<Case> = serde_json::from_value(read("adapters.json")["cases"].take()).unwrap();
    cases
        .into_iter()
        .map(|case| (policy(&config_of(&case.base)), case))
        .map(|(base, case)| (case, base))
        .collect()
}

fn tensor(name: &str, shape: &[i64]) -> Tensor {
    let is_length = name.contains("magnitude") || name.contains("norm") && !name.ends_with("bias");
    let values = uniform(name, shape.iter().product::<i64>() as usize).into_iter().map(|x| x as f32);
    let values: Vec<f32> = values.map(|x| if is_length { 1.0 + 0.4 * x } else { 0.3 * x }).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Writes the folder that peft writes for a case.
fn write_folder(case: &Case, dir: &Path) {
    std::fs::write(dir.join("adapter_config.json"), case.config.to_string()).unwrap();
    let tensors: Vec<(String, Tensor)> =
        case.tensors.iter().map(|(name, shape)| (name.clone(), tensor(name, shape))).collect();
    Tensor::write_safetensors(&tensors, dir.join("adapter_model.safetensors")).unwrap();
}

/// Returns the policy with the adapters of a case as leaves.
fn adapted(case: &Case, base: &Policy) -> Policy {
    let dir = tempfile::tempdir().unwrap();
    write_folder(case, dir.path());
    let loaded = base.load_adapters(dir.path()).unwrap();
    let adapters = loaded.adapters().unwrap();
    let leaf = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.detach().set_requires_grad(true));
    base.with_adapters(adapters.lora().clone(), adapters.parameters().iter().map(leaf).collect()).unwrap()
}

fn sequences(policy: &Policy) -> [Vec<u32>; 3] {
    [27, 9, 14].map(|length| ids(&format!("sequence {length}"), length, policy))
}

fn logps(policy: &Policy) -> Tensor {
    packed_logps(policy, &sequences(policy))
}

/// Returns the log-probabilities in training, with the masks of the script.
fn training_logps(policy: &Policy) -> Tensor {
    let sequences = sequences(policy);
    let mut rows = PackedRows::causal(&slices(&sequences), Device::Cpu);
    rows.dropout = Some(AdapterDropout::new(9, (0..rows.ids.size()[0] as u64).collect()));
    let (before, targets) = scored(&sequences);
    let hidden = policy.packed_hidden_states(&policy.embed(&rows.ids), &rows, Some(&before)).unwrap();
    policy.token_logps(&hidden, &targets)
}

#[test]
fn log_probabilities_and_gradients_match_peft() {
    for (case, base) in cases() {
        let policy = adapted(&case, &base);
        let found = training_logps(&policy);
        let drops = policy.adapters().unwrap().lora().dropout > 0.0;
        assert_eq!(drops, values(&found) != values(&logps(&policy)), "{}", case.name);
        let apart = largest_difference(&values(&found), &case.token_logps);
        assert!(apart < LOGITS_FP32, "{}: {apart}", case.name);
        assert_ne!(values(&logps(&base)), values(&found), "{}: the adapters do something", case.name);

        found.sum(Kind::Double).backward();
        let parameters = policy.adapters().unwrap().parameters();
        let names: BTreeSet<String> = parameters.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect();
        assert!(names.iter().eq(case.gradients.keys()), "{}: {names:?}", case.name);
        let count: usize = parameters.iter().map(|(_, tensor)| tensor.numel()).sum();
        let lora = policy.adapters().unwrap().lora();
        assert_eq!(lora.parameter_count(policy.config()), count as u64, "{}", case.name);
        for (name, tensor) in parameters {
            let name = format!("{PREFIX}{name}");
            let [norm, along] = case.gradients[&name];
            let gradient = tensor.grad().to_kind(Kind::Double);
            let direction = Tensor::from_slice(&uniform(&format!("direction {name}"), gradient.numel()));
            let found_norm = gradient.norm().double_value(&[]);
            let found_along = gradient.view(-1).dot(&direction).double_value(&[]);
            let apart = (found_norm - norm).abs().max((found_along - along).abs());
            assert!(
                apart <= GRADIENT_FP32 * norm.max(1e-2) * direction.norm().double_value(&[]).max(1.0),
                "{}, {name}: norm {found_norm} instead of {norm}, {found_along} instead of {along}",
                case.name
            );
        }
    }
}

#[test]
fn merged_folders_match_peft() {
    let out = tempfile::tempdir().unwrap();
    for (case, base) in cases() {
        let dir = out.path().join(&case.name);
        adapted(&case, &base).save(&dir, Kind::Float, None).unwrap();
        let merged = Policy::load(&dir, Kind::Float, Device::Cpu).unwrap();
        assert!(merged.adapters().is_none());
        let apart = largest_difference(&tch::no_grad(|| values(&logps(&merged))), &case.merged_logps);
        assert!(apart < LOGITS_FP32, "{}: {apart}", case.name);
    }
}

#[test]
fn a_folder_of_adapters_is_read_with_its_base() {
    let out = tempfile::tempdir().unwrap();
    for (mut case, base) in cases() {
        let (base_dir, dir) = (out.path().join("base"), out.path().join("adapters"));
        std::fs::create_dir_all(&dir).unwrap();
        base.save(&base_dir, Kind::Float, None).unwrap();
        case.config["base_model_name_or_path"] = "../base".into();
        write_folder(&case, &dir);
        Policy::inspect(&dir).unwrap();
        assert_eq!(Policy::stored_kind(&dir).unwrap(), Some(Kind::Float));
        let merged = Policy::load(&dir, Kind::Float, Device::Cpu).unwrap();
        let apart = largest_difference(&tch::no_grad(|| values(&logps(&merged))), &case.merged_logps);
        assert!(apart < LOGITS_FP32, "{}: {apart}", case.name);
        let mut visited = Vec::new();
        let visit = |name: String, weight: Tensor| {
            visited.push((name, weight));
            Ok::<(), PolicyError>(())
        };
        Policy::read_parameters(&dir, Kind::Float, Device::Cpu, visit).unwrap();
        assert_eq!(visited.len(), merged.parameters().len());
        assert!(
            visited.iter().zip(merged.parameters()).all(|(one, other)| one.0 == other.0 && one.1 == other.1)
        );
        assert_eq!(model_folders(&dir).unwrap().len(), 2);
        assert_eq!(model_folders(&base_dir).unwrap(), std::slice::from_ref(&base_dir));

        case.config["base_model_name_or_path"] = "org/model".into();
        write_folder(&case, &dir);
        let error = Policy::load(&dir, Kind::Float, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("adapter_config.json") && error.contains("org/model"), "{error}");
    }
}

#[test]
fn saved_adapters_have_the_tensors_of_peft() {
    let out = tempfile::tempdir().unwrap();
    for (case, base) in cases() {
        let dir = out.path().join(&case.name);
        let policy = adapted(&case, &base);
        policy.save_adapters(&dir, Kind::Float, &case.base).unwrap();
        let saved = Tensor::read_safetensors(dir.join("adapter_model.safetensors")).unwrap();
        for (name, found) in &saved {
            assert!(found.equal(&tensor(name, &case.tensors[name])), "{}: {name}", case.name);
        }
        assert_eq!(saved.len(), case.tensors.len(), "{}", case.name);
        let config = std::fs::read(dir.join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        for key in ["r", "use_rslora", "use_dora", "base_model_name_or_path", "rank_pattern", "lora_dropout"]
        {
            assert_eq!(config[key], case.config[key], "{}: {key}", case.name);
        }
        assert_eq!(config["lora_alpha"], 7.0);
        let again = base.load_adapters(&dir).unwrap();
        assert_eq!(values(&logps(&again)), values(&logps(&policy)), "{}", case.name);
    }
}

#[test]
fn initial_adapters_of_all_variants_change_nothing() {
    for (case, base) in cases() {
        let mut lora = adapted(&case, &base).adapters().unwrap().lora().clone();
        if case.name == "patterns" {
            let error = lora.check_patterns(base.config()).unwrap_err().to_string();
            assert!(error.contains("no target of adapters matches \"^v_proj\""), "{error}");
            lora.rank_pattern.remove(0);
            let error = lora.check_patterns(base.config()).unwrap_err().to_string();
            assert!(error.contains("`model.layers.0.self_attn.q_proj` matches both"), "{error}");
            lora.rank_pattern = vec![lora.rank_pattern.swap_remove(1)];
            lora.alpha_pattern.clear();
            lora.check_patterns(base.config()).unwrap();
        }
        let fresh = base.initial_adapters(&lora, &seeds::Seeds::new(0)).unwrap();
        let policy = base.with_adapters(lora, fresh).unwrap();
        let apart = largest_difference(&values(&logps(&policy)), &values(&logps(&base)));
        assert!(apart < LOGITS_FP32, "{}: {apart}", case.name);
    }
}
