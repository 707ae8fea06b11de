//! Bootstrap intervals of means whose values come in clusters.
//!
//! Several values belong to one question: its turns, and its answers under several seeds. They are correlated, so the
//! question is the sampling unit. Each resample draws whole clusters with replacement (the cluster bootstrap; Davison
//! and Hinkley, *Bootstrap Methods and their Application*, 1997, §3.8).

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::clusters::Cluster;
use crate::distribution::{length, normal_cdf, normal_quantile, quantiles};
use crate::error::check_level;
use crate::{ClusteredScores, Error, Resamples};

/// A value and its bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value on the scores themselves.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The interval's confidence level, such as 0.95.
    pub level: f64,
    /// How many clusters were resampled.
    pub clusters: usize,
    /// How many resamples were drawn.
    pub resamples: usize,
}

impl Estimate {
    /// Returns whether the interval excludes `value`, such as 0 for a difference.
    pub fn excludes(&self, value: f64) -> bool {
        value < self.low || self.high < value
    }
}

/// The type of a bootstrap interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The quantiles (1 − level)/2 and (1 + level)/2 of the resamples' values. Adequate for means over about forty
    /// clusters or more.
    #[default]
    Percentile,
    /// Bias-corrected and accelerated (Efron, *Journal of the American Statistical Association* 82, 1987). It adjusts
    /// the quantiles for the median bias of the resamples and the skewness of the jackknife values. It is better than
    /// [`Percentile`](Self::Percentile) for skewed scores, such as scores with a ceiling.
    Bca,
}

/// Computes the mean of `scores` with its percentile interval over `resamples` resamples. Quantiles are interpolated
/// linearly (Hyndman and Fan's type 7, NumPy's default).
///
/// With clusters of unequal size the mean of a resample is the sum of its values divided by their number. For many
/// policies on the same questions see [`mean_intervals`].
///
/// Use it for the score of one model on a sample of questions. It assumes independent clusters. Below about twenty
/// clusters, percentile intervals are too narrow.
///
/// # Errors
///
/// [`Error::TooFewClusters`] below two clusters, [`Error::Level`], [`Error::NoResamples`].
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
///
/// let scores = stats::ClusteredScores::new((0..160).map(|row| (row / 2, [8.0, 5.5, 10.0][row as usize % 3])))?;
/// let estimate = stats::mean_interval(&scores, 10_000, 0.95, &mut ChaCha8Rng::seed_from_u64(0))?;
/// assert!(estimate.low < 7.84 && 7.84 < estimate.high);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn mean_interval(
    scores: &ClusteredScores,
    resamples: usize,
    level: f64,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Estimate, Error> {
    check_level(level)?;
    let draws = Resamples::draw(scores.clusters(), resamples, rng)?;
    Ok(mean_intervals(&[scores], &draws, level, Method::Percentile)?.remove(0))
}

/// Computes the difference of means, `first` − `second`, with its percentile interval. Both sides share the resampled
/// clusters, so that the difficulty of a question cancels.
///
/// A cluster may have different numbers of values on the two sides.
///
/// Use it for "is A better than B" on the same questions; [`sign_flip_test`](crate::sign_flip_test) computes a
/// matching p-value. The interval covers the sampling of questions, not of seeds.
///
/// # Errors
///
/// [`Error::UnpairedClusters`] unless both sides have the same clusters; those of [`mean_interval`].
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{ClusteredScores, paired_difference_interval};
///
/// // Questions differ by points, the models by half a point on each: pairing sees it.
/// let sft = ClusteredScores::new((0..40).map(|q| (q, (q % 9) as f64)))?;
/// let dpo = ClusteredScores::new((0..40).map(|q| (q, (q % 9) as f64 + [0.0, 1.0][q as usize % 2])))?;
/// let difference = paired_difference_interval(&dpo, &sft, 10_000, 0.95, &mut ChaCha8Rng::seed_from_u64(0))?;
/// assert!(difference.value == 0.5 && difference.excludes(0.0));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn paired_difference_interval(
    first: &ClusteredScores,
    second: &ClusteredScores,
    resamples: usize,
    level: f64,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Estimate, Error> {
    first.check_paired(second)?;
    check_level(level)?;
    let draws = Resamples::draw(first.clusters(), resamples, rng)?;
    difference_interval(first, second, &draws, level, Method::Percentile)
}

