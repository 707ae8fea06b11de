//! Errors name the fault in a folder or a request.

use std::path::{Path, PathBuf};

use policy_model::{GenerationOptions, GenerationRequest, ModelConfig, Policy, PolicyError, Sampling};
use seeds::Seeds;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn load(dir: &Path) -> Result<Policy, PolicyError> {
    Policy::load(dir, Kind::Float, Device::Cpu)
}

/// A copy of a fixture for modification.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A llama fixture whose tensors are rewritten by `change`.
fn with_tensors(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> tempfile::TempDir {
    let copy = copy_of("llama");
    let path = copy.path().join("model.safetensors");
    let mut tensors = Tensor::read_safetensors(&path).unwrap();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    change(&mut tensors);
    Tensor::write_safetensors(&tensors, &path).unwrap();
    copy
}

fn config_with(
    name: &str,
    change: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> Result<ModelConfig, PolicyError> {
    let text = std::fs::read(fixture(name).join("config.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    change(json.as_object_mut().unwrap());
    ModelConfig::from_json(json)
}

/// Returns the whole chain of messages, as a binary prints it.
fn message<T>(result: Result<T, PolicyError>) -> String {
    let Err(error) = result else { panic!("the input is bad, but was accepted") };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn absent_files_are_named() {
    let empty = tempfile::tempdir().unwrap();
    assert_says(&message(load(empty.path())), &["config.json", "No such file"]);
    std::fs::copy(fixture("llama/config.json"), empty.path().join("config.json")).unwrap();
    assert_says(&message(load(empty.path())), &["has no weights", "model.safetensors"]);
    std::fs::write(empty.path().join("pytorch_model.bin"), "").unwrap();
    assert_says(&message(load(empty.path())), &["python -c", "save_pretrained"]);
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    use std::os::unix::fs::symlink;
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("secret"), "s").unwrap();
    for name in ["config.json", "model.safetensors"] {
        let copy = copy_of("llama");
        std::fs::remove_file(copy.path().join(name)).unwrap();
        symlink(elsewhere.path().join("secret"), copy.path().join(name)).unwrap();
        assert_says(&message(load(copy.path())), &[name, "symbolic link", "secret"]);
    }
    // Files that a saved model takes over, among them those that this workspace does not read.
    for name in ["added_tokens.json", "generation_config.json", "additional_chat_templates"] {
        let copy = copy_of("llama");
        let policy = load(copy.path()).unwrap();
        let _ = std::fs::remove_file(copy.path().join(name));
        let target =
            if name.contains('.') { elsewhere.path().join("secret") } else { elsewhere.path().into() };
        symlink(target, copy.path().join(name)).unwrap();
        let saved = elsewhere.path().join("saved");
        let error = message(policy.save(&saved, Kind::Float, Some(copy.path())));
        assert_says(&error, &[name, "symbolic link", "secret"]);
        assert!(!saved.exists());
    }
}

#[test]
fn a_header_beyond_the_limit_is_refused_unread() {
    let copy = copy_of("llama");
    let path = copy.path().join("model.safetensors");
    let length = 4_u64 << 30;
    std::fs::write(&path, length.to_le_bytes()).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(8 + length).unwrap();
    assert_says(&message(load(copy.path())), &["model.safetensors", "header too large"]);
}

#[test]
fn a_missing_shard_is_named() {
    let copy = copy_of("mistral");
    std::fs::remove_file(copy.path().join("model-00002-of-00003.safetensors")).unwrap();
    assert_says(&message(load(copy.path())), &["open", "model-00002-of-00003.safetensors"]);
}

#[test]
fn tensors_outside_of_the_index_are_not_read() {
    let copy = copy_of("mistral");
    let shard = copy.path().join("model-00002-of-00003.safetensors");
    let mut tensors = Tensor::read_safetensors(&shard).unwrap();
    tensors.push(("model.norm.weight".to_owned(), Tensor::zeros([32], (Kind::Float, Device::Cpu))));
    tensors.push(("model.surprise".to_owned(), Tensor::zeros([2], (Kind::Int8, Device::Cpu))));
    Tensor::write_safetensors(&tensors, &shard).unwrap();
    Policy::inspect(copy.path()).unwrap();
    let (stale, clean) = (load(copy.path()).unwrap(), load(&fixture("mistral")).unwrap());
    for ((name, a), (_, b)) in stale.parameters().iter().zip(clean.parameters()) {
        assert!(a.equal(b), "{name}");
    }
}

#[test]
fn quantized_weights_are_refused_with_what_to_do() {
    for (method, says) in
        [("gptq", "from which they were made"), ("fp8", "dequantize=True"), ("bitsandbytes", "python -c")]
    {
        let refused = config_with("llama", |config| {
            config.insert("quantization_config".to_owned(), json!({ "quant_method": method }));
        });
        assert_says(&message(refused), &["config.json", method, says]);
    }
}

#[test]
fn architectures_that_are_known_but_not_implemented_say_why() {
    for (found, says) in
        [("qwen2_moe", "mixtures of experts"), ("gemma3", "images"), ("t5", "encoder-decoders")]
    {
        assert_says(
            &message(config_with("llama", |c| drop(c.insert("model_type".to_owned(), json!(found))))),
            &[says],
        );
    }
    let switch = |model_type: &str, key: &str, value: Value| {
        message(config_with("llama", |config| {
            config.insert("model_type".to_owned(), json!(model_type));
            config.insert(key.to_owned(), value);
        }))
    };
    assert_says(&switch("mixtral", "router_jitter_noise", json!(0.1)), &["router_jitter_noise", "0"]);
    assert_says(&switch("mixtral", "num_experts_per_tok", json!(9)), &["num_experts_per_tok", "8 experts"]);
    assert_says(&switch("qwen3_moe", "num_experts", json!(5000)), &["num_experts", "at most 1024"]);
    assert_says(&switch("qwen3_moe", "mlp_only_layers", json!(1)), &["mlp_only_layers", "list of layers"]);
    assert_says(
        &switch("ministral3", "rope_parameters", json!({"rope_type": "yarn", "factor": 2.0})),
        &["rope_parameters", "llama_4_scaling_beta"],
    );
    assert_says(
        &switch("gemma2", "use_bidirectional_attention", json!(true)),
        &["use_bidirectional_attention"],
    );
    assert_says(&switch("granite", "logits_scaling", json!(0)), &["logits_scaling", "above 0"]);
    assert_says(&switch("smollm3", "no_rope_layers", json!([1])), &["no_rope_layers", "2 layers"]);
    assert_says(
        &switch("ministral", "layer_types", json!(["chunked_attention", "x"])),
        &["layer_types", "full"],
    );
    assert_says(&switch("llama", "partial_rotary_factor", json!(0.5)), &["partial_rotary_factor", "1.0"]);
    assert_says(&switch("phi", "partial_rotary_factor", json!(1.5)), &["partial_rotary_factor", "share"]);
    let longrope = json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": []});
    assert_says(&switch("phi3", "rope_parameters", longrope), &["short_factor", "4 positive numbers"]);
    let nested = json!({"full_attention": {"rope_type": "default"}});
    assert_says(&switch("llama", "rope_parameters", nested), &["rope_parameters", "one set"]);
    let flat = json!({"rope_type": "default", "rope_theta": 10000.0});
    assert_says(&switch("gemma3_text", "rope_parameters", flat), &["rope_parameters", "full_attention"]);
}

#[test]
fn an_index_with_paths_outside_its_folder_is_refused() {
    let copy = copy_of("mistral");
    let index = copy.path().join("model.safetensors.index.json");
    std::fs::write(&index, r#"{"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}"#).unwrap();
    assert_says(&message(load(copy.path())), &["model.norm.weight", "not a file name"]);
    std::fs::write(&index, r#"{"weights": 1}"#).unwrap();
    assert_says(&message(load(copy.path())), &["weight_map"]);
    std::fs::write(&index, "{").unwrap();
    assert_says(&message(load(copy.path())), &["not valid JSON"]);
}

#[test]
fn truncated_weights_are_refused() {
    let copy = copy_of("llama");
    let path = copy.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 7, 8, 500, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        let result = load(copy.path());
        assert!(
            matches!(&result, Err(PolicyError::Truncated { found, .. }) if *found == keep as u64),
            "{keep} bytes"
        );
        assert_says(&message(result), &["model.safetensors", "incomplete"]);
    }
    let mut garbled = whole.clone();
    garbled[8] = b'!';
    std::fs::write(&path, garbled).unwrap();
    assert_says(&message(load(copy.path())), &["not a valid safetensors file"]);
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    const NORM: &str = "model.layers.1.input_layernorm.weight";
    let missing = with_tensors(|tensors| tensors.retain(|(name, _)| name != NORM));
    assert_says(&message(load(missing.path())), &["1 tensors are missing", NORM]);
    let renamed = with_tensors(|tensors| tensors.push(("model.surprise".to_owned(), Tensor::from(1_f32))));
    assert_says(&message(load(renamed.path())), &["not part of", "model.surprise"]);
    let reshaped = with_tensors(|tensors| {
        let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == NORM).unwrap();
        *tensor = Tensor::ones([31], (Kind::Float, Device::Cpu));
    });
    assert_says(&message(load(reshaped.path())), &[NORM, "[31]", "[32]"]);
    let quantized = with_tensors(|tensors| {
        let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == NORM).unwrap();
        *tensor = tensor.to_kind(Kind::Int8);
    });
    assert_says(&message(load(quantized.path())), &[NORM, "I8"]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    for (value, count) in [(f64::NAN, 1), (f64::INFINITY, 1)] {
        let broken = with_tensors(|tensors| {
            let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == "model.norm.weight").unwrap();
            let _ = tensor.get(5).fill_(value);
        });
        assert_says(
            &message(load(broken.path())),
            &["model.norm.weight", &format!("{count} NaN or infinite")],
        );
    }
    // 1e30 is finite in F32, but not in the requested F16.
    let large = with_tensors(|tensors| {
        let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == "model.norm.weight").unwrap();
        let _ = tensor.get(5).fill_(1e30);
    });
    assert!(load(large.path()).is_ok());
    assert_says(&message(Policy::load(large.path(), Kind::Half, Device::Cpu)), &["model.norm.weight"]);
}

#[test]
fn a_tied_head_may_be_stored_twice_but_not_differ() {
    let head = |tensors: &mut Vec<(String, Tensor)>, shift: f64| {
        let embedding = tensors.iter().find(|(name, _)| name == "model.embed_tokens.weight").unwrap();
        let head = &embedding.1 + shift;
        tensors.push(("lm_head.weight".to_owned(), head));
    };
    assert!(load(with_tensors(|tensors| head(tensors, 0.0)).path()).is_ok());
    assert_says(
        &message(load(with_tensors(|tensors| head(tensors, 1.0)).path())),
        &["ties", "lm_head.weight"],
    );
}

#[test]
fn configurations_are_refused_for_a_stated_reason() {
    let refused = |name: &str, key: &str, value: Value| {
        message(config_with(name, |config| {
            config.insert(key.to_owned(), value);
        }))
    };
    assert_says(
        &refused("llama", "model_type", json!("gpt2")),
        &["gpt2", "llama, mistral, ministral, ministral3, qwen2, qwen3"],
    );
    assert_says(&refused("llama", "vocab_size", json!(-3)), &["vocab_size", "-3", "positive"]);
    assert_says(
        &refused("llama", "num_hidden_layers", json!(2_000_000_000)),
        &["num_hidden_layers", "at most"],
    );
    assert_says(&refused("llama", "hidden_size", json!("64")), &["hidden_size", "\"64\""]);
    assert_says(
        &refused("llama", "num_key_value_heads", json!(3)),
        &["num_key_value_heads", "divisor of the 4"],
    );
    assert_says(&refused("llama", "head_dim", json!(7)), &["head_dim", "even"]);
    assert_says(&refused("llama", "hidden_act", json!("relu6")), &["hidden_act", "silu"]);
    assert_says(&refused("llama", "rope_parameters", json!({"rope_type": "mrope"})), &["mrope", "llama3"]);
    assert_says(
        &refused("llama", "rope_parameters", json!({"rope_type": "llama3"})),
        &["factor", "positive number"],
    );
    assert_says(
        &refused("mistral", "rope_scaling", json!({"type": "dynamic"})),
        &["factor", "positive number"],
    );
    assert_says(&refused("mistral", "rope_theta", json!("big")), &["rope_theta", "big"]);
    assert_says(&refused("qwen2", "layer_types", json!(["full_attention"])), &["layer_types", "2 layers"]);
    for field in ["model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"] {
        let absent = config_with("qwen3", |config| drop(config.remove(field)));
        assert_says(&message(absent), &["config.json", field]);
    }
    assert_says(&message(ModelConfig::from_json(json!([1]))), &["object"]);
}

#[test]
fn equivalent_configurations_agree() {
    let rope = |config: &ModelConfig| config.rope.clone();
    let new = config_with("llama", |_| ()).unwrap();
    let old = config_with("llama", |config| {
        let mut rope = config.remove("rope_parameters").unwrap();
        config.insert("rope_theta".to_owned(), rope.as_object_mut().unwrap().remove("rope_theta").unwrap());
        config.insert("rope_scaling".to_owned(), rope);
    })
    .unwrap();
    assert_eq!(rope(&new), rope(&old));
    assert_eq!(rope(&new).theta, 500_000.0);

    let qwen = |change: fn(&mut serde_json::Map<String, Value>)| config_with("qwen2", change).unwrap();
    assert_eq!([0, 1].map(|layer| qwen(|_| ()).window(layer)), [None, Some(5)]);
    assert_eq!(qwen(|c| drop(c.insert("use_sliding_window".to_owned(), json!(false)))).window(1), None);
    let mistral =
        config_with("mistral", |c| drop(c.insert("sliding_window".to_owned(), Value::Null))).unwrap();
    assert_eq!(mistral.window(0), None);
}

#[test]
fn invalid_requests_are_named() {
    let policy = load(&fixture("llama")).unwrap();
    let good = GenerationRequest {
        prompt: vec![1, 2],
        sampling: Sampling::greedy(2, vec![]),
        stream: Seeds::new(0).stream("s"),
    };
    let run = |change: fn(&mut GenerationRequest)| {
        let mut bad = good.clone();
        change(&mut bad);
        message(policy.generate(&[good.clone(), bad], &GenerationOptions { max_batch: 2 }))
    };
    assert_says(&run(|r| r.prompt.clear()), &["request 1", "no tokens"]);
    assert_says(&run(|r| r.prompt.push(96)), &["request 1", "token id 96 at position 2", "vocabulary of 96"]);
    assert_says(&run(|r| r.sampling.temperature = f64::NAN), &["request 1", "temperature"]);
    assert_says(&run(|r| r.sampling.top_p = 0.0), &["top_p"]);
    assert_says(&run(|r| r.sampling.top_k = Some(0)), &["top_k"]);
    assert_says(&run(|r| r.sampling.max_new_tokens = usize::MAX), &["request 1", "tokens"]);
    let none = GenerationRequest { sampling: Sampling::greedy(0, vec![]), ..good };
    let nothing = policy.generate(&[none], &GenerationOptions { max_batch: 2 }).unwrap();
    assert!(nothing[0].tokens.is_empty());
}

#[test]
fn nonfinite_weights_stop_generation() {
    let policy = load(&fixture("llama")).unwrap();
    // Loading refuses such weights; training may still produce them.
    let diverged =
        policy.parameters().iter().map(|(name, tensor)| (name.clone(), tensor * f64::NAN)).collect();
    let policy = Policy::from_parameters(policy.config().clone(), diverged).unwrap();
    let request = GenerationRequest {
        prompt: vec![1, 2],
        sampling: Sampling::greedy(2, vec![]),
        stream: Seeds::new(0).stream("s"),
    };
    let result = policy.generate(&[request], &GenerationOptions { max_batch: 1 });
    assert!(matches!(result, Err(PolicyError::NotANumber { index: 0, tokens: 0 })), "{result:?}");
}

#[test]
fn parameters_of_mixed_kinds_are_refused() {
    let policy = load(&fixture("llama")).unwrap();
    let mut parameters: Vec<_> =
        policy.parameters().iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    parameters[3].1 = parameters[3].1.to_kind(Kind::BFloat16);
    let result = Policy::from_parameters(policy.config().clone(), parameters);
    assert_says(&message(result), &["BFloat16", "Float", "layers.0.self_attn.k_proj"]);
    let integers = Policy::initialize(policy.config().clone(), &Seeds::new(0), Kind::Int64, Device::Cpu);
    assert_says(&message(integers), &["Int64", "BFloat16"]);
}

#[test]
fn a_failed_save_leaves_the_old_folder_and_nothing_else() {
    let policy = load(&fixture("llama")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("model");
    policy.save(&dir, Kind::Float, None).unwrap();
    let before = std::fs::read(dir.join("model.safetensors")).unwrap();
    // A tokenizer that cannot be copied fails the save after the weights are written.
    let companions = tempfile::tempdir().unwrap();
    std::fs::create_dir(companions.path().join("tokenizer.json")).unwrap();
    assert_says(
        &message(policy.save(&dir, Kind::BFloat16, Some(companions.path()))),
        &["read", "tokenizer.json"],
    );
    assert_eq!(std::fs::read(dir.join("model.safetensors")).unwrap(), before);
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1);
    assert_says(&message(policy.save(&dir, Kind::Int64, None)), &["Int64"]);
}

/// Simulates a full disk: a shell runs this test again with a limit on file sizes.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_no_files() {
    const INSIDE: &str = "POLICY_MODEL_FULL_DISK";
    if let Some(dir) = std::env::var_os(INSIDE) {
        let policy = load(&fixture("llama")).unwrap();
        assert_says(
            &message(policy.save(Path::new(&dir), Kind::Float, None)),
            &["cannot write", "model.safetensors"],
        );
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 16; exec "$0" --exact a_full_disk_leaves_no_files"#])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, out.path().join("model"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}
