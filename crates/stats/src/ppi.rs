//! Prediction-powered inference: a judge scores all items, people rate some of them.

use serde::{Deserialize, Serialize};

use crate::distribution::{length, moments};
use crate::error::check_finite;
use crate::estimate::satterthwaite;
use crate::{Error, MeanEstimate, VarianceParts};

/// An item with both scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatedItem {
    /// The people's rating, which is the ground truth.
    pub rating: f64,
    /// The judge's score.
    pub judged: f64,
}

/// A mean that ratings correct and judgments make more precise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PpiEstimate {
    /// The corrected mean.
    pub mean: MeanEstimate,
    /// The weight of the judge, in \[0, 1\]: 0 ignores it.
    pub lambda: f64,
    /// The number of rated items.
    pub rated: usize,
    /// The number of items that only the judge scored.
    pub unrated: usize,
}

/// Computes the mean rating over all items by prediction-powered inference with power tuning (PPI++; Angelopoulos,
/// Duchi and Zrnic 2023, arXiv:2311.01453).
///
/// With n rated items (y, f) and m items that have a judgment f only:
/// - the estimate is ȳ + λ (f̄ of the unrated − f̄ of the rated);
/// - its variance is var(y − λf)/n + λ² var(f of the unrated)/m;
/// - λ = cov(y, f)/((1 + n/m) var(f)), clamped to \[0, 1\], with var(f) over all items.
///
/// The estimate is unbiased however biased the judge is, if the rated items are a random sample. With λ = 0 it is the
/// mean rating. Degrees of freedom are Satterthwaite's, which matter for few ratings.
///
/// For a *difference* between two policies on the same questions, pass the differences of ratings and of judgments, one
/// per question. For different questions use [`PpiEstimate::minus`].
///
/// # Errors
///
/// [`Error::NotFinite`]; [`Error::TooFewClusters`] below two rated or two unrated items.
///
/// ```
/// use stats::{RatedItem, ppi_mean};
///
/// // The judge is two points too generous, and follows the ratings otherwise.
/// let rating = |i: u32| f64::from(i * 37 % 11);
/// let rated: Vec<RatedItem> =
///     (0..20).map(|i| RatedItem { rating: rating(i), judged: rating(i) + 2.0 }).collect();
/// let judged: Vec<f64> = (20..200).map(|i| rating(i) + 2.0).collect();
/// let corrected = ppi_mean(&rated, &judged)?;
/// assert!((corrected.mean.value - 5.0).abs() < 0.1, "the bias of 2 is gone");
/// assert!(corrected.lambda > 0.8);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn ppi_mean(rated: &[RatedItem], unrated: &[f64]) -> Result<PpiEstimate, Error> {
    let ratings: Vec<f64> = rated.iter().map(|item| item.rating).collect();
    let judged: Vec<f64> = rated.iter().map(|item| item.judged).collect();
    for values in [&ratings[..], &judged, unrated] {
        check_finite(values)?;
        if values.len() < 2 {
            return Err(Error::TooFewClusters { clusters: values.len() });
        }
    }
    let (n, m) = (length(rated.len()), length(unrated.len()));
    let lambda = lambda(&ratings, &judged, unrated);
    let (rating_mean, _) = moments(&ratings);
    let (rated_mean, _) = moments(&judged);
    let (unrated_mean, unrated_squares) = moments(unrated);
    let rectified: Vec<f64> = rated.iter().map(|item| item.rating - lambda * item.judged).collect();
    let (_, rectified_squares) = moments(&rectified);
    let (variance, degrees_of_freedom) = satterthwaite(&[
        (rectified_squares / (n - 1.0) / n, n - 1.0),
        (lambda * lambda * unrated_squares / (m - 1.0) / m, m - 1.0),
    ]);
    let mean = MeanEstimate {
        value: rating_mean + lambda * (unrated_mean - rated_mean),
        standard_error: variance.sqrt(),
        degrees_of_freedom,
    };
    Ok(PpiEstimate { mean, lambda, rated: rated.len(), unrated: unrated.len() })
}