/// Computes the means of several policies' scores on the same clusters, with intervals from one set of resamples.
///
/// Shared resamples make the intervals of a table comparable and fast. The result does not depend on the number of
/// threads.
///
/// # Errors
///
/// [`Error::ResampledClusters`] where a policy has another number of clusters than `draws`; [`Error::Level`].
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{ClusteredScores, Method, Resamples, mean_intervals};
///
/// let sft = ClusteredScores::new([(81, 5.0), (82, 6.0), (83, 6.5), (84, 10.0)])?;
/// let dpo = ClusteredScores::new([(81, 7.0), (82, 6.0), (83, 9.5), (84, 10.0)])?;
/// let draws = Resamples::draw(4, 10_000, &mut ChaCha8Rng::seed_from_u64(0))?;
/// let estimates = mean_intervals(&[&sft, &dpo], &draws, 0.95, Method::Bca)?;
/// assert!(estimates[1].value > estimates[0].value);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn mean_intervals(
    policies: &[&ClusteredScores],
    draws: &Resamples,
    level: f64,
    method: Method,
) -> Result<Vec<Estimate>, Error> {
    check_level(level)?;
    let columns: Vec<Vec<Cluster>> = policies.iter().map(|policy| policy.columns()).collect();
    let means = draws.means(&columns)?;
    let interval = |(column, mut values): (&Vec<Cluster>, Vec<f64>)| {
        let leave_one_out = || jackknife(column);
        finish(whole(column).mean(), &mut values, draws, level, method, &leave_one_out)
    };
    Ok(columns.iter().zip(means).map(interval).collect())
}

/// Computes the difference of means, `first` − `second`, on the same clusters, both resampled by `draws`.
///
/// # Errors
///
/// [`Error::UnpairedClusters`], and those of [`mean_intervals`].
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{ClusteredScores, Method, Resamples, difference_interval};
///
/// let sft = ClusteredScores::new([(81, 5.0), (82, 6.0), (83, 6.5), (84, 9.0)])?;
/// let dpo = ClusteredScores::new([(81, 7.0), (82, 7.5), (83, 9.5), (84, 10.0)])?;
/// let draws = Resamples::draw(4, 10_000, &mut ChaCha8Rng::seed_from_u64(0))?;
/// let difference = difference_interval(&dpo, &sft, &draws, 0.95, Method::Bca)?;
/// assert_eq!(difference.value, 1.875);
/// assert!(difference.excludes(0.0));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn difference_interval(
    first: &ClusteredScores,
    second: &ClusteredScores,
    draws: &Resamples,
    level: f64,
    method: Method,
) -> Result<Estimate, Error> {
    first.check_paired(second)?;
    check_level(level)?;
    let columns = [first.columns(), second.columns()];
    let [mut firsts, seconds] = draws.means(&columns)?.try_into().unwrap_or_default();
    firsts.iter_mut().zip(&seconds).for_each(|(one, other)| *one -= other);
    let value = whole(&columns[0]).mean() - whole(&columns[1]).mean();
    let leave_one_out = || {
        let (one, other) = (jackknife(&columns[0]), jackknife(&columns[1]));
        one.iter().zip(other).map(|(one, other)| one - other).collect()
    };
    Ok(finish(value, &mut firsts, draws, level, method, &leave_one_out))
}

