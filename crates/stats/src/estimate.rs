//! Means with standard errors and degrees of freedom.

use serde::{Deserialize, Serialize};

use crate::distribution::{length, moments, t_cdf, t_quantile};
use crate::error::{check_finite, check_level};
use crate::{Error, Interval};

/// A mean with its standard error: the input of t-intervals, equivalence tests and power.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanEstimate {
    /// The mean, or the mean difference.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error.
    pub degrees_of_freedom: f64,
}

impl MeanEstimate {
    /// Computes the mean of independent `values`, such as one difference per question.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`]; [`Error::TooFewClusters`] below two values.
    ///
    /// ```
    /// let mean = stats::MeanEstimate::of(&[1.0, 2.0, 3.0, 4.0])?;
    /// assert_eq!((mean.value, mean.degrees_of_freedom), (2.5, 3.0));
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn of(values: &[f64]) -> Result<Self, Error> {
        check_finite(values)?;
        if values.len() < 2 {
            return Err(Error::TooFewClusters { clusters: values.len() });
        }
        let (value, squares) = moments(values);
        let degrees_of_freedom = length(values.len()) - 1.0;
        let standard_error = (squares / degrees_of_freedom / length(values.len())).sqrt();
        Ok(Self { value, standard_error, degrees_of_freedom })
    }

    /// The t-interval: value ± t · standard error, with t the (1 + `level`)/2 quantile at the degrees of freedom.
    ///
    /// # Errors
    ///
    /// [`Error::Level`].
    ///
    /// ```
    /// let mean = stats::MeanEstimate { value: 0.3, standard_error: 0.1, degrees_of_freedom: 79.0 };
    /// let interval = mean.interval(0.95)?;
    /// assert!((interval.low - 0.101).abs() < 1e-3 && (interval.high - 0.499).abs() < 1e-3);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn interval(&self, level: f64) -> Result<Interval, Error> {
        check_level(level)?;
        let half = t_quantile(f64::midpoint(1.0, level), self.degrees_of_freedom) * self.standard_error;
        Ok(Interval { low: self.value - half, high: self.value + half, level })
    }

    /// Computes the two-sided p-value of a mean of 0. The t-interval at level 1 − p ends at 0.
    ///
    /// ```
    /// let mean = stats::MeanEstimate { value: 0.3, standard_error: 0.1, degrees_of_freedom: 79.0 };
    /// let p = mean.p_value();
    /// assert!((0.0035..0.0037).contains(&p));
    /// assert!(mean.interval(1.0 - p)?.low.abs() < 1e-6);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn p_value(&self) -> f64 {
        if self.standard_error > 0.0 {
            2.0 * t_cdf(-(self.value / self.standard_error).abs(), self.degrees_of_freedom)
        } else {
            f64::from(u8::from(self.value == 0.0))
        }
    }
}

/// Returns the sum of variances `(value, degrees of freedom)`, and Satterthwaite's degrees of freedom.
pub(crate) fn satterthwaite(terms: &[(f64, f64)]) -> (f64, f64) {
    let variance: f64 = terms.iter().map(|(value, _)| value).sum();
    let denominator: f64 = terms.iter().map(|(value, df)| value * value / df).sum();
    // For constant scores the interval has width 0 for every number of degrees of freedom.
    let df = if denominator > 0.0 { variance * variance / denominator } else { terms[0].1 };
    (variance, df)
}
