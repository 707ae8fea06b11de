//! Bootstrap resamples of clusters, and their means.

use rand::{Rng, RngExt};
use rayon::prelude::*;

use crate::Error;
use crate::clusters::Cluster;

/// Rows of means that one task computes: enough to share out, few enough to stay in a core's cache.
const BLOCK: usize = 256;

/// Draws of a cluster bootstrap: for each resample, as many clusters as there are, with replacement.
///
/// Drawn once from the generator that is handed in and used for every policy of a table. Draws are sequential, and
/// one thread sums each resample, so results are bitwise identical for every number of threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resamples {
    clusters: usize,
    drawn: Vec<u32>,
}

impl Resamples {
    /// Draws `resamples` resamples of `clusters` clusters. With 10,000 the Monte Carlo error of the ends of a 95%
    /// interval is about 1.5% of its width. Memory is four bytes per draw.
    ///
    /// # Errors
    ///
    /// [`Error::TooFewClusters`] below two clusters, [`Error::NoResamples`].
    ///
    /// ```
    /// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    ///
    /// let draws = stats::Resamples::draw(80, 1_000, &mut ChaCha8Rng::seed_from_u64(0))?;
    /// assert_eq!((draws.clusters(), draws.resamples()), (80, 1_000));
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn draw(clusters: usize, resamples: usize, rng: &mut (impl Rng + ?Sized)) -> Result<Self, Error> {
        let range = u32::try_from(clusters).map_err(|_| Error::TooFewClusters { clusters })?;
        if clusters < 2 {
            return Err(Error::TooFewClusters { clusters });
        }
        if resamples == 0 {
            return Err(Error::NoResamples);
        }
        let mut drawn = vec![0; clusters * resamples];
        drawn.fill_with(|| rng.random_range(0..range));
        Ok(Self { clusters, drawn })
    }

    /// How many clusters there are to draw from, and in each resample.
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// How many resamples there are.
    pub fn resamples(&self) -> usize {
        self.drawn.len() / self.clusters
    }

    /// The drawn clusters, resample by resample.
    pub(crate) fn each(&self) -> impl Iterator<Item = &[u32]> {
        self.drawn.chunks_exact(self.clusters)
    }

    /// `[columns][resamples]`: the means of the clusters of each column (`[columns][clusters]`) over each resample.
    pub(crate) fn means<C: AsRef<[Cluster]>>(&self, columns: &[C]) -> Result<Vec<Vec<f64>>, Error> {
        for column in columns.iter().map(AsRef::as_ref) {
            if column.len() != self.clusters {
                return Err(Error::ResampledClusters { clusters: column.len(), resampled: self.clusters });
            }
        }
        // Sums and sizes side by side, cluster by cluster, so that one drawn cluster is one run of memory. Where all
        // sizes are the same, a mean is a sum over a constant and sizes need no summing.
        let width = columns.len();
        let size =
            columns.first().and_then(|column| column.as_ref().first()).map_or(1.0, |first| first.count);
        let equal = columns.iter().all(|column| column.as_ref().iter().all(|cluster| cluster.count == size));
        let mut rows = vec![0.0; self.clusters * width];
        let mut counts = if equal { Vec::new() } else { vec![0.0; self.clusters * width] };
        for (index, column) in columns.iter().enumerate() {
            for (cluster, of_cluster) in column.as_ref().iter().enumerate() {
                rows[cluster * width + index] = of_cluster.sum;
                if !equal {
                    counts[cluster * width + index] = of_cluster.count;
                }
            }
        }
        let total = size * crate::distribution::length(self.clusters);
        let mut means = vec![0.0; self.resamples() * width];
        let fill = |(drawn, means): (&[u32], &mut [f64])| {
            let mut sizes = vec![0.0; width];
            for (drawn, means) in drawn.chunks_exact(self.clusters).zip(means.chunks_exact_mut(width)) {
                add_rows(&rows, drawn, means);
                if equal {
                    means.iter_mut().for_each(|mean| *mean /= total);
                } else {
                    sizes.fill(0.0);
                    add_rows(&counts, drawn, &mut sizes);
                    means.iter_mut().zip(&sizes).for_each(|(mean, size)| *mean /= size);
                }
            }
        };
        if width > 0 {
            let drawn = self.drawn.par_chunks(BLOCK * self.clusters);
            drawn.zip(means.par_chunks_mut(BLOCK * width)).for_each(fill);
        }
        let column = |index: usize| means.iter().skip(index).step_by(width).copied().collect();
        Ok((0..width).into_par_iter().map(column).collect())
    }
}

/// Sums the drawn rows of `rows`, `[clusters][width]`, into `sums`, `[width]`, which is zero-initialized.
fn add_rows(rows: &[f64], drawn: &[u32], sums: &mut [f64]) {
    /// Sums that stay in registers while the clusters go by.
    const LANES: usize = 8;
    let width = sums.len();
    let mut start = 0;
    while start + LANES <= width {
        let mut lanes = [0.0; LANES];
        for &cluster in drawn {
            let at = cluster as usize * width + start;
            for (lane, value) in lanes.iter_mut().zip(&rows[at..at + LANES]) {
                *lane += value;
            }
        }
        sums[start..start + LANES].copy_from_slice(&lanes);
        start += LANES;
    }
    for (column, sum) in sums.iter_mut().enumerate().skip(start) {
        *sum = drawn.iter().map(|&cluster| rows[cluster as usize * width + column]).sum();
    }
}
