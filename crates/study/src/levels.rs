//! The levels of a property that a question varies.

use experiment::{Cell, Subject};
use pref_data::{FlipRate, Fraction};
use trainer::recipe::LossKind;

/// A property of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// The share of the pairs.
    Volume,
    /// The share of flipped labels.
    Noise,
}

/// The levels of a property, and the losses under which a question varies it.
#[derive(Clone, Debug)]
pub(crate) struct Levels<'a> {
    pub(crate) axis: Axis,
    pub(crate) values: Vec<f64>,
    pub(crate) losses: &'a [LossKind],
}

impl Axis {
    fn value_of(self, cell: &Cell) -> f64 {
        match self {
            Self::Volume => cell.fraction.get(),
            Self::Noise => cell.flip_rate.get(),
        }
    }

    /// Returns whether a subject is a trained policy at a level, after the checkpoint with index `last`.
    pub(crate) fn is_at(self, subject: &Subject, level: f64, last: usize) -> bool {
        matches!(subject, Subject::Trained { cell, checkpoint }
            if *checkpoint == last && self.value_of(cell) == level)
    }

    /// Returns the heading of its levels.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Volume => "Share of pairs",
            Self::Noise => "Flipped labels",
        }
    }

    /// Returns the words after a level in percent.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Volume => "of the pairs",
            Self::Noise => "flipped",
        }
    }
}

impl<'a> Levels<'a> {
    pub(crate) fn of_volume(shares: &[Fraction], losses: &'a [LossKind]) -> Self {
        Self { axis: Axis::Volume, values: shares.iter().map(|share| share.get()).collect(), losses }
    }

    /// Returns the level that the others are compared with: the largest volume.
    pub(crate) fn reference(&self) -> Option<f64> {
        let largest = self.values.iter().copied().max_by(f64::total_cmp);
        largest.filter(|_| self.axis == Axis::Volume && self.values.len() > 1)
    }

    pub(crate) fn of_noise(rates: &[FlipRate], losses: &'a [LossKind]) -> Self {
        Self { axis: Axis::Noise, values: rates.iter().map(|rate| rate.get()).collect(), losses }
    }
}
