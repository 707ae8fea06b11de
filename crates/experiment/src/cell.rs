//! Cells: the properties in which training runs differ.

use std::fmt;
use std::num::NonZeroU64;

use pref_data::{AgreementSlice, FlipRate, Fraction};
use pref_loss::{Beta, LogpReduction};
use serde::{Deserialize, Serialize};
use trainer::recipe::{LossKind, Smoothing};

/// One training run: the properties in which the runs of an experiment differ.
///
/// The [`Setup`](crate::Setup) has what they share. Equal cells are one run, even if several grids contain them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The source of the labels: an annotator, a vote or a mixture.
    pub annotator: String,
    /// The records on which two annotators agree or differ; `None` for all records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<AgreementSlice>,
    /// Share of the pairs.
    pub fraction: Fraction,
    /// Share of flipped labels.
    pub flip_rate: FlipRate,
    /// The loss.
    pub loss: LossKind,
    /// The loss's β, or ORPO's λ.
    pub beta: Beta,
    /// Label smoothing, if it differs from the setup's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<Smoothing>,
    /// IPO's reduction of log-probabilities, if it differs from the setup's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logp_reduction: Option<LogpReduction>,
    /// The maximum learning rate, if it differs from the setup's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Epochs, if these differ from the setup's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<NonZeroU64>,
    /// The seed of data, labels, order, generation and judge.
    pub seed: u64,
}

impl Cell {
    /// Returns the cell of all of an annotator's pairs, with their labels and the setup's training.
    pub fn new(annotator: impl Into<String>, loss: LossKind, beta: Beta, seed: u64) -> Self {
        Self {
            annotator: annotator.into(),
            slice: None,
            fraction: Fraction::ALL,
            flip_rate: FlipRate::NONE,
            loss,
            beta,
            label_smoothing: None,
            logp_reduction: None,
            learning_rate: None,
            epochs: None,
            seed,
        }
    }

    /// Returns its properties except β and seed, such as `DPO on human, 5% flipped`.
    pub fn data_and_epochs(&self) -> String {
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
        words += &self.training_changes();
        if let Some(epochs) = self.epochs {
            words += &format!(", {epochs} epochs");
        }
        words
    }

    /// Returns the settings of loss and optimizer that differ from the setup's, such as `, ε = 0.1`.
    pub(crate) fn training_changes(&self) -> String {
        let mut words = String::new();
        if let Some(smoothing) = self.label_smoothing {
            words += &format!(", ε = {smoothing}");
        }
        if let Some(reduction) = self.logp_reduction {
            words += &format!(", log-probabilities by {}", reduction_name(reduction));
        }
        if let Some(rate) = self.learning_rate {
            words += &format!(", learning rate {rate:e}");
        }
        words
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (symbol, value) = (self.loss.strength(), self.beta.get());
        write!(f, "{}, {symbol} = {value}, seed {}", self.data_and_epochs(), self.seed)
    }
}

/// Returns the name of a slice, such as `human = gpt-4-turbo`.
pub fn slice_name(slice: &AgreementSlice) -> String {
    slice.clone().into()
}

/// Returns the name of a loss, such as `cDPO`.
pub fn loss_name(loss: LossKind) -> &'static str {
    match loss {
        LossKind::Sft => "SFT",
        LossKind::Dpo => "DPO",
        LossKind::Cdpo => "cDPO",
        LossKind::Ipo => "IPO",
        LossKind::Robust => "robust DPO",
        LossKind::Hinge => "hinge",
        LossKind::Kto => "KTO",
        LossKind::Simpo => "SimPO",
        LossKind::Orpo => "ORPO",
        LossKind::Cpo => "CPO",
        LossKind::Dpop => "DPO-positive",
        LossKind::SigmoidNorm => "DPO per token",
        LossKind::ExoPair => "EXO",
        LossKind::NcaPair => "NCA",
        LossKind::BcoPair => "BCO",
        LossKind::SppoHard => "SPPO",
        LossKind::ApoZero => "APO-zero",
        LossKind::ApoDown => "APO-down",
        LossKind::Discopop => "DiscoPOP",
        LossKind::FDpo => "f-DPO",
        LossKind::Aot => "AOT",
        LossKind::AotUnpaired => "AOT unpaired",
        LossKind::Sum => "sum of losses",
    }
}

/// Returns the name of a reduction in a recipe.
pub fn reduction_name(reduction: LogpReduction) -> &'static str {
    match reduction {
        LogpReduction::Sum => "sum",
        LogpReduction::Mean => "mean",
    }
}

/// Returns a share in percent, such as `5` or `12.5`.
pub fn percent(share: f64) -> String {
    let percent = (share * 1000.0).round() / 10.0;
    format!("{percent}")
}

/// Returns text with characters of file names only; mixtures have spaces, slices have signs.
pub(crate) fn file_name(text: &str) -> String {
    let plain = |letter: char| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '-' };
    text.replace("!=", "differs-from").replace('%', "pct").chars().map(plain).collect()
}

/// A policy to evaluate.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// The supervised policy, with the answers of one seed.
    Baseline {
        /// The seed of its answers.
        seed: u64,
    },
    /// The policy of a cell.
    Trained {
        /// The training run.
        cell: Cell,
        /// The index of the checkpoint; the last one is the trained model.
        checkpoint: usize,
    },
}

impl Subject {
    /// Returns its seed.
    pub fn seed(&self) -> u64 {
        match self {
            Self::Baseline { seed } => *seed,
            Self::Trained { cell, .. } => cell.seed,
        }
    }

    /// Returns its policy: the subject with seed 0.
    #[must_use]
    pub fn without_seed(&self) -> Self {
        match self {
            Self::Baseline { .. } => Self::Baseline { seed: 0 },
            Self::Trained { cell, checkpoint } => {
                Self::Trained { cell: Cell { seed: 0, ..cell.clone() }, checkpoint: *checkpoint }
            }
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
    fn a_cell_displays_the_properties_that_differ() {
        let cell = Cell::new("human", LossKind::Dpo, Beta::new(0.1).unwrap(), 0);
        assert_eq!(cell.to_string(), "DPO on human, β = 0.1, seed 0");
        let (fraction, flip_rate) = (Fraction::new(0.25).unwrap(), FlipRate::new(0.05).unwrap());
        let noisy = Cell { fraction, flip_rate, epochs: NonZeroU64::new(12), ..cell };
        assert_eq!(
            noisy.to_string(),
            "DPO on human, 25% of the pairs, 5% flipped, 12 epochs, β = 0.1, seed 0"
        );
        let smoothed = Cell { label_smoothing: Some(Smoothing::FlipRate), ..noisy };
        assert!(smoothed.to_string().contains("5% flipped, ε = the flip rate, 12 epochs"));
        let changed = Cell {
            logp_reduction: Some(LogpReduction::Mean),
            learning_rate: Some(3e-4),
            ..Cell::new("human", LossKind::Ipo, Beta::new(0.1).unwrap(), 0)
        };
        assert_eq!(
            changed.to_string(),
            "IPO on human, log-probabilities by mean, learning rate 3e-4, β = 0.1, seed 0"
        );
    }
}
