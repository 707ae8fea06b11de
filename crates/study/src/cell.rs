//! Cells: what one training run of a study differs in from the others.

use std::fmt;
use std::num::NonZeroU64;

use pref_data::{AgreementSlice, FlipRate, Fraction};
use pref_loss::Beta;
use serde::{Deserialize, Serialize};
use trainer::recipe::LossKind;

/// One training run of a study: everything in which the runs of one recipe can differ.
///
/// What they share (model, data, optimiser) stands in the recipe. A cell with the same content serves every table in
/// which it stands: the paper's 6.994 is one run in its Tables 1, 3, 4 and 5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Whose labels the policy learns from.
    pub annotator: String,
    /// Of which records: those on which two annotators agree, or differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<AgreementSlice>,
    /// Share of the pairs that it sees.
    pub fraction: Fraction,
    /// Share of these whose label is swapped.
    pub flip_rate: FlipRate,
    /// The loss.
    pub loss: LossKind,
    /// The loss's β.
    pub beta: Beta,
    /// Passes over its pairs, where these are not the recipe's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<NonZeroU64>,
    /// Which replicate: seeds vary data, labels, order, generation and judge.
    pub seed: u64,
}

impl Cell {
    /// All that tells it from others but β and seed.
    pub(crate) fn data_and_epochs(&self) -> String {
        let mut words = format!("{} on {}", loss_name(self.loss), self.annotator);
        if let Some(slice) = &self.slice {
            words += &format!(" where {}", slice_name(slice));
        }
        if self.fraction != Fraction::ALL {
            words += &format!(", {}% of the pairs", percent(self.fraction.get()));
        }
        if self.flip_rate != FlipRate::NONE {
            words += &format!(", {}% flipped", percent(self.flip_rate.get()));
        }
        if let Some(epochs) = self.epochs {
            words += &format!(", {epochs} epochs");
        }
        words
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, β = {}, seed {}", self.data_and_epochs(), self.beta.get(), self.seed)
    }
}

/// A slice as people write it: `human = gpt-4-turbo`.
pub(crate) fn slice_name(slice: &AgreementSlice) -> String {
    slice.clone().into()
}

/// A loss as people write it.
pub(crate) fn loss_name(loss: LossKind) -> &'static str {
    match loss {
        LossKind::Sft => "SFT",
        LossKind::Dpo => "DPO",
        LossKind::Cdpo => "cDPO",
        LossKind::Ipo => "IPO",
        LossKind::Robust => "robust DPO",
        LossKind::Hinge => "hinge",
        LossKind::Kto => "KTO",
    }
}

/// A share as people write it: `5`, `12.5`.
pub(crate) fn percent(share: f64) -> String {
    let percent = (share * 1000.0).round() / 10.0;
    format!("{percent}")
}

/// What is evaluated: the policy that all cells start from, or a cell after part of its training.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// The supervised policy, answering with the streams of one seed.
    Baseline {
        /// Which replicate.
        seed: u64,
    },
    /// A cell's policy.
    Trained {
        /// The training run.
        cell: Cell,
        /// After which of the recipe's checkpoints, by index; the last one is the trained model.
        checkpoint: usize,
    },
}

impl Subject {
    /// Which replicate it belongs to.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Baseline { seed } => *seed,
            Self::Trained { cell, .. } => cell.seed,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Baseline { seed } => write!(f, "SFT, seed {seed}"),
            Self::Trained { cell, checkpoint } => write!(f, "{cell}, checkpoint {}", checkpoint + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_what_is_special_about_it() {
        let cell = Cell {
            annotator: "human".into(),
            slice: None,
            fraction: Fraction::ALL,
            flip_rate: FlipRate::NONE,
            loss: LossKind::Dpo,
            beta: Beta::new(0.1).unwrap(),
            epochs: None,
            seed: 0,
        };
        assert_eq!(cell.to_string(), "DPO on human, β = 0.1, seed 0");
        let (fraction, flip_rate) = (Fraction::new(0.25).unwrap(), FlipRate::new(0.05).unwrap());
        let noisy = Cell { fraction, flip_rate, epochs: NonZeroU64::new(12), ..cell };
        assert_eq!(
            noisy.to_string(),
            "DPO on human, 25% of the pairs, 5% flipped, 12 epochs, β = 0.1, seed 0"
        );
    }
}
