//! Low-rank adapters against peft, and on disk.

use std::fs;
use std::path::{Path, PathBuf};

use policy_model::{Lora, Policy, PolicyError, Rows, Targets};
use seeds::Seeds;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use test_support::LOGITS_FP32;

/// The recording of `fixtures/make_lora.py`.
#[derive(Deserialize)]
struct Expected {
    base: String,
    sequences: Vec<Vec<u32>>,
    logits: Vec<Vec<f64>>,
    logits_off: Vec<Vec<f64>>,
    merged_name: String,
    merged: Vec<f64>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn load() -> (Policy, Policy, Expected) {
    tch::set_num_threads(1);
    let text = fs::read(fixtures().join("lora/expected.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&text).unwrap();
    let base = Policy::load(&fixtures().join(&expected.base), Kind::Float, Device::Cpu).unwrap();
    let adapted = base.load_adapters(&fixtures().join("lora")).unwrap();
    (base, adapted, expected)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

fn logits(policy: &Policy, ids: &[u32]) -> Vec<f64> {
    let hidden = policy.hidden_states(&Rows::causal(&[ids], Device::Cpu)).unwrap();
    values(&policy.logits(&hidden.squeeze_dim(0)))
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < LOGITS_FP32, "{what}, value {at}: {found} instead of {expected}");
    }
}

#[test]
fn adapters_match_peft_and_can_be_disabled() {
    let (base, adapted, expected) = load();
    let off = adapted.without_adapters().unwrap();
    for (row, ids) in expected.sequences.iter().enumerate() {
        assert_close(&logits(&adapted, ids), &expected.logits[row], "with adapters");
        assert_close(&logits(&off, ids), &expected.logits_off[row], "adapters off");
        assert_eq!(logits(&off, ids), logits(&base, ids), "the same weights compute the same bits");
    }
    assert_ne!(expected.logits, expected.logits_off, "the fixture's adapters do something");
}

#[test]
fn saving_merges_as_peft_does_and_keeps_the_adapters() {
    let (base, adapted, expected) = load();
    let out = tempfile::tempdir().unwrap();
    let (model, adapter) = (out.path().join("model"), out.path().join("adapter"));
    adapted.save(&model, Kind::Float, None).unwrap();
    adapted.save_adapters(&adapter, Kind::Float, &expected.base).unwrap();

    let merged = Policy::load(&model, Kind::Float, Device::Cpu).unwrap();
    let (_, weight) = merged.parameters().iter().find(|(name, _)| *name == expected.merged_name).unwrap();
    assert_close(&values(weight), &expected.merged, "merged weight");
    let again = base.load_adapters(&adapter).unwrap();
    for ((name, a), (_, b)) in
        adapted.adapters().unwrap().parameters().iter().zip(again.adapters().unwrap().parameters())
    {
        assert!(a.equal(b), "{name}");
    }
    for (row, ids) in expected.sequences.iter().enumerate() {
        assert_close(&logits(&merged, ids), &expected.logits[row], "merged");
        assert_eq!(logits(&again, ids), logits(&adapted, ids), "sequence {row}");
    }
    assert!(matches!(base.save_adapters(&adapter, Kind::Float, "x"), Err(PolicyError::NoAdapters)));
}

#[test]
fn initial_adapters_change_no_bit_and_get_all_gradients() {
    let (base, _, expected) = load();
    let lora = Lora::new(2, 4.0, Targets::AllLinear);
    let fresh = base.initial_adapters(&lora, &Seeds::new(0)).unwrap();
    assert_eq!(fresh.len(), 2 * 7 * base.config().layers);
    let elements: usize = fresh.iter().map(|(_, tensor)| tensor.numel()).sum();
    assert_eq!(elements as u64, lora.parameter_count(base.config()));
    let leaves: Vec<(String, Tensor)> =
        fresh.into_iter().map(|(name, tensor)| (name, tensor.set_requires_grad(true))).collect();
    let policy = base.with_adapters(lora.clone(), leaves).unwrap();
    let ids = &expected.sequences[0];
    assert_eq!(logits(&policy, ids), logits(&base, ids), "B is zero");

    let mixed = base.initial_adapters(&lora, &Seeds::new(0)).unwrap().into_iter().map(|(name, tensor)| {
        let kind = if name.contains("lora_B") { Kind::BFloat16 } else { Kind::Float };
        (name, tensor.to_kind(kind))
    });
    let refused = base.with_adapters(lora, mixed.collect()).unwrap_err();
    assert!(matches!(refused, PolicyError::MixedParameters { .. }), "{refused}");

    let hidden = policy.hidden_states(&Rows::causal(&[ids], Device::Cpu)).unwrap();
    hidden.square().sum(Kind::Float).backward();
    for (name, tensor) in policy.adapters().unwrap().parameters() {
        let moved = tensor.grad().abs().max().double_value(&[]) > 0.0;
        assert_eq!(moved, name.contains("lora_B"), "A has no gradient while B is zero: {name}");
    }
    assert!(policy.parameters().iter().all(|(_, weight)| !weight.requires_grad()));
}

#[test]
fn unsupported_keys_are_refused_by_name() {
    let (base, _, _) = load();
    let original = fs::read(fixtures().join("lora/adapter_config.json")).unwrap();
    let original: serde_json::Value = serde_json::from_slice(&original).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let weights = "adapter_model.safetensors";
    fs::copy(fixtures().join("lora").join(weights), dir.path().join(weights)).unwrap();
    for (key, value, says) in [
        ("use_dora", serde_json::json!(true), "tensors are missing"),
        ("alpha_pattern", serde_json::json!({"q_proj": "2"}), "`alpha_pattern` is"),
        ("rank_pattern", serde_json::json!({"q_proj": 0}), "`rank_pattern` is"),
        ("rank_pattern", serde_json::json!({"(q": 1}), "is no regular expression"),
        (
            "rank_pattern",
            serde_json::json!({"q_proj": 2}),
            "has shape [3, 32], but the configuration implies [2, 32]",
        ),
        ("lora_dropout", serde_json::json!(1.0), "`lora_dropout` is 1.0"),
        ("exclude_modules", serde_json::json!(["q_proj"]), "`exclude_modules` is"),
        ("peft_type", serde_json::json!("IA3"), "`peft_type` is \"IA3\""),
        ("bias", serde_json::json!("all"), "`bias` is \"all\""),
        ("modules_to_save", serde_json::json!("lm_head"), "`modules_to_save` is \"lm_head\""),
        ("modules_to_save", serde_json::json!(["lm_head"]), "`lm_head` is tied"),
        ("modules_to_save", serde_json::json!(["score"]), "no module `score`"),
        ("r", serde_json::json!(0), "`r` is 0"),
        ("lora_alpha", serde_json::Value::Null, "has no `lora_alpha`"),
        ("target_modules", serde_json::json!([]), "`target_modules` is []"),
        ("target_modules", serde_json::json!(["embed_tokens"]), "each of its layers has q_proj, k_proj"),
        ("target_modules", serde_json::json!("(q_proj"), "is no regular expression"),
        ("target_modules", serde_json::json!(["q_proj"]), "are not part of a model"),
        ("target_modules", serde_json::json!("all-linear"), "tensors are missing"),
        ("r", serde_json::json!(4), "has shape [3, 32], but the configuration implies [4, 32]"),
    ] {
        let mut config = original.clone();
        config[key] = value;
        fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
        let error = base.load_adapters(dir.path()).unwrap_err().to_string();
        assert!(error.contains(says), "{key}: {error}");
        assert!(error.contains("adapter"), "the file is missing in: {error}");
    }
    let missing = base.load_adapters(&fixtures().join("qwen2")).unwrap_err().to_string();
    assert!(missing.contains("adapter_config.json"), "{missing}");
}

#[test]
fn rank_stabilized_adapters_have_another_scale() {
    let (base, adapted, _) = load();
    let dir = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(fixtures().join("lora/adapter_config.json")).unwrap();
    let config = config.replace("\"use_rslora\": false", "\"use_rslora\": true");
    fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    let weights = "adapter_model.safetensors";
    fs::copy(fixtures().join("lora").join(weights), dir.path().join(weights)).unwrap();
    let stabilized = base.load_adapters(dir.path()).unwrap();
    let scale = |policy: &Policy| policy.adapters().unwrap().lora().scale_of("q_proj");
    assert!((scale(&stabilized) - scale(&adapted) * 3f64.sqrt()).abs() < 1e-12);
}

#[test]
fn another_kind_copies_weights_and_keeps_that_of_adapters() {
    let (_, adapted, expected) = load();
    let low = adapted.to_kind(Kind::BFloat16).unwrap();
    assert_eq!(low.kind(), Kind::BFloat16);
    let (_, a) = &low.adapters().unwrap().parameters()[0];
    assert_eq!(a.kind(), Kind::Float, "adapters keep their kind");
    let (low, full) = (logits(&low, &expected.sequences[0]), logits(&adapted, &expected.sequences[0]));
    let largest = full.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    let differs = low.iter().zip(&full).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(differs > 0.0 && differs < 0.1 * largest, "{differs} of {largest}");
}