/// A mean over items by people alone, and by the judge as their ratings correct it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorrectedMean {
    /// The mean of the ratings.
    pub people: MeanEstimate,
    /// The judge's mean, corrected.
    pub corrected: MeanEstimate,
    /// The weight of the judge, in \[0, 1\]: 0 ignores it.
    pub lambda: f64,
    /// The number of rated items.
    pub rated: usize,
}

/// Computes [`ppi_mean`] next to the mean of the ratings alone, both with the variance between seeds in `parts`, which the
/// judge's scores of all items estimate.
///
/// With fewer than two unrated items, the corrected mean is that of the ratings.
///
/// # Errors
///
/// [`Error::NotFinite`]; [`Error::TooFewClusters`] below two rated items.
///
/// ```
/// use stats::{RatedItem, correct_by_people, ppi_mean};
///
/// let rated: Vec<RatedItem> = (0..9).map(|i| RatedItem { rating: f64::from(i % 4), judged: f64::from(i % 3) }).collect();
/// let found = correct_by_people(&rated, &[1.0, 2.0, 0.0], None)?;
/// assert_eq!(found.corrected, ppi_mean(&rated, &[1.0, 2.0, 0.0])?.mean);
/// assert_eq!(correct_by_people(&rated, &[], None)?.corrected, found.people);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn correct_by_people(
    rated: &[RatedItem],
    unrated: &[f64],
    parts: Option<&VarianceParts>,
) -> Result<CorrectedMean, Error> {
    let people = MeanEstimate::of(&rated.iter().map(|item| item.rating).collect::<Vec<_>>())?;
    let (corrected, lambda) = match unrated.len() {
        0 | 1 => (people, 0.0),
        _ => {
            let found = ppi_mean(rated, unrated)?;
            (found.mean, found.lambda)
        }
    };
    let over_seeds = |mean: MeanEstimate| parts.map_or(mean, |parts| parts.over_seeds(mean));
    let (people, corrected) = (over_seeds(people), over_seeds(corrected));
    Ok(CorrectedMean { people, corrected, lambda, rated: rated.len() })
}

impl PpiEstimate {
    /// Returns the difference `self` − `other` of two estimates over different items.
    ///
    /// ```
    /// use stats::{RatedItem, ppi_mean};
    ///
    /// let of = |shift: f64| {
    ///     let score = |i: u32| f64::from(i % 7) + shift;
    ///     let rated: Vec<_> = (0..14).map(|i| RatedItem { rating: score(i), judged: score(i) }).collect();
    ///     let judged: Vec<f64> = (14..70).map(score).collect();
    ///     ppi_mean(&rated, &judged)
    /// };
    /// let difference = of(1.5)?.minus(&of(0.0)?);
    /// assert!((difference.value - 1.5).abs() < 1e-9);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn minus(&self, other: &Self) -> MeanEstimate {
        let term = |mean: &MeanEstimate| (mean.standard_error.powi(2), mean.degrees_of_freedom);
        let (variance, degrees_of_freedom) = satterthwaite(&[term(&self.mean), term(&other.mean)]);
        MeanEstimate {
            value: self.mean.value - other.mean.value,
            standard_error: variance.sqrt(),
            degrees_of_freedom,
        }
    }
}

/// Returns the weight of the judge with the smallest variance.
fn lambda(ratings: &[f64], judged: &[f64], unrated: &[f64]) -> f64 {
    let (n, m) = (length(ratings.len()), length(unrated.len()));
    let ((rating_mean, _), (judged_mean, _)) = (moments(ratings), moments(judged));
    let pairs = ratings.iter().zip(judged);
    let covariance = pairs.map(|(y, f)| (y - rating_mean) * (f - judged_mean)).sum::<f64>() / n;
    let (_, squares) = moments(&[judged, unrated].concat());
    let variance = squares / (n + m - 1.0);
    if variance > 0.0 { (covariance / ((1.0 + n / m) * variance)).clamp(0.0, 1.0) } else { 0.0 }
}
