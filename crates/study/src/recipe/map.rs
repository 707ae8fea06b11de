//! The `[study.map]` section: the axes of the conditions map.

use std::num::NonZeroU64;

use pref_data::{FlipRate, Fraction};
use pref_loss::{LabelSmoothing, LogpReduction};
use serde::{Deserialize, Serialize};
use trainer::recipe::{Complaint, Smoothing};

/// The axes of the conditions map, `study --tables map`. Each pair of a learning rate and a number of epochs is a
/// condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapSection {
    /// Maximum learning rates, above 0.
    #[serde(default = "learning_rates")]
    pub learning_rates: Vec<f64>,
    /// Epochs of training.
    #[serde(default = "epochs")]
    pub epochs: Vec<NonZeroU64>,
    /// Shares of flipped labels for DPO and cDPO: 0, and one or more above it.
    #[serde(default = "flip_rates")]
    pub flip_rates: Vec<FlipRate>,
    /// Rules for cDPO's ε: numbers from 0 to 1, or `"flip_rate"` for the share of flipped labels [default: 0.1,
    /// `"flip_rate"`].
    #[serde(default = "fixed_and_flip_rate")]
    pub label_smoothing: Vec<Smoothing>,
    /// Reductions of IPO's log-probabilities over tokens.
    #[serde(default = "sum_and_mean")]
    pub logp_reductions: Vec<LogpReduction>,
    /// Shares of the pairs for IPO: 1, and one or more below it.
    #[serde(default = "quarter_and_all")]
    pub volumes: Vec<Fraction>,
}

fn learning_rates() -> Vec<f64> {
    vec![1e-5, 1e-4, 1e-3]
}

fn epochs() -> Vec<NonZeroU64> {
    let values = [1, 3];
    values.into_iter().filter_map(NonZeroU64::new).collect()
}

fn flip_rates() -> Vec<FlipRate> {
    let values = [0.0, 0.25, 0.4];
    values.into_iter().filter_map(|rate| FlipRate::new(rate).ok()).collect()
}

fn fixed_and_flip_rate() -> Vec<Smoothing> {
    vec![a_tenth(), Smoothing::FlipRate]
}

fn a_tenth() -> Smoothing {
    LabelSmoothing::new(0.1).map_or(Smoothing::ZERO, Smoothing::Fixed)
}

fn sum_and_mean() -> Vec<LogpReduction> {
    vec![LogpReduction::Sum, LogpReduction::Mean]
}

fn quarter_and_all() -> Vec<Fraction> {
    let values = [0.25, 1.0];
    values.into_iter().filter_map(|share| Fraction::new(share).ok()).collect()
}

impl Default for MapSection {
    fn default() -> Self {
        Self {
            learning_rates: learning_rates(),
            epochs: epochs(),
            flip_rates: flip_rates(),
            label_smoothing: fixed_and_flip_rate(),
            logp_reductions: sum_and_mean(),
            volumes: quarter_and_all(),
        }
    }
}

impl MapSection {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that every axis has distinct values, and those with which the map compares.
    pub(super) fn check(&self) -> Result<(), Complaint> {
        distinct("learning_rates", &self.learning_rates)?;
        distinct("epochs", &self.epochs)?;
        distinct("flip_rates", &self.flip_rates)?;
        distinct("label_smoothing", &self.label_smoothing)?;
        distinct("logp_reductions", &self.logp_reductions)?;
        distinct("volumes", &self.volumes)?;
        if let Some(rate) = self.learning_rates.iter().find(|rate| !(**rate > 0.0 && rate.is_finite())) {
            return Err(Complaint::invalid("learning_rates", format!("has {rate}; a rate must be above 0")));
        }
        if !self.flip_rates.contains(&FlipRate::NONE) || self.flip_rates.len() < 2 {
            let reason = "must have 0 and a value above it: the map compares with clean labels";
            return Err(Complaint::invalid("flip_rates", reason));
        }
        if !self.volumes.contains(&Fraction::ALL) || self.volumes.len() < 2 {
            let reason = "must have 1 and a value below it: the map compares with all pairs";
            return Err(Complaint::invalid("volumes", reason));
        }
        Ok(())
    }
}

fn distinct<T: PartialEq>(key: &str, values: &[T]) -> Result<(), Complaint> {
    let repeats = values.iter().enumerate().any(|(at, value)| values[..at].contains(value));
    match (values.is_empty(), repeats) {
        (true, _) => Err(Complaint::invalid(key, "is empty; name at least one value")),
        (_, true) => Err(Complaint::invalid(key, "has a value twice; remove one of them")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Preset, StudyRecipe};

    #[test]
    fn the_axes_are_checked() {
        let set = |setting: &str| StudyRecipe::preset(Preset::Sandbox, &[format!("study.map.{setting}")]);
        let recipe = set("learning_rates=[1e-5]").unwrap();
        assert_eq!(recipe.study.map.learning_rates, [1e-5]);
        for (setting, problem) in [
            ("learning_rates=[0.0]", "study.map.learning_rates has 0"),
            ("learning_rates=[]", "study.map.learning_rates is empty"),
            ("epochs=[2, 2]", "study.map.epochs has a value twice"),
            ("epochs=[0]", "study.map.epochs"),
            ("flip_rates=[0.1, 0.2]", "study.map.flip_rates must have 0"),
            ("flip_rates=[0.0]", "study.map.flip_rates must have 0"),
            ("volumes=[0.5]", "study.map.volumes must have 1"),
            ("label_smoothing=[\"rate\"]", "flip_rate"),
            ("logp_reductions=[\"max\"]", "logp_reductions"),
            ("losses=[\"dpo\"]", "losses"),
        ] {
            let refused = set(setting).unwrap_err().to_string();
            assert!(refused.contains(problem), "{setting}: {refused}");
        }
    }
}
