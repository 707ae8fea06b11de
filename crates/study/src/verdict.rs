//! The verdict on a claim, and the rules that give it.

use std::fmt;

use experiment::LEVEL;
use stats::Assay;

use crate::claims::Expectation;

/// p-values below this are significant.
pub(crate) const SIGNIFICANT: f64 = 1.0 - LEVEL;

/// The verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The benchmark found an existing effect.
    TruePositive,
    /// The benchmark did not find an existing effect.
    FalseNegative,
    /// The benchmark found an effect that does not exist, or its opposite.
    FalsePositive,
    /// The benchmark found no effect, and none as large as the margin exists.
    TrueNegative,
    /// The ground truth over new seeds is not known precisely enough.
    TruthUndecided,
    /// The paper's effect was found, or the absence of a fall.
    Reproduced,
    /// The effect is within the margin, as the paper claims.
    ReproducedEquivalent,
    /// The opposite of the paper's effect was found.
    Contradicted,
    /// The effect is within the margin, where the paper claims one.
    ContradictedEquivalent,
    /// An effect without a claim was found.
    Found,
    /// An effect without a claim is within the margin.
    Equivalent,
    /// No effect was found, and the study does not see the effect of training on clean labels either.
    NotInterpretable,
    /// The design cannot distinguish the hypotheses.
    NotDistinguishable,
}

/// What the tests of one scorer show, with p-values that are corrected for all comparisons of a question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// The sign of the estimate is positive.
    pub(crate) is_higher: bool,
    /// p of "there is no effect".
    pub(crate) p: f64,
    /// p of "the effect is as large as the margin or larger".
    pub(crate) equivalence: f64,
    /// p of "the effect is as low as −margin or lower".
    pub(crate) not_lower: f64,
    /// Whether the study sees the effect of training on clean labels.
    pub(crate) assay: Assay,
}

impl Verdict {
    pub(crate) const ALL: [Self; 13] = [
        Self::TruePositive,
        Self::FalseNegative,
        Self::FalsePositive,
        Self::TrueNegative,
        Self::TruthUndecided,
        Self::Reproduced,
        Self::ReproducedEquivalent,
        Self::Contradicted,
        Self::ContradictedEquivalent,
        Self::Found,
        Self::Equivalent,
        Self::NotInterpretable,
        Self::NotDistinguishable,
    ];

    /// Returns whether a larger study could decide.
    pub(crate) fn is_open(self) -> bool {
        matches!(
            self,
            Self::FalseNegative | Self::TruthUndecided | Self::NotInterpretable | Self::NotDistinguishable
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TruePositive => "true positive",
            Self::FalseNegative => "false negative",
            Self::FalsePositive => "false positive",
            Self::TrueNegative => "true negative",
            Self::TruthUndecided => "truth undecided",
            Self::Reproduced => "reproduced",
            Self::ReproducedEquivalent => "reproduced (equivalent)",
            Self::Contradicted => "contradicted",
            Self::ContradictedEquivalent => "contradicted (equivalent)",
            Self::Found => "effect found",
            Self::Equivalent => "equivalent",
            Self::NotInterpretable => "not interpretable",
            Self::NotDistinguishable => "not distinguishable with this design",
        })
    }
}

/// Compares a judge with the ground truth over new seeds.
///
/// An effect exists if it is significant in the ground truth, and does not exist if the ground truth is equivalent to 0.
/// Neither is shown where the seeds vary too much: then no verdict on the judge is possible.
pub(crate) fn against_truth(judge: &Shown, truth: &Shown) -> Verdict {
    let (is_found, exists) = (judge.p < SIGNIFICANT, truth.p < SIGNIFICANT);
    let is_absent = truth.equivalence < SIGNIFICANT;
    match (is_found, exists) {
        (true, true) if judge.is_higher == truth.is_higher => Verdict::TruePositive,
        (true, true) => Verdict::FalsePositive,
        (false, _) if judge.assay == Assay::NotSensitive => Verdict::NotInterpretable,
        (false, true) => Verdict::FalseNegative,
        (true, false) if is_absent => Verdict::FalsePositive,
        (false, false) if is_absent => Verdict::TrueNegative,
        _ => Verdict::TruthUndecided,
    }
}

