//! The checkpoints of a finished run.

use trainer::recipe::TrainSection;

/// Returns the number of checkpoints that a finished run has.
pub(crate) fn kept_checkpoints(train: &TrainSection) -> usize {
    match train.keep_last {
        0 => train.checkpoints.len(),
        last => last.min(train.checkpoints.len()),
    }
}
