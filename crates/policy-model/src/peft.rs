//! Adapters on disk, in the two files that Hugging Face's peft reads and writes.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::lora::{Lora, Projection};
use crate::save::{replace_folder, write_json, write_tensors};
use crate::weights::read_file;
use crate::{Policy, PolicyError};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// What peft puts before the name of a module: its own wrapper's place, then the causal language model's.
const PREFIX: &str = "base_model.model.";

impl Policy {
    /// Writes the adapters as a folder that peft opens: `adapter_config.json` and `adapter_model.safetensors` in `kind`.
    /// `base` is what the configuration names as the model below them. The folder appears whole or not at all.
    ///
    /// # Errors
    /// [`PolicyError::NoAdapters`]; `kind` is no kind of weights, or a file cannot be written.
    pub fn save_adapters(&self, dir: &Path, kind: Kind, base: &str) -> Result<(), PolicyError> {
        let adapters = self.adapters().ok_or(PolicyError::NoAdapters)?;
        let name = |name: &String| format!("{PREFIX}{name}");
        let parameters = adapters.parameters().iter().map(|(n, tensor)| (name(n), tensor.shallow_clone()));
        let parameters: Vec<(String, Tensor)> = parameters.collect();
        replace_folder(dir, |folder| {
            write_json(&folder.join(CONFIG), &config(adapters.lora(), base))?;
            write_tensors(&folder.join(WEIGHTS), &parameters, kind)
        })
    }

    /// This policy with the adapters of a folder that peft or [`Policy::save_adapters`] wrote, in this policy's kind.
    ///
    /// # Errors
    /// The folder holds no low-rank adapters for a model of this shape, or some that this crate does not compute: the message
    /// names the file and the key or tensor.
    pub fn load_adapters(&self, dir: &Path) -> Result<Self, PolicyError> {
        let path = dir.join(CONFIG);
        let text = std::fs::read(&path).map_err(PolicyError::io("read", &path))?;
        let json: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|source| PolicyError::Json { path: path.clone(), source })?;
        let lora = ConfigFile { path: &path, json }.lora()?;
        let weights = dir.join(WEIGHTS);
        let mut parameters = read_file(&weights, self.kind(), self.device())?;
        for (name, _) in &mut parameters {
            if let Some(ours) = name.strip_prefix(PREFIX) {
                *name = ours.to_owned();
            }
        }
        self.adapted(lora, parameters, &weights.display().to_string())
    }
}

/// The configuration under peft's names. What is left out has peft's default, under which an adapter is nothing else than
/// these numbers say.
fn config(lora: &Lora, base: &str) -> Value {
    let targets: Vec<&str> = lora.targets.iter().map(|target| target.name()).collect();
    json!({
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    })
}

/// An `adapter_config.json`.
struct ConfigFile<'a> {
    path: &'a Path,
    json: Map<String, Value>,
}

impl ConfigFile<'_> {
    fn lora(&self) -> Result<Lora, PolicyError> {
        let field = |field: &'static str| match self.json.get(field) {
            Some(value) if !value.is_null() => Ok(value),
            _ => Err(PolicyError::MissingField { path: self.path.to_owned(), field }),
        };
        if field("peft_type")? != "LORA" {
            return Err(self.invalid("peft_type", "\"LORA\", the only adapters that are computed"));
        }
        self.refuse_what_is_not_computed()?;
        field("r")?;
        field("lora_alpha")?;
        field("target_modules")?;
        let rank = self.json["r"].as_u64().filter(|rank| (1..=1 << 20).contains(rank));
        let alpha = self.json["lora_alpha"].as_f64().filter(|alpha| alpha.is_finite());
        let rank = rank.ok_or_else(|| self.invalid("r", "a positive number"))? as usize;
        let alpha = alpha.ok_or_else(|| self.invalid("lora_alpha", "a number"))?;
        // Rank-stabilised adapters are scaled by alpha / √rank.
        let is_stabilised = self.json.get("use_rslora").is_some_and(|value| value == true);
        let alpha = if is_stabilised { alpha * (rank as f64).sqrt() } else { alpha };
        Ok(Lora { rank, alpha, targets: self.targets()? })
    }

    /// Whatever changes what an adapter computes, and would go unnoticed.
    fn refuse_what_is_not_computed(&self) -> Result<(), PolicyError> {
        let is_unset = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        };
        const UNSET: [&str; 14] = [
            "alora_invocation_tokens",
            "alpha_pattern",
            "exclude_modules",
            "fan_in_fan_out",
            "layer_replication",
            "layers_to_transform",
            "lora_bias",
            "modules_to_save",
            "rank_pattern",
            "target_parameters",
            "trainable_token_indices",
            "use_bdlora",
            "use_dora",
            "use_qalora",
        ];
        for key in UNSET {
            if self.json.get(key).is_some_and(|value| !is_unset(value)) {
                return Err(
                    self.invalid(key, "absent, since it is not computed here; merge the adapter with peft")
                );
            }
        }
        match self.json.get("bias") {
            Some(bias) if bias != "none" => {
                Err(self.invalid("bias", "\"none\", since trained biases are not read"))
            }
            _ => Ok(()),
        }
    }

    /// A list of projections, or the word for all of them.
    fn targets(&self) -> Result<Vec<Projection>, PolicyError> {
        let expected = || {
            let names = Projection::ALL.map(Projection::name).join(", ");
            self.invalid("target_modules", &format!("\"all-linear\" or a list of some of {names}"))
        };
        match &self.json["target_modules"] {
            Value::String(all) if all == "all-linear" => Ok(Projection::ALL.to_vec()),
            Value::Array(names) => {
                let projection = |name: &Value| name.as_str().and_then(|name| name.parse().ok());
                let targets: Option<Vec<Projection>> = names.iter().map(projection).collect();
                let mut targets = targets.filter(|targets| !targets.is_empty()).ok_or_else(expected)?;
                targets.sort_unstable();
                targets.dedup();
                Ok(targets)
            }
            _ => Err(expected()),
        }
    }

    fn invalid(&self, field: &str, expected: &str) -> PolicyError {
        PolicyError::InvalidField {
            path: self.path.to_owned(),
            field: field.to_owned(),
            value: self.json.get(field).unwrap_or(&Value::Null).to_string(),
            expected: expected.to_owned(),
        }
    }
}
