//! Decisions by held-out preferences: when training ends, and which checkpoint is the model.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::Complaint;
use super::error::{in_range, require};
use crate::stopping::{EarlyStopping, HeldOutMetric};

/// Ends training once a metric of the held-out preferences no longer improves. Each evaluation counts: at checkpoints, and
/// every `watch.eval_every` steps. The learning rate still follows the planned number of steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingSection {
    /// Number of evaluations in a row without improvement after which training ends, at least 1.
    pub patience: NonZeroU64,
    /// The metric: a smaller loss is better, a larger accuracy, or a larger margin.
    #[serde(default)]
    pub metric: HeldOutMetric,
    /// Difference from the best value so far that counts as an improvement, at least 0; more than it is needed.
    #[serde(default)]
    pub threshold: f64,
}

impl EarlyStoppingSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self) -> Result<(), Complaint> {
        in_range("threshold", self.threshold, |threshold| threshold >= 0.0, "at least 0")
    }

    /// Returns the rule.
    pub fn build(&self) -> EarlyStopping {
        EarlyStopping { metric: self.metric, patience: self.patience.get(), threshold: self.threshold }
    }
}

/// The checkpoint that becomes the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointsSection {
    /// Metric of the held-out preferences by which a checkpoint becomes the model; the earliest of equal ones. Default: the
    /// model is that of the last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<HeldOutMetric>,
}

impl CheckpointsSection {
    /// Returns whether all keys have their defaults.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// # Errors
    /// A [`Complaint`] if there is nothing to choose by, or nothing to choose from.
    pub(super) fn check(&self, has_held_out: bool, has_checkpoints: bool) -> Result<(), Complaint> {
        require(has_held_out || self.best.is_none(), "best", NEEDS_HELD_OUT)?;
        let reason = "has no checkpoints to choose from; list some in train.checkpoints, or remove the key";
        require(has_checkpoints || self.best.is_none(), "best", reason)
    }
}

/// Checks that no metric of pairs decides about supervised training.
///
/// # Errors
/// A [`Complaint`] about the key with such a metric.
pub(super) fn check_supervised(
    stopping: Option<EarlyStoppingSection>,
    checkpoints: CheckpointsSection,
) -> Result<(), Complaint> {
    let is_loss = |metric: Option<HeldOutMetric>| metric.is_none_or(|metric| metric == HeldOutMetric::Loss);
    let reason = "compares two responses, which supervised training does not; set \"eval/loss\"";
    let complaint = |key, section: &str| Complaint::invalid(key, reason).within(section);
    if !is_loss(stopping.map(|section| section.metric)) {
        return Err(complaint("metric", "early_stopping").within("train"));
    }
    if is_loss(checkpoints.best) { Ok(()) } else { Err(complaint("best", "checkpoints")) }
}

/// What a key does without held-out preferences.
pub(super) const NEEDS_HELD_OUT: &str =
    "requires held-out preferences; set data.split, data.held_out or data.eval_path, or remove the key";
