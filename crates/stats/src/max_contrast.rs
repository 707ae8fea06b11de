//! Max-contrast tests: several contrasts of the cells of a study at once.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::distribution::{length, normal_quantile};
use crate::{Error, MeanEstimate, PooledSeeds};

/// The alternative hypothesis of a max-contrast test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alternative {
    /// Some contrast is not 0.
    TwoSided,
    /// Some contrast is above 0.
    Greater,
}

/// The result of a max-contrast test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaxContrast {
    /// The p-value of "all contrasts are 0".
    pub p_value: f64,
    /// The index of the contrast with the largest t statistic.
    pub largest: usize,
    /// Each contrast, in the order of the input.
    pub contrasts: Vec<MeanEstimate>,
    /// Each contrast's p-value, corrected for the others.
    pub adjusted: Vec<f64>,
}

/// Returns the contrasts between every pair of `cells` cells: their max-contrast test is an omnibus test.
///
/// ```
/// assert_eq!(stats::all_pairs(3), [[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]]);
/// ```
pub fn all_pairs(cells: usize) -> Vec<Vec<f64>> {
    let pairs = (0..cells).flat_map(|low| (low + 1..cells).map(move |high| (low, high)));
    pairs.map(|(low, high)| pair(cells, high, low)).collect()
}

/// Returns the contrasts of every earlier cell with the last one, for checkpoints in the order of training.
///
/// Their one-sided max-contrast test detects a fall from the peak, wherever the peak is.
///
/// ```
/// assert_eq!(stats::falls_from_peak(3), [[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]]);
/// ```
pub fn falls_from_peak(cells: usize) -> Vec<Vec<f64>> {
    (0..cells.saturating_sub(1)).map(|cell| pair(cells, cell, cells - 1)).collect()
}

/// Returns the contrasts of a dose–response: for each boundary, the mean of the cells above minus that of the cells below,
/// and the linear trend.
///
/// ```
/// assert_eq!(stats::dose_response(3), [[-1.0, 0.5, 0.5], [-0.5, -0.5, 1.0], [-1.0, 0.0, 1.0]]);
/// ```
pub fn dose_response(cells: usize) -> Vec<Vec<f64>> {
    let steps = (1..cells).map(|boundary| {
        let weight = |cell: usize| {
            if cell < boundary { -1.0 / length(boundary) } else { 1.0 / length(cells - boundary) }
        };
        (0..cells).map(weight).collect()
    });
    let middle = (length(cells) - 1.0) / 2.0;
    let linear = (0..cells).map(|cell| (length(cell) - middle) / middle).collect();
    steps.chain((cells > 1).then_some(linear)).collect()
}

fn pair(cells: usize, plus: usize, minus: usize) -> Vec<f64> {
    let mut weights = vec![0.0; cells];
    weights[plus] = 1.0;
    weights[minus] = -1.0;
    weights
}

impl PooledSeeds {
    /// Tests whether all of several contrasts are 0, by the largest of their t statistics (Hothorn, Bretz and Westfall,
    /// *Biometrical Journal* 50, 2008).
    ///
    /// The reference distribution is a multivariate t with the contrasts' own correlations and their smallest degrees of
    /// freedom, from `draws` Monte Carlo draws. It is more powerful than Holm for correlated contrasts. [`all_pairs`]
    /// gives an omnibus test, [`dose_response`] one for any monotone shape, and [`falls_from_peak`] one for
    /// overfitting.
    ///
    /// # Errors
    ///
    /// As [`contrast`](Self::contrast); [`Error::NoResamples`] without draws; [`Error::TooFewClusters`] without
    /// contrasts.
    ///
    /// ```
    /// use rand::RngExt;
    /// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    /// use stats::{Alternative, CrossedScores, Observation, PooledSeeds, Pooling, all_pairs, falls_from_peak};
    ///
    /// // Quality rises and falls again: a linear trend is flat.
    /// let mut rng = ChaCha8Rng::seed_from_u64(0);
    /// let mut cell = |quality: f64| {
    ///     CrossedScores::new((0..160).map(|i| {
    ///         let score = quality + rng.random::<f64>();
    ///         Observation { seed: i / 80, question: i % 80, turn: 1, repeat: 0, score }
    ///     }))
    /// };
    /// let cells = [cell(5.0)?, cell(6.0)?, cell(5.0)?];
    /// let study = PooledSeeds::new(cells.iter().map(|cell| (0, cell)), Pooling::Pooled)?;
    /// let rng = &mut ChaCha8Rng::seed_from_u64(0);
    /// assert!(study.contrast(&[-1.0, 0.0, 1.0])?.p_value() > 0.05);
    /// assert!(study.max_contrast_test(&all_pairs(3), Alternative::TwoSided, 2_000, rng)?.p_value < 0.01);
    /// let fall = study.max_contrast_test(&falls_from_peak(3), Alternative::Greater, 2_000, rng)?;
    /// assert_eq!(fall.largest, 1);
    /// assert!(fall.p_value < 0.01);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn max_contrast_test<C: AsRef<[f64]>>(
        &self,
        contrasts: &[C],
        alternative: Alternative,
        draws: usize,
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<MaxContrast, Error> {
        if draws == 0 {
            return Err(Error::NoResamples);
        }
        let estimates: Vec<MeanEstimate> =
            contrasts.iter().map(|weights| self.contrast(weights.as_ref())).collect::<Result<_, _>>()?;
        let statistics: Vec<f64> =
            estimates.iter().map(|estimate| statistic(estimate, alternative)).collect();
        let Some((largest, _)) = statistics.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)) else {
            return Err(Error::TooFewClusters { clusters: 0 });
        };
        let df = estimates.iter().map(|estimate| estimate.degrees_of_freedom).fold(f64::INFINITY, f64::min);
        let factor = correlation_factor(&self.covariances(contrasts)?);
        let mut exceeded = vec![0_usize; statistics.len()];
        for _ in 0..draws {
            let maximum = max_of_null(&factor, df, alternative, rng);
            for (count, &statistic) in exceeded.iter_mut().zip(&statistics) {
                *count += usize::from(maximum >= statistic);
            }
        }
        let adjusted: Vec<f64> =
            exceeded.iter().map(|&count| (length(count) + 1.0) / (length(draws) + 1.0)).collect();
        Ok(MaxContrast { p_value: adjusted[largest], largest, contrasts: estimates, adjusted })
    }
}

