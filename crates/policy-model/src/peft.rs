//! Adapters on disk, in the format of Hugging Face's peft.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use crate::adapter_folder::CONFIG;
use crate::config::{ModelConfig, read_required};
use crate::error::PolicyError;
use crate::lora::{Lora, Scaling};
use crate::policy::Policy;
use crate::save::{replace_folder, write_json, write_tensors};
use crate::targets::{Pattern, Targets};
use crate::weights::read_file;

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
            write_json(&folder.join(CONFIG), &config(adapters.lora(), self.config(), base))?;
            write_tensors(&folder.join(WEIGHTS), &parameters, kind)
        })
    }

    /// Returns this policy with the adapters of a folder of peft or [`Policy::save_adapters`], in this policy's kind.
    ///
    /// # Errors
    /// The folder has no low-rank adapters for this model, or unsupported ones; the message names the file and the key or tensor.
    pub fn load_adapters(&self, dir: &Path) -> Result<Self, PolicyError> {
        self.load_adapters_in(dir, self.kind())
    }

    /// As [`Policy::load_adapters`], in `kind`.
    ///
    /// # Errors
    /// As [`Policy::load_adapters`].
    pub fn load_adapters_in(&self, dir: &Path, kind: Kind) -> Result<Self, PolicyError> {
        let lora = Lora::from_folder(dir)?;
        let weights =
            files::file_inside(dir, WEIGHTS).map_err(PolicyError::io("read", &dir.join(WEIGHTS)))?;
        files::check_file(&weights).map_err(PolicyError::io("read", &weights))?;
        let mut parameters = read_file(&weights, kind, self.device())?;
        for (name, _) in &mut parameters {
            if let Some(ours) = name.strip_prefix(PREFIX) {
                *name = ours.to_owned();
            }
        }
        self.adapted(lora, parameters, &weights.display().to_string())
    }
}

impl Lora {
    /// Reads the configuration of a folder of peft or [`Policy::save_adapters`].
    ///
    /// # Errors
    /// The folder has no low-rank adapters, or unsupported ones; the message names the file and the key.
    pub fn from_folder(dir: &Path) -> Result<Self, PolicyError> {
        let path = dir.join(CONFIG);
        let text = read_required(dir, CONFIG)?;
        let json: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|source| PolicyError::Json { path: path.clone(), source })?;
        ConfigFile { path: &path, json }.lora()
    }
}

/// The configuration with peft's keys. Absent keys have peft's defaults, which do not change an adapter.
fn config(lora: &Lora, model: &ModelConfig, base: &str) -> Value {
    let targets = match &lora.targets {
        Targets::Pattern(pattern) => json!(pattern.to_string()),
        targets => json!(targets.listed(model)),
    };
    let numbers = |pairs: &mut dyn Iterator<Item = (String, Value)>| Value::Object(pairs.collect());
    let ranks = numbers(&mut lora.rank_pattern.iter().map(|(name, rank)| (name.to_string(), json!(rank))));
    let alphas =
        numbers(&mut lora.alpha_pattern.iter().map(|(name, alpha)| (name.to_string(), json!(alpha))));
    let saved = if lora.modules_to_save.is_empty() { Value::Null } else { json!(lora.modules_to_save) };
    json!({
        "alpha_pattern": alphas,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": saved,
        "peft_type": "LORA",
        "r": lora.rank,
        "rank_pattern": ranks,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
        "use_dora": lora.use_dora,
        "use_rslora": lora.scaling == Scaling::RootRank,
    })
}

fn rank_in(value: &Value) -> Option<usize> {
    value.as_u64().filter(|rank| (1..=1 << 20).contains(rank)).map(|rank| rank as usize)
}

fn number_in(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
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
        let rank = rank_in(&self.json["r"]).ok_or_else(|| self.invalid("r", "a positive number"))?;
        let alpha =
            number_in(&self.json["lora_alpha"]).ok_or_else(|| self.invalid("lora_alpha", "a number"))?;
        let dropout = self.json.get("lora_dropout").filter(|value| !value.is_null());
        let dropout = dropout.map_or(Some(0.0), number_in).filter(|p| (0.0..1.0).contains(p));
        let is_set = |key: &str| self.json.get(key).is_some_and(|value| value == true);
        Ok(Lora {
            rank,
            alpha,
            rank_pattern: self.pattern("rank_pattern", "positive numbers", rank_in)?,
            alpha_pattern: self.pattern("alpha_pattern", "numbers", number_in)?,
            dropout: dropout.ok_or_else(|| self.invalid("lora_dropout", "a number in [0, 1)"))?,
            targets: self.targets()?,
            scaling: if is_set("use_rslora") { Scaling::RootRank } else { Scaling::Rank },
            use_dora: is_set("use_dora"),
            modules_to_save: self.names("modules_to_save")?.unwrap_or_default(),
        })
    }

    /// Refuses keys that change an adapter's computation.
    fn refuse_unsupported(&self) -> Result<(), PolicyError> {
        let is_unset = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        };
        const UNSET: [&str; 10] = [
            "alora_invocation_tokens",
            "exclude_modules",
            "fan_in_fan_out",
            "layer_replication",
            "layers_to_transform",
            "lora_bias",
            "target_parameters",
            "trainable_token_indices",
            "use_bdlora",
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

    /// Reads a list of names, `all-linear`, or a pattern.
    fn targets(&self) -> Result<Targets, PolicyError> {
        const KEY: &str = "target_modules";
        if let Some(word) = self.json.get(KEY).and_then(Value::as_str) {
            return Targets::parse(word)
                .map_err(|problem| self.invalid(KEY, &format!("a pattern, but {problem}")));
        }
        let names = self.names(KEY)?.filter(|names| !names.is_empty());
        let names =
            names.ok_or_else(|| self.invalid(KEY, "\"all-linear\", a pattern, or a list of projections"))?;
        Ok(Targets::Names(names))
    }

    /// Reads a map from patterns of modules to values, in its order.
    fn pattern<T>(
        &self,
        key: &str,
        values: &str,
        parse: fn(&Value) -> Option<T>,
    ) -> Result<Vec<(Pattern, T)>, PolicyError> {
        let map = match self.json.get(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(value) => value.as_object(),
        };
        let expected = || self.invalid(key, &format!("a map from names or patterns of modules to {values}"));
        let entry = |(name, value): (&String, &Value)| {
            let pattern = Pattern::of_end(name)
                .map_err(|problem| self.invalid(key, &format!("a map of patterns, but {problem}")))?;
            Ok((pattern, parse(value).ok_or_else(expected)?))
        };
        map.ok_or_else(expected)?.iter().map(entry).collect()
    }

    /// Reads a list of names, each once and in order.
    fn names(&self, key: &str) -> Result<Option<Vec<String>>, PolicyError> {
        let list = match self.json.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_array(),
        };
        let name = |name: &Value| name.as_str().map(str::to_owned);
        let names: Option<BTreeSet<String>> = list.and_then(|list| list.iter().map(name).collect());
        names
            .map(|names| Some(names.into_iter().collect()))
            .ok_or_else(|| self.invalid(key, "a list of names"))
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
