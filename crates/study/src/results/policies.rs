//! What was measured of each policy beside its scores.

use std::path::Path;

use super::ResultsError;
use super::columns::{self, Column, Get};

/// One policy: the supervised one, or a cell's after part of its training. `cell`, `seed` and `step` name its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRow {
    /// The cell's address, a hash of everything that determines it.
    pub cell: String,
    /// Whose preferences the policy was trained on; empty for the SFT policy.
    pub annotator: String,
    /// The records that were kept: those on which two annotators agree (`A = B`) or differ (`A != B`); empty for all.
    pub slice: String,
    /// The loss: `sft`, `dpo`, `cdpo`, `ipo`, …
    pub loss: String,
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Label smoothing of cDPO.
    pub label_smoothing: f64,
    /// Share of the preference data used, in (0, 1].
    pub fraction: f64,
    /// Share of the labels flipped, in [0, 1].
    pub flip_rate: f64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Passes over the pairs that its training takes in all; 0 for the SFT policy.
    pub epochs: u64,
    /// The cell's seed.
    pub seed: u64,
    /// Optimiser steps taken.
    pub step: u64,
    /// Share of training done, in [0, 1]; 0 for the SFT policy.
    pub progress: f64,
    /// Mean length of its answers to the benchmark, in characters; none where it gave no answer.
    pub answer_characters: Option<f64>,
    /// Mean training loss over the steps since the checkpoint before.
    pub training_loss: Option<f64>,
    /// Share of held-out pairs whose preferred response has the higher implicit reward.
    pub held_out_accuracy: Option<f64>,
    /// Mean margin of the implicit rewards on held-out pairs, in nats.
    pub held_out_margin: Option<f64>,
    /// Estimated KL divergence from the reference, in nats an answer.
    pub kl: Option<f64>,
    /// Pairs trained on so far whose label is as the annotator gave it.
    pub kept_pairs: Option<u64>,
    /// Of these, those that the policy prefers as labelled.
    pub kept_preferred: Option<u64>,
    /// Pairs trained on so far whose label was flipped.
    pub flipped_pairs: Option<u64>,
    /// Of these, those that the policy prefers as the flipped label says.
    pub flipped_preferred: Option<u64>,
}

/// Writes policies, one row each, in the order given, as [`write_parquet`](super::write_parquet) writes scores.
///
/// # Errors
/// [`ResultsError::Io`] or [`ResultsError::Parquet`].
pub fn write_policies(path: &Path, rows: &[PolicyRow]) -> Result<(), ResultsError> {
    columns::write(path, &policy_columns(), rows)
}

fn policy_columns() -> Vec<Column<PolicyRow>> {
    vec![
        Column::new("cell", Get::Text(|row| &row.cell)),
        Column::new("annotator", Get::Text(|row| &row.annotator)),
        Column::new("slice", Get::Text(|row| &row.slice)),
        Column::new("loss", Get::Text(|row| &row.loss)),
        Column::new("beta", Get::Float(|row| row.beta)),
        Column::new("label_smoothing", Get::Float(|row| row.label_smoothing)),
        Column::new("fraction", Get::Float(|row| row.fraction)),
        Column::new("flip_rate", Get::Float(|row| row.flip_rate)),
        Column::new("learning_rate", Get::Float(|row| row.learning_rate)),
        Column::new("epochs", Get::Whole(|row| row.epochs)),
        Column::new("seed", Get::Whole(|row| row.seed)),
        Column::new("step", Get::Whole(|row| row.step)),
        Column::new("progress", Get::Float(|row| row.progress)),
        Column::new("answer_characters", Get::FloatOrNull(|row| row.answer_characters)),
        Column::new("training_loss", Get::FloatOrNull(|row| row.training_loss)),
        Column::new("held_out_accuracy", Get::FloatOrNull(|row| row.held_out_accuracy)),
        Column::new("held_out_margin", Get::FloatOrNull(|row| row.held_out_margin)),
        Column::new("kl", Get::FloatOrNull(|row| row.kl)),
        Column::new("kept_pairs", Get::WholeOrNull(|row| row.kept_pairs)),
        Column::new("kept_preferred", Get::WholeOrNull(|row| row.kept_preferred)),
        Column::new("flipped_pairs", Get::WholeOrNull(|row| row.flipped_pairs)),
        Column::new("flipped_preferred", Get::WholeOrNull(|row| row.flipped_preferred)),
    ]
}
