//! The table of a recipe that says what is measured beside the training loss.

use serde::{Deserialize, Serialize};

use super::Complaint;
use super::sections::require;

/// What is measured on the way. Nothing of it changes what is trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSection {
    /// Optimiser steps between evaluations on `data.eval_path`, beside those before the first step and at checkpoints; 0 for
    /// these alone.
    pub eval_every: u64,
    /// Held-out prompts that the policy answers at each evaluation, for the length of its answers and its KL divergence from
    /// the reference; 0 for none.
    pub answers: usize,
    /// The longest such answer, in tokens.
    pub answer_tokens: usize,
    /// Whether each pair's Δ is kept, step by step.
    pub pair_deltas: bool,
}

impl Default for WatchSection {
    fn default() -> Self {
        Self { eval_every: 0, answers: 0, answer_tokens: 128, pair_deltas: true }
    }
}

impl WatchSection {
    /// # Errors
    /// A [`Complaint`] about the first key at fault.
    pub fn check(&self, has_held_out: bool) -> Result<(), Complaint> {
        let unused = "only counts with held-out preferences; name some in data.eval_path or remove the key";
        require(has_held_out || self.eval_every == 0, "eval_every", unused)?;
        require(has_held_out || self.answers == 0, "answers", unused)?;
        require(self.answer_tokens > 0, "answer_tokens", "is 0; give at least 1")
    }
}
