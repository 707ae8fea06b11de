//! How a policy fits its labels, flipped and unflipped ones apart.

use std::collections::BTreeMap;

use trainer::{RunDir, TrainedPair};

use crate::error::ExperimentError;

/// How a policy fits its labels, by the last measurement of each pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FittedLabels {
    /// Pairs with the annotator's label.
    pub kept: Fitted,
    /// Pairs with a flipped label.
    pub flipped: Fitted,
}

/// A number of pairs, and how many a policy prefers as labeled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// Number of pairs.
    pub pairs: u64,
    /// Number of pairs with Δ > 0: the labeled response has the higher implicit reward.
    pub preferred: u64,
}

impl FittedLabels {
    /// Reads the fit of the run in `dir` at `step`; `None` if the run did not record Δ.
    pub(crate) fn of(dir: &RunDir, step: u64) -> Result<Option<Self>, ExperimentError> {
        Ok(dir.read_pair_deltas()?.map(|rows| Self::by(step, &rows)))
    }

    fn by(step: u64, rows: &[TrainedPair]) -> Self {
        let until = rows.iter().take_while(|row| row.step <= step);
        let last: BTreeMap<&str, &TrainedPair> = until.map(|row| (row.pair.as_str(), row)).collect();
        let mut fitted = Self::default();
        for row in last.values() {
            let these = if row.flipped { &mut fitted.flipped } else { &mut fitted.kept };
            these.pairs += 1;
            these.preferred += u64::from(row.delta > 0.0);
        }
        fitted
    }

    /// Returns the fit to the annotator's labels, before flips.
    pub fn as_annotated(&self) -> Fitted {
        let Self { kept, flipped } = *self;
        Fitted {
            pairs: kept.pairs + flipped.pairs,
            preferred: kept.preferred + (flipped.pairs - flipped.preferred),
        }
    }
}

impl Fitted {
    /// Returns the share that is preferred as labeled; `None` without pairs.
    pub fn accuracy(self) -> Option<f64> {
        (self.pairs > 0).then(|| self.preferred as f64 / self.pairs as f64)
    }

    /// Returns the sum of two fits.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { pairs: self.pairs + other.pairs, preferred: self.preferred + other.preferred }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: u64, pair: &str, flipped: bool, delta: f64) -> TrainedPair {
        TrainedPair { step, epoch: 1.0, pair: pair.to_owned(), flipped, delta }
    }

    #[test]
    fn the_last_measurement_of_a_pair_counts() {
        let rows = [
            row(1, "kept", false, 0.0),
            row(1, "turned", true, 0.0),
            row(2, "kept", false, 0.3),
            row(2, "turned", true, -0.2),
            row(3, "turned", true, 0.1),
        ];
        let early = FittedLabels::by(2, &rows);
        assert_eq!(early.kept, Fitted { pairs: 1, preferred: 1 });
        assert_eq!(early.flipped, Fitted { pairs: 1, preferred: 0 });
        assert_eq!(early.as_annotated().accuracy(), Some(1.0), "it does not fit the flipped label yet");
        let late = FittedLabels::by(3, &rows);
        assert_eq!(late.flipped.accuracy(), Some(1.0));
        assert_eq!(late.as_annotated().accuracy(), Some(0.5));
        assert_eq!(FittedLabels::by(0, &rows).kept.accuracy(), None);
    }
}
