//! A folder for the tests of programs that need a model.

use std::fs;
use std::path::PathBuf;

use policy_model::{ModelConfig, Policy};
use sandbox::Size;
use seeds::Seeds;
use tch::{Device, Kind};

/// A folder with a small model of the sandbox's type, preferences and a recipe.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let tokenizer = bench.path("tokenizer");
        fs::create_dir(&tokenizer).unwrap();
        let seeds = Seeds::new(0);
        let vocabulary = sandbox::write_tokenizer_folder(&tokenizer, &seeds).unwrap();
        let config = ModelConfig::from_json(sandbox::model_config(Size::Small, vocabulary)).unwrap();
        let policy = Policy::initialize(config, &seeds, Kind::Float, Device::Cpu).unwrap();
        policy.save(&bench.path("model"), Kind::Float, Some(&tokenizer)).unwrap();
        // As a model from elsewhere, which tests change.
        files::unseal(&bench.path("model")).unwrap();
        bench.write_pairs(&[("Say a .", "a .", "b ."), ("Say b .", "b .", "a ."), ("Say c .", "c .", "a .")]);
        let recipe = "[model]\npath = \"model\"\ndtype = \"float32\"\n[data]\npath = \"pairs.jsonl\"\n\
                      [train]\nepochs = 1\nbatch_size = 2\nmicro_batch_size = 2\ncheckpoints = [1.0]\n[output]\ndir = \"out\"\n";
        fs::write(bench.path("recipe.toml"), recipe).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_pairs(&self, pairs: &[(&str, &str, &str)]) {
        let line = |&(prompt, chosen, rejected): &(&str, &str, &str)| {
            serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string() + "\n"
        };
        fs::write(self.path("pairs.jsonl"), pairs.iter().map(line).collect::<String>()).unwrap();
    }
}