/// Computes the difference of means of scores on *different* questions, `first` − `second`, with independent
/// resamples. For the same questions use [`paired_difference_interval`], which is more precise.
///
/// # Errors
///
/// As [`mean_interval`], for either side.
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{ClusteredScores, Method, unpaired_difference_interval};
///
/// let coding = ClusteredScores::new((0..10).map(|q| (q, 5.0 + (q % 3) as f64)))?;
/// let writing = ClusteredScores::new((10..22).map(|q| (q, 8.0 + (q % 2) as f64)))?;
/// let rng = &mut ChaCha8Rng::seed_from_u64(0);
/// let gap = unpaired_difference_interval(&writing, &coding, 10_000, 0.95, Method::Percentile, rng)?;
/// assert!(gap.low > 1.0 && gap.clusters == 22);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn unpaired_difference_interval(
    first: &ClusteredScores,
    second: &ClusteredScores,
    resamples: usize,
    level: f64,
    method: Method,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Estimate, Error> {
    check_level(level)?;
    let draws = Resamples::draw(first.clusters(), resamples, rng)?;
    let others = Resamples::draw(second.clusters(), resamples, rng)?;
    let (one, other) = (first.columns(), second.columns());
    let mut values = draws.means(std::slice::from_ref(&one))?.remove(0);
    let subtracted = others.means(std::slice::from_ref(&other))?.remove(0);
    values.iter_mut().zip(subtracted).for_each(|(value, subtracted)| *value -= subtracted);
    let value = whole(&one).mean() - whole(&other).mean();
    // Rescales each side's influence values from its own size to the total size, so that one formula applies.
    let leave_one_out = || {
        let total = length(one.len() + other.len());
        let scaled = |column: &[Cluster], sign: f64| -> Vec<f64> {
            let values = jackknife(column);
            let mean = values.iter().sum::<f64>() / length(values.len());
            let n = length(values.len());
            values.iter().map(|value| sign * (value - mean) * (n - 1.0) / n * total).collect()
        };
        [scaled(&one, 1.0), scaled(&other, -1.0)].concat()
    };
    let estimate = finish(value, &mut values, &draws, level, method, &leave_one_out);
    Ok(Estimate { clusters: one.len() + other.len(), ..estimate })
}

fn whole(column: &[Cluster]) -> Cluster {
    column.iter().fold(Cluster::default(), |all, &one| all.with(one))
}

/// Returns the jackknife means: without each cluster in turn.
fn jackknife(column: &[Cluster]) -> Vec<f64> {
    let all = whole(column);
    column.iter().map(|&cluster| all.without(cluster).mean()).collect()
}

fn finish(
    value: f64,
    draws: &mut [f64],
    resamples: &Resamples,
    level: f64,
    method: Method,
    leave_one_out: &dyn Fn() -> Vec<f64>,
) -> Estimate {
    let tail = (1.0 - level) / 2.0;
    let tails = match method {
        Method::Percentile => [tail, 1.0 - tail],
        Method::Bca => bca_tails(value, draws, tail, &leave_one_out()),
    };
    let [low, high] = quantiles(draws, tails);
    Estimate { value, low, high, level, clusters: resamples.clusters(), resamples: resamples.resamples() }
}

/// Returns the adjusted tail probabilities. Without spread, or with all resamples on one side of the value, no
/// adjustment is defined.
fn bca_tails(value: f64, draws: &[f64], tail: f64, leave_one_out: &[f64]) -> [f64; 2] {
    let n = length(draws.len());
    let below = length(draws.iter().filter(|&&draw| draw < value).count());
    let level = length(draws.iter().filter(|&&draw| draw <= value).count());
    // Resamples equal to the value count half as below: sums of half points are often equal.
    let share = f64::midpoint(below, level) / n;
    let mean = leave_one_out.iter().sum::<f64>() / length(leave_one_out.len());
    let moment = |power: i32| leave_one_out.iter().map(|one| (mean - one).powi(power)).sum::<f64>();
    let spread = moment(2);
    if share <= 0.0 || share >= 1.0 || spread <= 0.0 {
        return [tail, 1.0 - tail];
    }
    let bias = normal_quantile(share);
    let acceleration = moment(3) / (6.0 * spread.powf(1.5));
    [tail, 1.0 - tail].map(|p| {
        let z = bias + normal_quantile(p);
        normal_cdf(bias + z / (1.0 - acceleration * z))
    })
}
