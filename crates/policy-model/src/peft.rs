//! Adapters on disk, in the format of Hugging Face's peft.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::config::read_required;
use crate::error::PolicyError;
use crate::lora::{Lora, Projection};
use crate::policy::Policy;
use crate::save::{replace_folder, write_json, write_tensors};
use crate::weights::read_file;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The prefix of module names in peft: its wrapper, then the causal language model.
const PREFIX: &str = "base_model.model.";

impl Policy {
    /// Writes the adapters as a folder that peft opens: `adapter_config.json` and `adapter_model.safetensors` in `kind`. `base` is
    /// the name of the base model. The write is atomic.
    ///
    /// # Errors
    /// [`PolicyError::NoAdapters`]; `kind` is not a kind of weights, or a file cannot be written.
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

    /// Returns this policy with the adapters of a folder of peft or [`Policy::save_adapters`], in this policy's kind.
    ///
    /// # Errors
    /// The folder has no low-rank adapters for this model, or unsupported ones; the message names the file and the key or tensor.
    pub fn load_adapters(&self, dir: &Path) -> Result<Self, PolicyError> {
        let path = dir.join(CONFIG);
        let text = read_required(dir, CONFIG)?;
        let json: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|source| PolicyError::Json { path: path.clone(), source })?;
        let lora = ConfigFile { path: &path, json }.lora()?;
        let weights =
            files::file_inside(dir, WEIGHTS).map_err(PolicyError::io("read", &dir.join(WEIGHTS)))?;
        files::check_file(&weights).map_err(PolicyError::io("read", &weights))?;
        let mut parameters = read_file(&weights, self.kind(), self.device())?;
        for (name, _) in &mut parameters {
            if let Some(ours) = name.strip_prefix(PREFIX) {
                *name = ours.to_owned();
            }
        }
        self.adapted(lora, parameters, &weights.display().to_string())
    }
}

/// The configuration with peft's keys. Absent keys have peft's defaults, which do not change an adapter.
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
            return Err(self.invalid("peft_type", "\"LORA\", the only supported adapters"));
        }
        self.refuse_unsupported()?;
        field("r")?;
        field("lora_alpha")?;
        field("target_modules")?;
        let rank = self.json["r"].as_u64().filter(|rank| (1..=1 << 20).contains(rank));
        let alpha = self.json["lora_alpha"].as_f64().filter(|alpha| alpha.is_finite());
        let rank = rank.ok_or_else(|| self.invalid("r", "a positive number"))? as usize;
        let alpha = alpha.ok_or_else(|| self.invalid("lora_alpha", "a number"))?;
        // Rank-stabilized adapters are scaled by alpha / √rank.
        let is_stabilized = self.json.get("use_rslora").is_some_and(|value| value == true);
        let alpha = if is_stabilized { alpha * (rank as f64).sqrt() } else { alpha };
        Ok(Lora { rank, alpha, targets: self.targets()? })
    }

    /// Refuses keys that change an adapter's computation.
    fn refuse_unsupported(&self) -> Result<(), PolicyError> {
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
                    self.invalid(key, "absent, since it is not supported; merge the adapter with peft")
                );
            }
        }
        match self.json.get("bias") {
            Some(bias) if bias != "none" => {
                Err(self.invalid("bias", "\"none\", since trained biases are not supported"))
            }
            _ => Ok(()),
        }
    }

    /// Reads a list of projections, or `all-linear`.
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
