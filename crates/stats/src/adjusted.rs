//! Covariate adjustment of a difference.

use serde::{Deserialize, Serialize};

use crate::distribution::length;
use crate::{Error, MeanEstimate};

/// A least-squares line through pairs of a covariate and a difference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adjusted {
    /// The difference where the covariate is 0.
    pub at_zero: MeanEstimate,
    /// The change of the difference per unit of the covariate.
    pub slope: MeanEstimate,
}

/// Fits `difference = at_zero + slope · covariate` by least squares to `(covariate, difference)`, one pair a
/// question; `None` if the covariate does not vary.
///
/// Use it to control for length: the covariate is the difference in answer length, and `at_zero` is the difference in
/// score at equal length. Dubois et al. (2024, arXiv:2404.04475) do the same for win rates. The adjustment is not
/// causal: the cause of longer answers may also improve them. If no covariate is near 0, `at_zero` is an
/// extrapolation.
///
/// Standard errors are those of ordinary least squares, with n − 2 degrees of freedom.
///
/// # Errors
///
/// [`Error::NotFinite`]; [`Error::TooFewClusters`] below three pairs.
///
/// ```
/// // Each question gains a point for ten characters more, and nothing else.
/// let pairs: Vec<(f64, f64)> = (0..10).map(|k| (f64::from(k * 10), f64::from(k))).collect();
/// let adjusted = stats::adjust(&pairs)?.expect("lengths vary");
/// assert!(adjusted.at_zero.value.abs() < 1e-12, "longer, not better");
/// assert!((adjusted.slope.value - 0.1).abs() < 1e-12);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn adjust(pairs: &[(f64, f64)]) -> Result<Option<Adjusted>, Error> {
    let flat: Vec<f64> = pairs.iter().flat_map(|&(x, y)| [x, y]).collect();
    crate::error::check_finite(&flat)?;
    if pairs.len() < 3 {
        return Err(Error::TooFewClusters { clusters: pairs.len() });
    }
    let n = length(pairs.len());
    let (mean_x, mean_y) =
        (pairs.iter().map(|(x, _)| x).sum::<f64>() / n, pairs.iter().map(|(_, y)| y).sum::<f64>() / n);
    let squares: f64 = pairs.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if squares <= 0.0 {
        return Ok(None);
    }
    let slope = pairs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / squares;
    let at_zero = mean_y - slope * mean_x;
    let left: f64 = pairs.iter().map(|(x, y)| (y - at_zero - slope * x).powi(2)).sum();
    let degrees_of_freedom = n - 2.0;
    let variance = left / degrees_of_freedom;
    let estimate = |value: f64, share: f64| MeanEstimate {
        value,
        standard_error: (variance * share).sqrt(),
        degrees_of_freedom,
    };
    Ok(Some(Adjusted {
        at_zero: estimate(at_zero, 1.0 / n + mean_x * mean_x / squares),
        slope: estimate(slope, 1.0 / squares),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anscombes_first_quartet_gives_its_published_line() {
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        let pairs: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        let Adjusted { at_zero, slope } = adjust(&pairs).unwrap().unwrap();
        assert!((at_zero.value - 3.0001).abs() < 1e-4 && (at_zero.standard_error - 1.1247).abs() < 1e-4);
        assert!((slope.value - 0.5001).abs() < 1e-4 && (slope.standard_error - 0.1179).abs() < 1e-4);
        assert!((at_zero.p_value() - 0.0257).abs() < 1e-4 && (slope.p_value() - 0.0022).abs() < 1e-4);
    }

    #[test]
    fn constant_covariates_have_no_adjustment() {
        assert_eq!(adjust(&[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]).unwrap(), None);
        assert!(matches!(adjust(&[(1.0, 2.0), (2.0, 3.0)]), Err(Error::TooFewClusters { clusters: 2 })));
        assert!(matches!(adjust(&[(f64::NAN, 2.0); 3]), Err(Error::NotFinite { .. })));
    }
}
