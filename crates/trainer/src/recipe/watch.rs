//! The `[watch]` section: measurements during training.

use serde::{Deserialize, Serialize};

use super::Complaint;
use super::error::require;
use super::stopping::NEEDS_HELD_OUT;

/// Measurements during training. They do not affect it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSection {
    /// Optimizer steps between evaluations on held-out preferences. At 0, evaluations happen only before the first step and
    /// at checkpoints.
    pub eval_every: u64,
    /// Number of held-out prompts that the policy answers at each evaluation; 0 disables it. Answers estimate the KL
    /// divergence from the reference and the length of answers.
    pub answers: usize,
    /// Maximum length of such an answer, in tokens; at least 1.
    pub answer_tokens: usize,
    /// Whether `pair_deltas.parquet` records each pair's Δ at every step; nothing for unpaired preferences.
    pub pair_deltas: bool,
}

impl Default for WatchSection {
    fn default() -> Self {
        Self { eval_every: 0, answers: 0, answer_tokens: 128, pair_deltas: true }
    }
}

impl WatchSection {
    /// # Errors
    /// A [`Complaint`] about the first invalid key.
    pub fn check(&self, has_held_out: bool) -> Result<(), Complaint> {
        require(has_held_out || self.eval_every == 0, "eval_every", NEEDS_HELD_OUT)?;
        require(has_held_out || self.answers == 0, "answers", NEEDS_HELD_OUT)?;
        require(self.answer_tokens > 0, "answer_tokens", "is 0; give at least 1")
    }
}
