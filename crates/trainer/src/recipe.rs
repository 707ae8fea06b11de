//! Recipes: the complete configuration of a run as one TOML file.
//!
//! A [`Recipe`] is a table of typed sections. Loading rejects unknown keys, values of a wrong type and values out of
//! range. Each error names the line or the override, the key, and the accepted values. A value that this version does
//! not support is an error, too: no key is ignored.
//!
//! ```
//! use trainer::recipe::Recipe;
//!
//! let text = r#"
//!     [model]
//!     path = "smollm2"
//!     [data]
//!     path = "pairs.jsonl"
//!     [loss]
//!     kind = "ipo"
//!     [output]
//!     dir = "runs/ipo"
//! "#;
//! let recipe = Recipe::parse("ipo.toml", text, &["train.epochs=1".to_owned()])?;
//! assert_eq!(recipe.train.epochs.get(), 1.0);
//! assert_eq!(recipe.train.batch_size, 16);
//! # Ok::<(), trainer::recipe::RecipeError>(())
//! ```
//!
//! Other recipes reuse these sections: [`read_toml`] reads any struct of them that implements [`RecipeRoot`], with the
//! same overrides and error messages.

use std::path::{Path, PathBuf};

use policy_model::{PolicyError, base_folder};
use seeds::Seeds;
use serde::{Deserialize, Serialize};
use toml::Table;

mod data;
mod de;
pub(crate) mod error;
mod fetch;
mod lora;
mod loss;
mod loss_kind;
mod read;
mod sections;
mod smoothing;
mod sources;
mod stopping;
#[cfg(test)]
mod tests;
mod values;
mod watch;

pub use data::DataSection;
use error::require;
pub use error::{Complaint, Origin, RecipeError};
pub use lora::{LoraSection, LoraTargets};
pub use loss::{DynamicBetaSection, LossSection, LossTermSection};
pub use loss_kind::LossKind;
pub use read::{RecipeRoot, parse_toml, read_toml, to_toml};
pub use sections::{
    DistributedSection, ModelSection, OptimizerSection, OutputSection, SpeedSection, TrainSection,
};
pub use smoothing::Smoothing;
pub use stopping::{CheckpointsSection, EarlyStoppingSection};
pub use values::{
    DeviceChoice, Dtype, Epochs, Format, NoiseKind, OptimizerKind, Preset, Quantization, Scheduler, TrainOn,
    seed,
};
pub use watch::WatchSection;

/// One training run. Only `model.path`, `data.path` and `output.dir` have no default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seed of all random number streams.
    #[serde(default, with = "seed")]
    pub seed: u64,
    /// The policy and its reference model.
    pub model: ModelSection,
    /// The preference data: `[data]`, or a list of sources `[[data]]`. The first source also has the keys that hold for
    /// all: those of tokenization, chat template and order.
    #[serde(with = "sources::one_or_list")]
    pub data: Vec<DataSection>,
    /// The training loss.
    #[serde(default)]
    pub loss: LossSection,
    /// Optimization.
    #[serde(default)]
    pub train: TrainSection,
    /// The optimizer.
    #[serde(default, skip_serializing_if = "OptimizerSection::is_default")]
    pub optimizer: OptimizerSection,
    /// The checkpoint that becomes the model.
    #[serde(default, skip_serializing_if = "CheckpointsSection::is_default")]
    pub checkpoints: CheckpointsSection,
    /// Optimizations of speed and memory that keep the results, apart from rounding.
    #[serde(default)]
    pub speed: SpeedSection,
    /// Measurements during training.
    #[serde(default)]
    pub watch: WatchSection,
    /// Low-rank adapters (LoRA).
    #[serde(default)]
    pub lora: LoraSection,
    /// Training on several processes.
    #[serde(default)]
    pub distributed: DistributedSection,
    /// Output files.
    pub output: OutputSection,
}

