//! Which labels a policy learned: the pairs that it was trained on, those whose label was flipped told from the others.

use std::collections::BTreeMap;

use trainer::{RunDir, TrainedPair};

use crate::error::StudyError;

/// How a policy stands to the labels that it was trained on, each pair as it was found the last time that it was trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FittedLabels {
    /// Pairs whose label is as the annotator gave it.
    pub kept: Fitted,
    /// Pairs whose label was flipped.
    pub flipped: Fitted,
}

/// Pairs, and how many of them a policy prefers as their label says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// How many there are.
    pub pairs: u64,
    /// Of these, those with Δ > 0: the implicit reward of the response that the label prefers is the higher one.
    pub preferred: u64,
}

impl FittedLabels {
    /// What the run in `dir` had made of its labels by `step`; `None` where it did not keep the pairs' Δ.
    pub(crate) fn of(dir: &RunDir, step: u64) -> Result<Option<Self>, StudyError> {
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

    /// The pairs of both kinds, and how many of them the policy prefers as the annotator labelled them, before any flip.
    pub fn as_annotated(&self) -> Fitted {
        let Self { kept, flipped } = *self;
        Fitted {
            pairs: kept.pairs + flipped.pairs,
            preferred: kept.preferred + (flipped.pairs - flipped.preferred),
        }
    }
}

impl Fitted {
    /// The share that is preferred as labelled; `None` of no pairs.
    pub fn accuracy(self) -> Option<f64> {
        (self.pairs > 0).then(|| self.preferred as f64 / self.pairs as f64)
    }

    pub(crate) fn with(self, other: Self) -> Self {
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
    fn each_pair_counts_as_it_was_found_last() {
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
        assert_eq!(early.as_annotated().accuracy(), Some(1.0), "it does not believe the flipped label yet");
        let late = FittedLabels::by(3, &rows);
        assert_eq!(late.flipped.accuracy(), Some(1.0));
        assert_eq!(late.as_annotated().accuracy(), Some(0.5));
        assert_eq!(FittedLabels::by(0, &rows).kept.accuracy(), None);
    }
}
