//! The checkpoints of a finished run.

use trainer::recipe::TrainSection;

/// Returns the number of checkpoints that a finished run has.
pub(crate) fn kept_checkpoints(train: &TrainSection) -> usize {
    match train.keep_last {
        0 => train.checkpoints.len(),
        last => last.min(train.checkpoints.len()),
    }
}

/// Returns the step of a checkpoint at this share of training, rounded as the trainer does.
pub(crate) fn step_at(share: f64, steps: u64) -> u64 {
    ((share * steps as f64).round() as u64).clamp(1, steps.max(1))
}
