//! A policy that was trained elsewhere.

use std::path::PathBuf;

use pref_data::{FlipRate, Fraction};
use pref_loss::Beta;
use serde::{Deserialize, Serialize};
use trainer::recipe::LossKind;

use crate::cell::Cell;

/// A policy that was trained elsewhere, with the properties of the cell whose place it takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenPolicy {
    /// The source of its labels.
    pub annotator: String,
    /// Share of the pairs.
    #[serde(default = "all")]
    pub fraction: Fraction,
    /// Share of flipped labels.
    #[serde(default = "none")]
    pub flip_rate: FlipRate,
    /// The loss.
    pub loss: LossKind,
    /// The loss's β.
    #[serde(default = "default_beta")]
    pub beta: Beta,
    /// The seed, below `study.seeds`.
    #[serde(default)]
    pub seed: u64,
    /// A model's Hugging Face folder, or a file of answers to the benchmark in FastChat's format.
    pub path: PathBuf,
}

fn all() -> Fraction {
    Fraction::ALL
}

fn none() -> FlipRate {
    FlipRate::NONE
}

fn default_beta() -> Beta {
    Beta::DEFAULT
}

impl GivenPolicy {
    /// Returns the cell whose place it takes.
    pub fn cell(&self) -> Cell {
        Cell {
            fraction: self.fraction,
            flip_rate: self.flip_rate,
            ..Cell::new(&self.annotator, self.loss, self.beta, self.seed)
        }
    }
}
