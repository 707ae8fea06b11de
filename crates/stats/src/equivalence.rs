//! Claims of "no effect": what must be shown before they may be made.

use serde::{Deserialize, Serialize};

use crate::distribution::t_cdf;
use crate::{Error, MeanEstimate};

/// What a difference and its margin of equivalence amount to.
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

/// Two one-sided t-tests (Schuirmann, *Journal of Pharmacokinetics and Biopharmaceutics* 15, 1987): is the difference
/// smaller than `margin` in either direction?
///
/// That a difference is not significant does not show that there is none. This test turns the burden of proof around: a
/// p below 0.05 says that the difference lies within ±`margin`, which is the same as that its 90% t-interval does. The
/// margin must be chosen before the data are seen: what would be too small to matter, such as 0.1 points of MT-Bench,
/// which re-judging the same answers moves.
///
/// Assumes that the estimate is about normal with its degrees of freedom: means over some twenty questions or more.
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
