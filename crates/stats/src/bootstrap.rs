//! Bootstrap intervals of means whose values come in clusters.
//!
//! Several values belong to one question: its turns, its answers under several seeds. They move together, so that the
//! question, not the value, is what a repetition of the study would draw anew. Each resample therefore draws whole
//! clusters with replacement, as many as there are (the cluster bootstrap; Davison and Hinkley, *Bootstrap Methods and
//! their Application*, 1997, §3.8).

use std::collections::BTreeMap;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Scores by cluster, summed up for resampling.
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{ClusteredScores, mean_interval};
///
/// // Two turns of three questions.
/// let scores = ClusteredScores::new([(81, 8.0), (81, 6.0), (82, 7.0), (82, 7.0), (83, 3.0), (83, 5.0)])?;
/// let estimate = mean_interval(&scores, 10_000, 0.95, &mut ChaCha8Rng::seed_from_u64(0))?;
/// assert_eq!(estimate.value, 6.0);
/// assert!(estimate.low < 6.0 && 6.0 < estimate.high);
/// # Ok::<(), stats::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ClusteredScores {
    clusters: BTreeMap<u64, Cluster>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Cluster {
    sum: f64,
    count: f64,
}

impl ClusteredScores {
    /// The scores of `rows`, each a cluster's id (the question's) and a value. Row order does not matter but for
    /// rounding.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for a value that is NaN or infinite.
    pub fn new(rows: impl IntoIterator<Item = (u64, f64)>) -> Result<Self, Error> {
        let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
        for (row, (cluster, value)) in rows.into_iter().enumerate() {
            if !value.is_finite() {
                return Err(Error::NotFinite { row, cluster, value });
            }
            let of_cluster = clusters.entry(cluster).or_default();
            of_cluster.sum += value;
            of_cluster.count += 1.0;
        }
        Ok(Self { clusters })
    }

    /// How many clusters there are.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// The mean of all values, each with the same weight; `None` if there are none.
    pub fn mean(&self) -> Option<f64> {
        let whole: Cluster = self.clusters.values().fold(Cluster::default(), |all, &one| all.with(one));
        (whole.count > 0.0).then(|| whole.mean())
    }

    fn columns(&self) -> Vec<Cluster> {
        self.clusters.values().copied().collect()
    }
}

impl Cluster {
    fn with(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, count: self.count + other.count }
    }

    fn mean(self) -> f64 {
        self.sum / self.count
    }
}

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
    /// Whether the interval leaves out `value`: zero, for a difference that is there.
    pub fn excludes(&self, value: f64) -> bool {
        value < self.low || self.high < value
    }
}

/// The mean of `scores` with its percentile interval: the quantiles (1 − `level`)/2 and (1 + `level`)/2 of the means of
/// `resamples` resamples, interpolated linearly between order statistics (Hyndman and Fan's type 7, NumPy's default).
///
/// With clusters of unequal size the mean of a resample is the sum of its values over their number.
///
/// # Errors
///
/// [`Error::TooFewClusters`] below two clusters, [`Error::Level`], [`Error::NoResamples`].
pub fn mean_interval(
    scores: &ClusteredScores,
    resamples: usize,
    level: f64,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Estimate, Error> {
    let columns = scores.columns();
    interval(columns.len(), resamples, level, rng, |drawn| {
        drawn.iter().fold(Cluster::default(), |all, &index| all.with(columns[index])).mean()
    })
}

/// The difference of means, `first` minus `second`, with its percentile interval. Both sides are resampled by the same
/// draws of clusters, so that how hard a question is cancels out.
///
/// A cluster may have more values on one side than on the other: each side is averaged over its own.
///
/// # Errors
///
/// [`Error::UnpairedClusters`] unless both sides have the same clusters; those of [`mean_interval`].
pub fn paired_difference_interval(
    first: &ClusteredScores,
    second: &ClusteredScores,
    resamples: usize,
    level: f64,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Estimate, Error> {
    let missing_in = |other: &ClusteredScores, one: &ClusteredScores| -> Vec<u64> {
        one.clusters.keys().filter(|id| !other.clusters.contains_key(id)).copied().collect()
    };
    let (only_first, only_second) = (missing_in(second, first), missing_in(first, second));
    if !only_first.is_empty() || !only_second.is_empty() {
        return Err(Error::UnpairedClusters { only_first, only_second });
    }
    let pairs: Vec<(Cluster, Cluster)> = first.columns().into_iter().zip(second.columns()).collect();
    interval(pairs.len(), resamples, level, rng, |drawn| {
        let nothing = (Cluster::default(), Cluster::default());
        let (a, b) =
            drawn.iter().fold(nothing, |(a, b), &index| (a.with(pairs[index].0), b.with(pairs[index].1)));
        a.mean() - b.mean()
    })
}

/// The percentile interval of `statistic`, which is handed the indices of the clusters to look at.
fn interval(
    clusters: usize,
    resamples: usize,
    level: f64,
    rng: &mut (impl Rng + ?Sized),
    statistic: impl Fn(&[usize]) -> f64,
) -> Result<Estimate, Error> {
    check_level(level)?;
    if clusters < 2 {
        return Err(Error::TooFewClusters { clusters });
    }
    if resamples == 0 {
        return Err(Error::NoResamples);
    }
    let each_once: Vec<usize> = (0..clusters).collect();
    let mut drawn = each_once.clone();
    let mut draws: Vec<f64> = (0..resamples)
        .map(|_| {
            drawn.fill_with(|| rng.random_range(0..clusters));
            statistic(&drawn)
        })
        .collect();
    draws.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok(Estimate {
        value: statistic(&each_once),
        low: quantile(&draws, tail),
        high: quantile(&draws, 1.0 - tail),
        level,
        clusters,
        resamples,
    })
}

pub(crate) fn check_level(level: f64) -> Result<(), Error> {
    if 0.0 < level && level < 1.0 { Ok(()) } else { Err(Error::Level { level }) }
}

/// The `q`-quantile of `sorted`, which is not empty, interpolated linearly.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a position in a slice: between 0 and its length, which is far below 2^53"
)]
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - position.floor())
}
