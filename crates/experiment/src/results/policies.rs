//! The parquet file of policies.

use std::path::Path;

use super::ResultsError;
use super::columns::{self, Column, Get};

/// One evaluated policy. `cell`, `seed` and `step` identify its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRow {
    /// The cell's address.
    pub cell: String,
    /// The source of the labels; empty for the SFT policy.
    pub annotator: String,
    /// The records on which two annotators agree (`A = B`) or differ (`A != B`); empty for all.
    pub slice: String,
    /// The loss: `sft`, `dpo`, `cdpo`, `ipo`, …
    pub loss: String,
    /// The loss's β.
    pub beta: f64,
    /// Label smoothing of cDPO.
    pub label_smoothing: f64,
    /// IPO's reduction of log-probabilities, `sum` or `mean`; empty for other losses.
    pub logp_reduction: String,
    /// Share of the preference data used, in (0, 1].
    pub fraction: f64,
    /// Share of flipped labels, in [0, 1].
    pub flip_rate: f64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Epochs of the whole training; 0 for the SFT policy.
    pub epochs: u64,
    /// The cell's seed.
    pub seed: u64,
    /// Optimizer steps so far.
    pub step: u64,
    /// Share of training so far, in [0, 1]; 0 for the SFT policy.
    pub progress: f64,
    /// Mean length of its answers to the benchmark, in characters; `None` without answers.
    pub answer_characters: Option<f64>,
    /// Mean training loss over the steps since the previous checkpoint.
    pub training_loss: Option<f64>,
    /// Share of held-out pairs whose preferred response has the higher implicit reward.
    pub held_out_accuracy: Option<f64>,
    /// Mean margin of the implicit rewards on held-out pairs, in nats.
    pub held_out_margin: Option<f64>,
    /// Estimated KL divergence from the reference, in nats per answer.
    pub kl: Option<f64>,
    /// Trained pairs with the annotator's label.
    pub kept_pairs: Option<u64>,
    /// Of these, pairs that the policy prefers as labeled.
    pub kept_preferred: Option<u64>,
    /// Trained pairs with a flipped label.
    pub flipped_pairs: Option<u64>,
    /// Of these, pairs that the policy prefers as labeled.
    pub flipped_preferred: Option<u64>,
}

/// Writes policies in order, in the format of [`write_parquet`](super::write_parquet).
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
        Column::new("logp_reduction", Get::Text(|row| &row.logp_reduction)),
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