fn statistic(estimate: &MeanEstimate, alternative: Alternative) -> f64 {
    let t = match estimate.standard_error {
        error if error > 0.0 => estimate.value / error,
        _ if estimate.value == 0.0 => 0.0,
        _ => f64::INFINITY.copysign(estimate.value),
    };
    match alternative {
        Alternative::TwoSided => t.abs(),
        Alternative::Greater => t,
    }
}

/// Returns a triangular L with L Lᵀ = the correlations of `covariances`, which may be singular.
fn correlation_factor(covariances: &[Vec<f64>]) -> Vec<Vec<f64>> {
    /// Pivots below this are rounding errors of a contrast that depends on earlier ones.
    const SINGULAR: f64 = 1e-9;
    let deviation: Vec<f64> = (0..covariances.len()).map(|at| covariances[at][at].sqrt()).collect();
    let mut factor = vec![vec![0.0; covariances.len()]; covariances.len()];
    for row in 0..covariances.len() {
        for column in 0..=row {
            let scale = deviation[row] * deviation[column];
            let correlation = if scale > 0.0 { covariances[row][column] / scale } else { 0.0 };
            let known: f64 = (0..column).map(|at| factor[row][at] * factor[column][at]).sum();
            let rest: f64 = correlation - known;
            let pivot: f64 = factor[column][column];
            factor[row][column] = match row == column {
                true if rest > SINGULAR => rest.sqrt(),
                false if pivot > 0.0 => rest / pivot,
                _ => 0.0,
            };
        }
    }
    factor
}

/// Draws the largest t statistic under the null hypothesis; `factor` is that of the contrasts' correlations.
fn max_of_null(factor: &[Vec<f64>], df: f64, alternative: Alternative, rng: &mut (impl Rng + ?Sized)) -> f64 {
    let normals: Vec<f64> = factor.iter().map(|_| normal(rng)).collect();
    let scale = chi_over_df(df, rng);
    let statistics = factor.iter().map(|row| {
        let t = row.iter().zip(&normals).map(|(loading, normal)| loading * normal).sum::<f64>() / scale;
        if alternative == Alternative::TwoSided { t.abs() } else { t }
    });
    statistics.fold(f64::NEG_INFINITY, f64::max)
}

fn normal(rng: &mut (impl Rng + ?Sized)) -> f64 {
    let uniform: f64 = rng.random();
    // The generator includes 0, whose quantile is not finite.
    normal_quantile(uniform.max(f64::MIN_POSITIVE))
}

/// Draws √(χ²/df), by Wilson and Hilferty's normal approximation of its cube root.
fn chi_over_df(df: f64, rng: &mut (impl Rng + ?Sized)) -> f64 {
    let normal = normal(rng);
    if df.is_infinite() {
        return 1.0;
    }
    let spread = 2.0 / (9.0 * df);
    (1.0 - spread + normal * spread.sqrt()).max(0.05).powf(1.5)
}