impl Recipe {
    /// Reads a recipe file, then applies `overrides`, each `section.key=value`.
    ///
    /// The value is TOML. A value that is not TOML is a string, so `loss.kind=ipo` needs no quotes. The last override
    /// of a key takes effect.
    ///
    /// # Errors
    /// [`RecipeError`], which names the line or the override, the key, and the accepted values.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_toml(path, overrides)
    }

    /// Like [`load`](Self::load), from text; errors call it `name`.
    ///
    /// # Errors
    /// Like [`load`](Self::load).
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        parse_toml(name, text, overrides)
    }

    /// Returns the recipe as TOML with all defaults. Loading it gives an equal recipe.
    pub fn to_toml(&self) -> String {
        to_toml(self)
    }

    /// Returns the first source, whose keys of tokenization, chat template and order hold for all.
    ///
    /// # Panics
    /// Without a source, which [`check`](Self::check) rejects.
    pub fn main_data(&self) -> &DataSection {
        &self.data[0]
    }

    /// Returns the folder of the weights below the policy's adapters: `model.path`, or the base model of the adapters there if
    /// `lora.init` is the same folder. Without `lora.init`, adapters in `model.path` are merged.
    ///
    /// # Errors
    /// The base model is not found.
    pub(crate) fn policy_folder(&self) -> Result<PathBuf, PolicyError> {
        let path = PathBuf::from(&self.model.path);
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let is_kept = |init: &String| canonical(Path::new(init)) == canonical(&path);
        if self.lora.init.as_ref().is_some_and(is_kept) {
            return Ok(base_folder(&path)?.unwrap_or(path));
        }
        Ok(path)
    }

    /// Returns whether a source has held-out preferences.
    pub fn has_held_out(&self) -> bool {
        self.data.iter().any(DataSection::has_held_out)
    }

    /// Returns the seeds of a source, by its index. Those of an only source are the recipe's.
    pub(crate) fn seeds_of(&self, source: usize) -> Seeds {
        let seeds = Seeds::new(self.seed);
        if self.data.len() == 1 { seeds } else { seeds.child(&format!("data-{source}")) }
    }

    /// Validates a recipe that was built in code. Loading validates on its own.
    ///
    /// # Errors
    /// [`RecipeError::Invalid`] or [`RecipeError::Unsupported`] for the first invalid key.
    pub fn check(&self) -> Result<(), RecipeError> {
        self.clone().finish().map_err(|complaint| complaint.at(Origin::Code))
    }

    /// Checks that supervised training, which measures only the loss of held-out examples, is asked for nothing else.
    fn check_supervised(&self) -> Result<(), Complaint> {
        stopping::check_supervised(self.train.early_stopping, self.checkpoints)?;
        let reason =
            "compares the policy with a reference, which supervised training does not have; remove the key";
        require(self.watch.answers == 0, "answers", reason).map_err(|complaint| complaint.within("watch"))
    }
}

impl RecipeRoot for Recipe {
    fn prepare(table: &mut Table) -> Result<(), Complaint> {
        if table.contains_key("study") {
            let reason =
                "is a section of a study's recipe; run it with `study --recipe FILE`, or with `rq1` to `rq4`";
            return Err(Complaint::invalid("study", reason));
        }
        sources::inherit(table)
    }

    fn finish(&mut self) -> Result<(), Complaint> {
        if self.lora.init.is_some() {
            self.model.reference.get_or_insert_with(|| "adapter".to_owned());
        }
        self.model.finish().map_err(|complaint| complaint.within("model"))?;
        sources::check(&self.data)?;
        self.loss.check().map_err(|complaint| complaint.within("loss"))?;
        self.loss.resolve(sources::flip_rate(&self.data)).map_err(|complaint| complaint.within("loss"))?;
        self.train.check().map_err(|complaint| complaint.within("train"))?;
        self.train.check_stopping(self.has_held_out()).map_err(|complaint| complaint.within("train"))?;
        let has_checkpoints = !self.train.checkpoints.is_empty();
        let checked = self.checkpoints.check(self.has_held_out(), has_checkpoints);
        checked.map_err(|complaint| complaint.within("checkpoints"))?;
        self.watch.check(self.has_held_out()).map_err(|complaint| complaint.within("watch"))?;
        sources::check_trained_tokens(&self.data, self.loss.kind)?;
        if self.loss.kind == LossKind::Sft {
            self.check_supervised()?;
        }
        self.lora.check().map_err(|complaint| complaint.within("lora"))?;
        self.model.check_quantization(&self.lora).map_err(|complaint| complaint.within("model"))?;
        self.distributed.check(&self.lora).map_err(|complaint| complaint.within("distributed"))?;
        self.output.check().map_err(|complaint| complaint.within("output"))
    }
}
