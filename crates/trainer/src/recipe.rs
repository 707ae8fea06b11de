//! Recipes: what a run is made of, as one TOML file.
//!
//! A [`Recipe`] is a table of typed sections. Unknown keys, values of another type and values out of range are refused
//! with the file's line or the override at fault, the key, and what would do. Where a setting asks for something that
//! this version cannot do yet it is refused too: nothing in a recipe is ignored.
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
//! assert_eq!(recipe.train.epochs, 1);
//! assert_eq!(recipe.train.batch_size, 16);
//! # Ok::<(), trainer::recipe::RecipeError>(())
//! ```
//!
//! Other recipes are built of the same sections: a struct that holds some of them beside its own and implements
//! [`RecipeRoot`] reads through [`read_toml`], with the same overrides and the same messages.

use std::path::Path;

use serde::{Deserialize, Serialize};

mod data;
mod de;
mod error;
mod fetch;
mod read;
mod sections;
#[cfg(test)]
mod tests;
mod values;
mod watch;

pub use data::DataSection;
pub use error::{Complaint, Origin, RecipeError};
pub use read::{RecipeRoot, parse_toml, read_toml, to_toml};
pub use sections::{
    DistributedSection, LoraSection, LossSection, ModelSection, OutputSection, SpeedSection, TrainSection,
};
pub use values::{DeviceChoice, Dtype, Format, LossKind, NoiseKind, Preset, seed};
pub use watch::WatchSection;

/// One training run. Every key but `model.path`, `data.path` and `output.dir` has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Everything random derives from it.
    #[serde(default, with = "seed")]
    pub seed: u64,
    /// The policy and its reference.
    pub model: ModelSection,
    /// The preferences.
    pub data: DataSection,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossSection,
    /// How it is minimised.
    #[serde(default)]
    pub train: TrainSection,
    /// Ways to compute the same numbers faster.
    #[serde(default)]
    pub speed: SpeedSection,
    /// What is measured on the way.
    #[serde(default)]
    pub watch: WatchSection,
    /// Low-rank adapters.
    #[serde(default)]
    pub lora: LoraSection,
    /// Several processes.
    #[serde(default)]
    pub distributed: DistributedSection,
    /// Where results go.
    pub output: OutputSection,
}

impl Recipe {
    /// Reads a recipe file, then applies `overrides`, each `section.key=value`.
    ///
    /// The value is TOML; what is no TOML is taken as a string, so `loss.kind=ipo` needs no quotes. Of several
    /// overrides of one key the last counts.
    ///
    /// # Errors
    /// [`RecipeError`], which names the line or the override, the key, and what would do.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_toml(path, overrides)
    }

    /// As [`load`](Self::load), from text that `name` stands for in messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        parse_toml(name, text, overrides)
    }

    /// The recipe as TOML with every default written out. Loading it gives an equal recipe.
    pub fn to_toml(&self) -> String {
        to_toml(self)
    }

    /// Checks a recipe that was made in code; loading checks by itself.
    ///
    /// # Errors
    /// [`RecipeError::Invalid`] or [`RecipeError::Unsupported`] for the first key at fault.
    pub fn check(&self) -> Result<(), RecipeError> {
        self.clone().finish().map_err(|complaint| complaint.at(Origin::Code))
    }
}

impl RecipeRoot for Recipe {
    fn finish(&mut self) -> Result<(), Complaint> {
        self.model.finish().map_err(|complaint| complaint.within("model"))?;
        self.data.check().map_err(|complaint| complaint.within("data"))?;
        self.loss.check().map_err(|complaint| complaint.within("loss"))?;
        self.train.check().map_err(|complaint| complaint.within("train"))?;
        self.watch.check(self.data.eval_path.is_some()).map_err(|complaint| complaint.within("watch"))?;
        if self.data.eval_path.is_some() && self.loss.kind == LossKind::Sft {
            let what = "held-out pairs in supervised training, which compares no pairs";
            return Err(Complaint::unsupported("eval_path", what, "remove the key").within("data"));
        }
        self.lora.check().map_err(|complaint| complaint.within("lora"))?;
        self.distributed.check().map_err(|complaint| complaint.within("distributed"))?;
        self.output.check().map_err(|complaint| complaint.within("output"))
    }
}
