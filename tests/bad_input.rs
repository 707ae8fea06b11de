//! Bad input gets a clear error and exit status 2, and leaves nothing half-written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use policy_model::{ModelConfig, Policy};
use sandbox::Size;
use seeds::Seeds;
use tch::{Device, Kind, Tensor};

/// A folder with a small model of the sandbox's kind, preferences and a recipe.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let tokenizer = bench.path("tokenizer");
        fs::create_dir(&tokenizer).unwrap();
        let seeds = Seeds::new(0);
        let vocabulary = sandbox::write_tokenizer_folder(&tokenizer, &seeds).unwrap();
        let config = ModelConfig::from_json(sandbox::model_config(Size::Small, vocabulary)).unwrap();
        let policy = Policy::initialise(config, &seeds, Kind::Float, Device::Cpu).unwrap();
        policy.save(&bench.path("model"), Kind::Float, Some(&tokenizer)).unwrap();
        bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", "b .", "a ."), ("Say c .", "c .", "a .")]);
        let recipe = "[model]\npath = \"model\"\ndtype = \"float32\"\n[data]\npath = \"pairs.jsonl\"\n\
                      [train]\nepochs = 1\nbatch_size = 2\nmicro_batch_size = 2\ncheckpoints = [1.0]\n[output]\ndir = \"out\"\n";
        fs::write(bench.path("recipe.toml"), recipe).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_pairs(&self, pairs: &[(&str, &str, &str)]) {
        let line = |&(prompt, chosen, rejected): &(&str, &str, &str)| {
            serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string() + "\n"
        };
        fs::write(self.path("pairs.jsonl"), pairs.iter().map(line).collect::<String>()).unwrap();
    }

    fn train(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pref-train"))
            .args(["--recipe", "recipe.toml"])
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    /// Asserts exit status 2, words on stderr, and no output folder.
    fn refuses(&self, arguments: &[&str], words: &[&str]) {
        let output = self.train(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(!self.path("out").exists(), "nothing is written for input that cannot be used");
    }
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn good_input_trains() {
    let bench = Bench::new();
    let output = bench.train(&[]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("loss 0.6931"), "{stdout}");
    assert!(bench.path("out/model/config.json").exists());
    assert!(bench.path("out/model/tokenizer.json").exists(), "the model folder is whole");
    let again = bench.train(&[]);
    assert_eq!(again.status.code(), Some(2), "a finished run is not overwritten");
    assert!(bench.train(&["--resume"]).status.success(), "resuming it does nothing");
}

#[test]
fn unknown_recipe_keys_name_the_nearest_known_one() {
    let bench = Bench::new();
    bench.refuses(&["--set", "train.learning_rat=1e-4"], &["learning_rat", "learning_rate"]);
    bench.refuses(&["--set", "los.beta=0.1"], &["los", "loss"]);
    bench.refuses(&["--set", "loss.beta=-1"], &["beta"]);
    bench.refuses(&["--set", "lora.rank=8"], &["rank", "not supported"]);
}

#[test]
fn models_that_cannot_be_used() {
    let bench = Bench::new();
    bench.refuses(&["--set", "model.path=nowhere"], &["nowhere"]);

    let weights = bench.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::remove_file(&weights).unwrap();
    bench.refuses(&[], &["model", "safetensors"]);
    fs::write(&weights, &whole).unwrap();
    truncate(&weights);
    bench.refuses(&[], &["model.safetensors"]);
    fs::write(&weights, &whole).unwrap();

    let config = bench.path("model/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("\"llama\"", "\"mamba\"")).unwrap();
    bench.refuses(&[], &["mamba", "qwen3"]);
}

#[test]
fn weights_that_are_no_numbers() {
    let bench = Bench::new();
    let path = bench.path("model");
    let policy = Policy::load(&path, Kind::Float, Device::Cpu).unwrap();
    let parameters: Vec<(String, Tensor)> = policy
        .parameters()
        .iter()
        .map(|(name, tensor)| {
            let mut tensor = tensor.copy();
            if name.contains("layers.1.mlp.up_proj") {
                let _ = tensor.fill_(f64::NAN);
            }
            (name.clone(), tensor)
        })
        .collect();
    // Our own writer is not asked to write NaN: the file is damaged behind its back.
    let named: Vec<(&str, &Tensor)> = parameters.iter().map(|(n, t)| (n.as_str(), t)).collect();
    Tensor::write_safetensors(&named, path.join("model.safetensors")).unwrap();
    bench.refuses(&[], &["layers.1.mlp.up_proj", "NaN"]);
}

#[test]
fn data_that_cannot_be_used() {
    let bench = Bench::new();
    bench.refuses(&["--set", "data.path=nothing.jsonl"], &["nothing.jsonl"]);
    bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", "", "a .")]);
    bench.refuses(&[], &["pairs.jsonl", "line 2", "chosen", "empty"]);
    fs::write(
        bench.path("pairs.jsonl"),
        "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\"prompt\": \n",
    )
    .unwrap();
    bench.refuses(&[], &["pairs.jsonl", "line 2"]);
}

#[test]
fn an_unknown_annotator_is_answered_with_the_known_ones() {
    let bench = Bench::new();
    bench.refuses(&["--set", "data.annotator=gpt-5"], &["gpt-5", "human"]);
}

/// A file-size limit stands in for a full disk: writes beyond it fail in the same way, without root.
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let bench = Bench::new();
    // 100 KiB hold metrics and recipe, but no checkpoint of 0.13M parameters.
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{}' --recipe recipe.toml",
        env!("CARGO_BIN_EXE_pref-train")
    );
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(bench.folder.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write"), "{stderr}");
    assert!(!bench.path("out/model").exists());
    let left = fs::read_dir(bench.path("out/checkpoints")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no half-written checkpoint stays");
    // With room again the same run goes on and ends.
    let output = bench.train(&["--resume"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
