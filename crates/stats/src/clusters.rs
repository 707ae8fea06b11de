//! Scores grouped by cluster, such as the turns of one question.

use std::collections::BTreeMap;

use crate::Error;

/// Scores by cluster.
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
pub(crate) struct Cluster {
    pub(crate) sum: f64,
    pub(crate) count: f64,
}

impl ClusteredScores {
    /// Groups `rows`, each a cluster's id (the question's) and a value. The order of rows affects rounding only.
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

    /// Returns the number of clusters.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// Returns the mean of all values with equal weights; `None` without values.
    pub fn mean(&self) -> Option<f64> {
        let whole: Cluster = self.clusters.values().fold(Cluster::default(), |all, &one| all.with(one));
        (whole.count > 0.0).then(|| whole.mean())
    }

    /// Returns the mean of each cluster, in the order of ids: the input of tests of paired differences.
    pub fn cluster_means(&self) -> Vec<f64> {
        self.clusters.values().map(|cluster| cluster.mean()).collect()
    }

    /// Returns the differences of the cluster means, `self` − `other`, in the order of ids.
    ///
    /// # Errors
    ///
    /// [`Error::UnpairedClusters`] unless both sides have the same clusters.
    pub fn paired_differences(&self, other: &Self) -> Result<Vec<f64>, Error> {
        self.check_paired(other)?;
        let pairs = self.clusters.values().zip(other.clusters.values());
        Ok(pairs.map(|(one, other)| one.mean() - other.mean()).collect())
    }

    pub(crate) fn columns(&self) -> Vec<Cluster> {
        self.clusters.values().copied().collect()
    }

    pub(crate) fn check_paired(&self, other: &Self) -> Result<(), Error> {
        let missing_in = |other: &Self, one: &Self| -> Vec<u64> {
            one.clusters.keys().filter(|id| !other.clusters.contains_key(id)).copied().collect()
        };
        let (only_first, only_second) = (missing_in(other, self), missing_in(self, other));
        if only_first.is_empty() && only_second.is_empty() {
            Ok(())
        } else {
            Err(Error::UnpairedClusters { only_first, only_second })
        }
    }
}

impl Cluster {
    pub(crate) fn with(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, count: self.count + other.count }
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self { sum: self.sum - other.sum, count: self.count - other.count }
    }

    pub(crate) fn mean(self) -> f64 {
        self.sum / self.count
    }
}
