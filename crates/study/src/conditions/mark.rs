//! Whether a pattern arises in a place of the map.

use crate::claims::Expectation;
use crate::tested::Measured;
use crate::verdict::{Verdict, on_claim};

/// Whether a pattern arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The pattern is shown.
    Arises,
    /// Its opposite, or an effect within the margin, is shown.
    Absent,
    /// Nothing is shown, and training on clean labels shows no gain over SFT either.
    Insensitive,
    /// Nothing is shown, and the minimum detectable effect is above the margin.
    TooSmall,
    /// Nothing is shown, although effects of the margin's size are detectable.
    Undecided,
}

impl Mark {
    pub(crate) const ALL: [Self; 5] =
        [Self::Arises, Self::Absent, Self::Insensitive, Self::TooSmall, Self::Undecided];

    /// Returns the mark of a comparison, by the study's rules for claims.
    pub(crate) fn of(measured: &Measured, expects: Expectation, margin: f64) -> Self {
        match on_claim(&measured.shown, expects) {
            Verdict::Reproduced | Verdict::ReproducedEquivalent => Self::Arises,
            Verdict::Contradicted | Verdict::ContradictedEquivalent => Self::Absent,
            Verdict::NotInterpretable => Self::Insensitive,
            _ if measured.mde.value > margin => Self::TooSmall,
            _ => Self::Undecided,
        }
    }

    /// Returns the mark in words, for a legend.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arises => "arises",
            Self::Absent => "does not arise",
            Self::Insensitive => "cannot be seen: clean − SFT is not seen",
            Self::TooSmall => "cannot be seen: MDE above the margin",
            Self::Undecided => "undecided",
        }
    }

    /// Returns the mark in a cell of a table.
    pub(super) fn short(self) -> &'static str {
        match self {
            Self::Arises => "arises",
            Self::Absent => "absent",
            Self::Insensitive => "assay",
            Self::TooSmall => "MDE",
            Self::Undecided => "undecided",
        }
    }
}
