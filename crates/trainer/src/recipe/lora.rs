//! The section of low-rank adapters.

use std::collections::BTreeMap;

use policy_model::{Lora, Pattern, Scaling, Targets};
use serde::{Deserialize, Serialize};

use super::error::{in_range, require};
use super::{Complaint, Origin, RecipeError};
use crate::parameters::Trained;

/// Low-rank adapters (LoRA): a low-rank update of each target projection is trained instead of its weight. Adapters
/// need a learning rate at least ten times higher than full fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSection {
    /// Rank of the adapters; 0 trains all weights, unless there is `init`.
    pub rank: usize,
    /// A folder of peft's adapters, or an id on the Hub, from which training starts. Its configuration takes the place of the
    /// other keys but `dropout`. The folder of `model.path`, if that has adapters, means that they are trained and not merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Numerator of the adapters' scale alpha / rank, above 0.
    pub alpha: f64,
    /// Other ranks of some modules, such as `{ "layers\\.[0-3]\\..*" = 16 }`: regular expressions of names, or of their ends
    /// after a dot.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other numerators of the scale of some modules, as in `rank_pattern`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Probability with which an element of an adapter's input is dropped in training, in [0, 1). Default: that of `init`, or 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Projections with adapters, such as `["q_proj", "v_proj"]`; `"all-linear"`; or a regular expression of whole
    /// names, such as `".*layers\\.[0-3]\\..*_proj"`.
    pub targets: LoraTargets,
    /// Whether the scale is alpha / √rank (rank-stabilized).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_rslora: bool,
    /// Whether the lengths of the adapted weights' rows are trained too (`DoRA`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub use_dora: bool,
    /// Modules that are trained in full besides adapters, such as `["lm_head", "embed_tokens"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
}

/// One word or a list of names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LoraTargets {
    /// `all-linear` or a pattern.
    Word(String),
    /// Names of projections.
    Names(Vec<String>),
}

impl Default for LoraSection {
    fn default() -> Self {
        Self {
            rank: 0,
            init: None,
            alpha: 16.0,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            dropout: None,
            targets: LoraTargets::Names(vec!["q_proj".to_owned(), "v_proj".to_owned()]),
            use_rslora: false,
            use_dora: false,
            modules_to_save: Vec::new(),
        }
    }
}

impl LoraSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        require(i32::try_from(self.rank).is_ok(), "rank", format!("is {}; 0 trains in full", self.rank))?;
        in_range("alpha", self.alpha, |alpha| alpha > 0.0, "above 0")?;
        in_range("dropout", self.dropout.unwrap_or(0.0), |share| (0.0..1.0).contains(&share), "in [0, 1)")?;
        for (name, &rank) in &self.rank_pattern {
            let is_rank = rank > 0 && i32::try_from(rank).is_ok();
            require(is_rank, "rank_pattern", format!("has {rank} for {name:?}; give a rank of at least 1"))?;
        }
        for &alpha in self.alpha_pattern.values() {
            in_range("alpha_pattern", alpha, |alpha| alpha > 0.0, "above 0")?;
        }
        patterns("rank_pattern", &self.rank_pattern)?;
        patterns("alpha_pattern", &self.alpha_pattern)?;
        self.check_combination()?;
        self.parsed_targets().map(drop)
    }

    /// Checks that no key is without effect. Older keys may be, beside `rank = 0`.
    fn check_combination(&self) -> Result<(), Complaint> {
        let default = Self::default();
        let old = [
            ("rank", self.rank > 0),
            ("alpha", self.alpha != default.alpha),
            ("targets", self.targets != default.targets),
            ("use_rslora", self.use_rslora),
            ("use_dora", self.use_dora),
            ("modules_to_save", !self.modules_to_save.is_empty()),
        ];
        let patterns = [
            ("rank_pattern", !self.rank_pattern.is_empty()),
            ("alpha_pattern", !self.alpha_pattern.is_empty()),
        ];
        let first =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, is_given)| *is_given).map(|(key, _)| *key);
        if let Some(folder) = &self.init {
            require(
                !folder.is_empty(),
                "init",
                "is empty; set it to a folder of adapters or remove the key",
            )?;
            let reason = "is that of the adapters in lora.init; remove the key";
            return first(&[&old[..], &patterns].concat())
                .map_or(Ok(()), |key| Err(Complaint::invalid(key, reason)));
        }
        let dropout = [("dropout", self.dropout.is_some())];
        let unused = first(&[&patterns[..], &dropout].concat()).filter(|_| self.rank == 0);
        let reason = "applies to adapters only; set lora.rank or remove the key";
        unused.map_or(Ok(()), |key| Err(Complaint::invalid(key, reason)))
    }

    /// Returns whether adapters are trained.
    pub fn trains_adapters(&self) -> bool {
        self.rank > 0 || self.init.is_some()
    }

    /// Returns which weights are trained without [`init`](Self::init).
    ///
    /// # Errors
    /// [`RecipeError::Invalid`] if a target is not a projection.
    pub fn build(&self) -> Result<Trained, RecipeError> {
        let at = |complaint: Complaint| complaint.within("lora").at(Origin::Code);
        let mut lora = Lora::new(self.rank, self.alpha, self.parsed_targets().map_err(at)?);
        lora.scaling = if self.use_rslora { Scaling::RootRank } else { Scaling::Rank };
        lora.use_dora = self.use_dora;
        lora.dropout = self.dropout.unwrap_or(0.0);
        lora.rank_pattern = patterns("rank_pattern", &self.rank_pattern).map_err(at)?;
        lora.alpha_pattern = patterns("alpha_pattern", &self.alpha_pattern).map_err(at)?;
        lora.modules_to_save.clone_from(&self.modules_to_save);
        Ok(if self.rank == 0 { Trained::All } else { Trained::Adapters(lora) })
    }

    fn parsed_targets(&self) -> Result<Targets, Complaint> {
        let names = match &self.targets {
            LoraTargets::Word(word) => {
                let refused = |why| Complaint::invalid("targets", format!("is {word:?}, but {why}"));
                return Targets::parse(word).map_err(refused);
            }
            LoraTargets::Names(names) => names,
        };
        require(!names.is_empty(), "targets", "is empty; list at least one projection")?;
        for (at, name) in names.iter().enumerate() {
            let refused = |why| Complaint::invalid("targets", format!("are {names:?}, but {why}"));
            Targets::check_name(name).map_err(refused)?;
            require(!names[..at].contains(name), "targets", format!("are {names:?}; list each once"))?;
        }
        Ok(Targets::names(names.iter().cloned()))
    }
}

fn patterns<T: Copy>(key: &'static str, map: &BTreeMap<String, T>) -> Result<Vec<(Pattern, T)>, Complaint> {
    let parse = |(text, value): (&String, &T)| match Pattern::of_end(text) {
        Ok(pattern) => Ok((pattern, *value)),
        Err(why) => Err(Complaint::invalid(key, format!("has the key {text:?}, but {why}"))),
    };
    map.iter().map(parse).collect()
}
