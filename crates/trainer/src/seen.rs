//! What early stopping has seen, in memory and in checkpoints.

use serde::{Deserialize, Serialize};

/// The evaluations so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The best gain; `None` before the first evaluation.
    pub(crate) best: Option<f64>,
    /// The number of evaluations since the best one.
    pub(crate) stale: u64,
}

/// [`Seen`] in a checkpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeenFile {
    /// The bits of the best gain, which a decimal number might round.
    best: Option<u64>,
    stale: u64,
}

impl SeenFile {
    pub(crate) fn of(seen: Seen) -> Self {
        Self { best: seen.best.map(f64::to_bits), stale: seen.stale }
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen { best: self.best.map(f64::from_bits), stale: self.stale }
    }
}
