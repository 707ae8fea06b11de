//! Equivalence tests.

use serde::{Deserialize, Serialize};

use crate::distribution::t_cdf;
use crate::{Error, MeanEstimate, holm};

/// The result of an equivalence test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Equivalence {
    /// The p-value: the larger one of the two one-sided tests.
    pub p_value: f64,
    /// p of "the difference is −margin or less".
    pub p_below: f64,
    /// p of "the difference is margin or more".
    pub p_above: f64,
    /// The margin, in score points.
    pub margin: f64,
}

/// Two one-sided t-tests (Schuirmann, *Journal of Pharmacokinetics and Biopharmaceutics* 15, 1987): tests whether the
/// absolute difference is smaller than `margin`.
///
/// A difference that is not significant is not evidence of equivalence. The null hypothesis of this test is a
/// difference of `margin` or more. p ≤ 0.05 is the same as a 90% t-interval within ±`margin`. Choose the margin
/// before you see the data: the largest difference that does not matter.
///
/// It assumes an approximately normal estimate: means over about twenty questions or more.
///
/// # Errors
///
/// [`Error::Margin`] unless the margin is positive.
///
/// ```
/// use stats::{MeanEstimate, equivalence_test};
///
/// let difference = MeanEstimate { value: 0.02, standard_error: 0.15, degrees_of_freedom: 79.0 };
/// assert!(equivalence_test(&difference, 0.1)?.p_value > 0.05, "not seen, but not excluded either");
/// assert!(equivalence_test(&difference, 0.5)?.p_value < 0.05);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn equivalence_test(difference: &MeanEstimate, margin: f64) -> Result<Equivalence, Error> {
    if !(margin > 0.0 && margin.is_finite()) {
        return Err(Error::Margin { margin });
    }
    let MeanEstimate { value, standard_error, degrees_of_freedom } = *difference;
    let p = |distance: f64| {
        if standard_error > 0.0 {
            t_cdf(-distance / standard_error, degrees_of_freedom)
        } else {
            f64::from(u8::from(distance <= 0.0))
        }
    };
    let (p_below, p_above) = (p(value + margin), p(margin - value));
    Ok(Equivalence { p_value: p_below.max(p_above), p_below, p_above, margin })
}

/// Tests each of several differences for equivalence; the p-values are Holm's over the family.
///
/// # Errors
///
/// As [`equivalence_test`].
///
/// ```
/// use stats::{MeanEstimate, equivalence_test, equivalence_tests};
///
/// let near = |value: f64| MeanEstimate { value, standard_error: 0.1, degrees_of_freedom: 79.0 };
/// let family = equivalence_tests(&[near(0.0), near(0.05), near(0.2)], 0.3)?;
/// assert_eq!(family[0].p_value, 3.0 * equivalence_test(&near(0.0), 0.3)?.p_value);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn equivalence_tests(differences: &[MeanEstimate], margin: f64) -> Result<Vec<Equivalence>, Error> {
    let tests = differences.iter().map(|difference| equivalence_test(difference, margin));
    let tests: Vec<Equivalence> = tests.collect::<Result<_, _>>()?;
    let p_values: Vec<f64> = tests.iter().map(|test| test.p_value).collect();
    Ok(tests
        .into_iter()
        .zip(holm(&p_values)?)
        .map(|(test, p_value)| Equivalence { p_value, ..test })
        .collect())
}

/// What a study shows about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The difference is within the margin, whether or not it is significant.
    Equivalent,
    /// The difference is significantly above 0, and not shown to be within the margin.
    Higher,
    /// The difference is significantly below 0, and not shown to be within the margin.
    Lower,
    /// Neither a difference nor equivalence is shown.
    Inconclusive,
    /// No difference is shown, and the study cannot show that there is none: its assay gate failed.
    NotInterpretable,
}

/// Whether a study is able to detect an effect that is known to exist.
///
/// An absent effect is only interpretable in such a study. The known effect is a positive control, such as the
/// difference between training on clean labels and no preference training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assay {
    /// The positive control is significant, in its direction.
    Sensitive,
    /// It is not.
    NotSensitive,
}

impl Assay {
    /// Tests a positive control whose true difference is above 0, at the two-sided level `alpha`.
    ///
    /// ```
    /// use stats::{Assay, MeanEstimate};
    ///
    /// let control = MeanEstimate { value: 0.2, standard_error: 0.2, degrees_of_freedom: 79.0 };
    /// assert_eq!(Assay::of(&control, 0.05), Assay::NotSensitive);
    /// ```
    pub fn of(control: &MeanEstimate, alpha: f64) -> Self {
        if control.value > 0.0 && control.p_value() <= alpha { Self::Sensitive } else { Self::NotSensitive }
    }
}

impl Conclusion {
    /// Draws the conclusion from a difference, its p-value and the test of its equivalence, all at level `alpha`.
    ///
    /// Pass p-values that are corrected for the number of comparisons. Equivalence comes first: a difference within the
    /// margin is equivalent even if it is significant. A null result needs a sensitive assay.
    ///
    /// ```
    /// use stats::{Assay, Conclusion, MeanEstimate, equivalence_test};
    ///
    /// let small = MeanEstimate { value: 0.1, standard_error: 0.02, degrees_of_freedom: 79.0 };
    /// let test = equivalence_test(&small, 0.3)?;
    /// assert!(small.p_value() < 0.05);
    /// let conclude = |assay| Conclusion::of(&small, small.p_value(), &test, assay, 0.05);
    /// assert_eq!(conclude(Assay::Sensitive), Conclusion::Equivalent);
    /// assert_eq!(conclude(Assay::NotSensitive), Conclusion::NotInterpretable);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn of(difference: &MeanEstimate, p_value: f64, test: &Equivalence, assay: Assay, alpha: f64) -> Self {
        let is_equivalent = test.p_value <= alpha;
        match (is_equivalent, p_value <= alpha, assay) {
            (true, _, Assay::Sensitive) => Self::Equivalent,
            (true, _, Assay::NotSensitive) | (false, false, Assay::NotSensitive) => Self::NotInterpretable,
            (false, true, _) if difference.value > 0.0 => Self::Higher,
            (false, true, _) => Self::Lower,
            (false, false, Assay::Sensitive) => Self::Inconclusive,
        }
    }
}
