//! Claims with verdicts.

use std::fmt;

/// The verdict of the printed numbers on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintedVerdict {
    /// The numbers support the claim, as far as one run per cell can.
    Survives,
    /// The numbers contradict the claim.
    Contradicted,
    /// The numbers support neither the claim nor its opposite.
    NotDistinguishable,
    /// The numbers contradict each other.
    Inconsistent,
}

impl fmt::Display for PrintedVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Survives => "survives",
            Self::Contradicted => "contradicted",
            Self::NotDistinguishable => "not distinguishable",
            Self::Inconsistent => "inconsistent",
        })
    }
}

/// A claim with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct PrintedClaim {
    /// The tables that contain it.
    pub place: &'static str,
    /// The claim.
    pub says: &'static str,
    /// The result of the test.
    pub finding: String,
    /// The verdict.
    pub verdict: PrintedVerdict,
}
