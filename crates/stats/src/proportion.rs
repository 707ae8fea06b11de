//! Intervals of proportions.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::distribution::{beta_quantile, normal_quantile, to_f64};
use crate::error::check_level;

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level, such as 0.95.
    pub level: f64,
}

/// Wilson's score interval of a proportion p̂ = `successes`/`trials`, without continuity correction: (p̂ + z²/2n ± z
/// √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n), where z is the normal quantile of (1 + `level`)/2 (Wilson, *Journal of the
/// American Statistical Association* 22, 1927). It stays within 0 and 1, and covers `level` on average over
/// proportions; the textbook p̂ ± z √(p̂(1 − p̂)/n) does neither. It assumes independent trials.
///
/// # Errors
///
/// [`Error::Proportion`] without trials or with more successes than trials; [`Error::Level`].
///
/// ```
/// let interval = stats::wilson_interval(63, 160, 0.95)?;
/// assert!((interval.low - 0.3213875070).abs() < 1e-9);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn wilson_interval(successes: u64, trials: u64, level: f64) -> Result<Interval, Error> {
    check(successes, trials, level)?;
    let z = normal_quantile(f64::midpoint(1.0, level));
    let n = to_f64(trials);
    let p = to_f64(successes) / n;
    let shrink = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / shrink;
    let half_width = z / shrink * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // At 0 and n successes one end is 0 or 1 exactly; rounding must not carry it past that.
    let low = if successes == 0 { 0.0 } else { (centre - half_width).max(0.0) };
    let high = if successes == trials { 1.0 } else { (centre + half_width).min(1.0) };
    Ok(Interval { low, high, level })
}

/// The exact interval of a proportion (Clopper and Pearson, *Biometrika* 26, 1934): the proportions that two
/// one-sided binomial tests at (1 − `level`)/2 do not reject. Its ends are quantiles of beta distributions.
///
/// Its coverage is at least `level`, and usually more. [`wilson_interval`] is narrower and has coverage `level` on
/// average.
///
/// # Errors
///
/// As [`wilson_interval`].
///
/// ```
/// let interval = stats::clopper_pearson_interval(0, 10, 0.95)?;
/// assert_eq!(interval.low, 0.0);
/// assert!((interval.high - 0.3084971078).abs() < 1e-9, "nothing in ten trials may still be three in ten");
/// # Ok::<(), stats::Error>(())
/// ```
pub fn clopper_pearson_interval(successes: u64, trials: u64, level: f64) -> Result<Interval, Error> {
    check(successes, trials, level)?;
    let tail = (1.0 - level) / 2.0;
    let (hits, misses) = (to_f64(successes), to_f64(trials - successes));
    let low = if successes == 0 { 0.0 } else { beta_quantile(tail, hits, misses + 1.0) };
    let high = if successes == trials { 1.0 } else { 1.0 - beta_quantile(tail, misses, hits + 1.0) };
    Ok(Interval { low, high, level })
}

fn check(successes: u64, trials: u64, level: f64) -> Result<(), Error> {
    check_level(level)?;
    if trials == 0 || successes > trials {
        return Err(Error::Proportion { successes, trials });
    }
    Ok(())
}