/// Compares a result with the paper's claim.
///
/// Absence of an effect, whether claimed or found, needs an equivalence test and a study that sees the effect of training
/// on clean labels.
pub(crate) fn on_claim(judge: &Shown, expects: Expectation) -> Verdict {
    let is_found = judge.p < SIGNIFICANT;
    let is_within = match expects {
        Expectation::NotLower => judge.not_lower < SIGNIFICANT,
        _ => judge.equivalence < SIGNIFICANT,
    };
    let open = match judge.assay {
        Assay::Sensitive => Verdict::NotDistinguishable,
        Assay::NotSensitive => Verdict::NotInterpretable,
    };
    let if_sensitive = |verdict| if judge.assay == Assay::Sensitive { verdict } else { open };
    match expects {
        Expectation::Higher | Expectation::Lower if is_found => {
            match judge.is_higher == (expects == Expectation::Higher) {
                true => Verdict::Reproduced,
                false => Verdict::Contradicted,
            }
        }
        Expectation::Higher | Expectation::Lower if is_within => {
            if_sensitive(Verdict::ContradictedEquivalent)
        }
        Expectation::NotLower if is_found && judge.is_higher => Verdict::Reproduced,
        Expectation::NoEffect | Expectation::NotLower if is_within => {
            if_sensitive(Verdict::ReproducedEquivalent)
        }
        Expectation::NoEffect | Expectation::NotLower if is_found => Verdict::Contradicted,
        Expectation::Unclaimed if is_within => if_sensitive(Verdict::Equivalent),
        Expectation::Unclaimed if is_found => Verdict::Found,
        _ => open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Shown =
        Shown { is_higher: true, p: 0.5, equivalence: 0.5, not_lower: 0.5, assay: Assay::Sensitive };
    const BLIND: Shown = Shown { assay: Assay::NotSensitive, ..NOTHING };

    #[test]
    fn a_judge_is_compared_with_the_truth_over_new_seeds() {
        let higher = Shown { p: 0.01, ..NOTHING };
        let lower = Shown { is_higher: false, ..higher };
        let absent = Shown { equivalence: 0.01, ..NOTHING };
        for (judge, truth, verdict) in [
            (higher, higher, Verdict::TruePositive),
            (higher, lower, Verdict::FalsePositive),
            (higher, absent, Verdict::FalsePositive),
            (NOTHING, higher, Verdict::FalseNegative),
            (NOTHING, absent, Verdict::TrueNegative),
            (higher, NOTHING, Verdict::TruthUndecided),
            (NOTHING, NOTHING, Verdict::TruthUndecided),
            (BLIND, absent, Verdict::NotInterpretable),
            (BLIND, higher, Verdict::NotInterpretable),
        ] {
            assert_eq!(against_truth(&judge, &truth), verdict, "{judge:?} {truth:?}");
        }
    }

    #[test]
    fn a_significant_effect_within_the_margin_reproduces_its_absence() {
        let small = Shown { p: 0.001, equivalence: 0.01, not_lower: 0.01, ..NOTHING };
        let blind = Shown { assay: Assay::NotSensitive, ..small };
        for expects in [Expectation::NoEffect, Expectation::NotLower] {
            let small = Shown { is_higher: false, ..small };
            assert_eq!(on_claim(&small, expects), Verdict::ReproducedEquivalent, "{expects:?}");
            let blind = Shown { is_higher: false, ..blind };
            assert_eq!(on_claim(&blind, expects), Verdict::NotInterpretable, "{expects:?}");
        }
        assert_eq!(on_claim(&small, Expectation::Higher), Verdict::Reproduced);
        assert_eq!(on_claim(&small, Expectation::Unclaimed), Verdict::Equivalent);
    }

    #[test]
    fn null_results_need_a_study_that_sees_training() {
        let large = Shown { p: 0.001, is_higher: false, ..NOTHING };
        let absent = Shown { equivalence: 0.01, ..NOTHING };
        for (shown, expects, verdict) in [
            (large, Expectation::Lower, Verdict::Reproduced),
            (large, Expectation::Higher, Verdict::Contradicted),
            (large, Expectation::NoEffect, Verdict::Contradicted),
            (large, Expectation::NotLower, Verdict::Contradicted),
            (large, Expectation::Unclaimed, Verdict::Found),
            (absent, Expectation::Lower, Verdict::ContradictedEquivalent),
            (NOTHING, Expectation::Lower, Verdict::NotDistinguishable),
            (BLIND, Expectation::Lower, Verdict::NotInterpretable),
            (BLIND, Expectation::NoEffect, Verdict::NotInterpretable),
            (Shown { assay: Assay::NotSensitive, ..large }, Expectation::Lower, Verdict::Reproduced),
        ] {
            assert_eq!(on_claim(&shown, expects), verdict, "{shown:?} {expects:?}");
        }
    }
}
