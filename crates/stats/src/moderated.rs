//! Moderated variances: many small samples share a prior for their variances.

use serde::{Deserialize, Serialize};
use statrs::function::gamma::digamma;

use crate::Error;
use crate::distribution::{bisect, length, median, trigamma};

/// A variance estimate with its degrees of freedom.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanSquare {
    /// The estimate.
    pub value: f64,
    /// Its degrees of freedom.
    pub degrees_of_freedom: f64,
}

/// Variances that [`moderate_variances`] has shrunk towards a common value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModeratedVariances {
    /// The prior variance s₀² with its degrees of freedom d₀, which are infinite if the variances do not differ.
    pub prior: MeanSquare,
    /// The moderated variances, in the order of the input, with d₀ + d degrees of freedom.
    ///
    /// The degrees of freedom are at most the sum over the input.
    pub moderated: Vec<MeanSquare>,
}

/// The smallest variance that counts, relative to the median: log 0 is not finite.
const FLOOR: f64 = 1e-5;

/// Shrinks variances towards a common prior: s̃² = (d₀ s₀² + d s²)/(d₀ + d) (Smyth, *Statistical Applications in
/// Genetics and Molecular Biology* 3, 2004; the R package limma).
///
/// s₀² and d₀ are the moment estimates of log s². If the variances vary no more than chance explains, d₀ is infinite
/// and every moderated variance is the pooled one. Mean squares with 0 degrees of freedom get the prior.
///
/// Use it for 20 or more variances. With fewer the estimate of d₀ is so uncertain that tests with moderated variances
/// exceed their level; pool them instead.
///
/// # Errors
///
/// [`Error::NotFinite`] for a value or degrees of freedom that are negative or not finite; [`Error::OneSeed`] without
/// degrees of freedom.
///
/// ```
/// use stats::{MeanSquare, moderate_variances};
///
/// let squares = [0.5, 4.0, 0.1, 9.0, 0.02].map(|value| MeanSquare { value, degrees_of_freedom: 4.0 });
/// let found = moderate_variances(&squares)?;
/// assert!(found.moderated[3].value < 9.0 && found.moderated[4].value > 0.02);
/// assert_eq!(found.moderated[0].degrees_of_freedom, found.prior.degrees_of_freedom + 4.0);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn moderate_variances(mean_squares: &[MeanSquare]) -> Result<ModeratedVariances, Error> {
    for (row, square) in mean_squares.iter().enumerate() {
        let MeanSquare { value, degrees_of_freedom } = *square;
        if let Some(&value) = [value, degrees_of_freedom].iter().find(|x| !(x.is_finite() && **x >= 0.0)) {
            return Err(Error::NotFinite { row, cluster: row as u64, value });
        }
    }
    let Some(pooled) = pool_variances(mean_squares) else { return Err(Error::OneSeed) };
    let known: Vec<MeanSquare> =
        mean_squares.iter().filter(|square| square.degrees_of_freedom > 0.0).copied().collect();
    let prior = prior_of(&known).unwrap_or(MeanSquare { degrees_of_freedom: f64::INFINITY, ..pooled });
    let moderated = mean_squares.iter().map(|&MeanSquare { value, degrees_of_freedom: d }| {
        let MeanSquare { value: s0, degrees_of_freedom: d0 } = prior;
        let value = if d0.is_finite() { (d0 * s0 + d * value) / (d0 + d) } else { s0 };
        MeanSquare { value, degrees_of_freedom: (d0 + d).min(pooled.degrees_of_freedom) }
    });
    Ok(ModeratedVariances { prior, moderated: moderated.collect() })
}

/// Returns the mean of the variances, weighted by their degrees of freedom; `None` without degrees of freedom.
pub(crate) fn pool_variances(mean_squares: &[MeanSquare]) -> Option<MeanSquare> {
    let degrees_of_freedom: f64 = mean_squares.iter().map(|square| square.degrees_of_freedom).sum();
    let sum: f64 = mean_squares.iter().map(|square| square.value * square.degrees_of_freedom).sum();
    (degrees_of_freedom > 0.0).then(|| MeanSquare { value: sum / degrees_of_freedom, degrees_of_freedom })
}

/// Estimates s₀² and d₀ by the moments of log s²; `None` if the variances vary no more than chance explains.
fn prior_of(known: &[MeanSquare]) -> Option<MeanSquare> {
    if known.len() < 2 {
        return None;
    }
    let mut values: Vec<f64> = known.iter().map(|square| square.value).collect();
    values.sort_unstable_by(f64::total_cmp);
    let floor = FLOOR * median(&values);
    if floor <= 0.0 {
        return None;
    }
    // log s² has expectation log σ² + ψ(d/2) − log(d/2) and variance ψ′(d/2).
    let logs: Vec<f64> = known
        .iter()
        .map(|square| {
            let half = square.degrees_of_freedom / 2.0;
            square.value.max(floor).ln() - digamma(half) + half.ln()
        })
        .collect();
    let n = length(logs.len());
    let mean = logs.iter().sum::<f64>() / n;
    let spread = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let chance = known.iter().map(|square| trigamma(square.degrees_of_freedom / 2.0)).sum::<f64>() / n;
    let excess = spread - chance;
    if excess <= 0.0 {
        return None;
    }
    let half = trigamma_inverse(excess);
    let value = (mean + digamma(half) - half.ln()).exp();
    Some(MeanSquare { value, degrees_of_freedom: 2.0 * half })
}

/// Returns the y with ψ′(y) = x, for x > 0.
fn trigamma_inverse(x: f64) -> f64 {
    // 1/y < ψ′(y) < 1/y + 1/y².
    let (low, high) = (1.0 / x, (1.0 + (1.0 + 4.0 * x).sqrt()) / (2.0 * x));
    bisect(low, high, |y| trigamma(y) <= x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigamma_inverse_inverts_trigamma() {
        for y in [1e-3, 0.1, 0.5, 1.0, 3.7, 40.0, 1e4] {
            assert!((trigamma_inverse(trigamma(y)) / y - 1.0).abs() < 1e-9, "{y}");
        }
        // ψ′(1) = π²/6 and ψ′(½) = π²/2.
        assert!((trigamma(1.0) - std::f64::consts::PI.powi(2) / 6.0).abs() < 1e-13);
        assert!((trigamma(0.5) - std::f64::consts::PI.powi(2) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn equal_variances_are_pooled_and_missing_ones_get_the_prior() {
        let squares = [1.0, 1.2, 0.9, 0.0].map(|value| MeanSquare { value, degrees_of_freedom: 3.0 });
        let mut squares = squares.to_vec();
        squares[3].degrees_of_freedom = 0.0;
        let found = moderate_variances(&squares).unwrap();
        assert_eq!(found.prior.degrees_of_freedom, f64::INFINITY);
        let pooled = MeanSquare { value: 3.1 / 3.0, degrees_of_freedom: 9.0 };
        assert!(found.moderated.iter().all(|square| (square.value - pooled.value).abs() < 1e-12));
        assert!(found.moderated.iter().all(|square| square.degrees_of_freedom == 9.0));
        assert_eq!(moderate_variances(&[]), Err(Error::OneSeed));
        let constant = [MeanSquare { value: 0.0, degrees_of_freedom: 1.0 }; 3];
        assert_eq!(moderate_variances(&constant).unwrap().moderated[0].value, 0.0);
        let negative = [MeanSquare { value: -1.0, degrees_of_freedom: 1.0 }];
        assert!(matches!(moderate_variances(&negative), Err(Error::NotFinite { row: 0, .. })));
    }
}
