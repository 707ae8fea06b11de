//! Tests of paired differences that assume nothing but symmetry under "no effect": sign flips and signed ranks.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::distribution::{length, median, midranks, normal_cdf, normal_quantile, to_f64, two_sided_normal};
use crate::error::{check_finite, check_level};

/// The method of a p-value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PMethod {
    /// Over all possibilities: no approximation.
    Exact,
    /// Over this many random ones, the observed one counted in; it is never 0.
    MonteCarlo {
        /// How many were drawn.
        draws: usize,
    },
    /// By a normal distribution, corrected for ties.
    Normal,
    /// By Student's t distribution.
    StudentsT,
}

/// A p-value and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PValue {
    /// The two-sided p-value.
    pub p_value: f64,
    /// How it was computed.
    pub method: PMethod,
}

/// Sign flips that are drawn where they cannot be counted.
const DRAWS: usize = 100_000;
/// Differences whose 2ⁿ sign patterns are gone through one by one.
const ENUMERABLE: usize = 20;
/// Steps of an exact count, of n differences over a lattice of sums.
const MOST_STEPS: usize = 1 << 27;
/// Differences whose signed-rank distribution is counted exactly.
const EXACT_RANKS: usize = 200;

/// The paired permutation test: could the mean of `differences` come from flipping each one's sign by a fair coin?
///
/// Use it to compare two policies on the same questions. Pass one difference per question
/// ([`ClusteredScores::paired_differences`](crate::ClusteredScores::paired_differences)), because the turns of a
/// question are dependent. It assumes a symmetric distribution of the difference under the null hypothesis (Fisher,
/// *The Design of Experiments*, 1935, §21).
///
/// Scores on half points are counted exactly at any number of questions, other values up to twenty; beyond that
/// 100,000 flips are drawn from `rng`.
///
/// # Errors
///
/// [`Error::TooFewClusters`] without differences, [`Error::NotFinite`].
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{PMethod, sign_flip_test};
///
/// let test = sign_flip_test(&[0.5, 1.0, 1.5, 2.0, 0.5], &mut ChaCha8Rng::seed_from_u64(0))?;
/// assert_eq!((test.p_value, test.method), (2.0 / 32.0, PMethod::Exact));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn sign_flip_test(differences: &[f64], rng: &mut (impl Rng + ?Sized)) -> Result<PValue, Error> {
    check_finite(differences)?;
    if differences.is_empty() {
        return Err(Error::TooFewClusters { clusters: 0 });
    }
    if let Some(steps) = on_lattice(differences) {
        let observed = steps.iter().sum::<i64>().unsigned_abs();
        let sizes: Vec<usize> = steps.iter().map(|step| index(step.unsigned_abs())).collect();
        return Ok(PValue { p_value: lattice_tail(&sizes, observed), method: PMethod::Exact });
    }
    let observed = differences.iter().sum::<f64>().abs();
    // Sums that are equal in exact arithmetic differ by rounding; those count as reached.
    let reached = observed - 1e-12 * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let flipped = |bits: &dyn Fn(usize) -> bool| -> f64 {
        differences.iter().enumerate().map(|(i, &d)| if bits(i) { -d } else { d }).sum::<f64>().abs()
    };
    if differences.len() <= ENUMERABLE {
        let patterns = 1_u64 << differences.len();
        let hits = (0..patterns).filter(|pattern| flipped(&|i| pattern >> i & 1 == 1) >= reached).count();
        return Ok(PValue { p_value: length(hits) / to_f64(patterns), method: PMethod::Exact });
    }
    let mut words = vec![0_u64; differences.len().div_ceil(64)];
    let hits = (0..DRAWS)
        .filter(|_| {
            words.fill_with(|| rng.random());
            flipped(&|i| words[i / 64] >> (i % 64) & 1 == 1) >= reached
        })
        .count();
    let p_value = (length(hits) + 1.0) / (length(DRAWS) + 1.0);
    Ok(PValue { p_value, method: PMethod::MonteCarlo { draws: DRAWS } })
}

/// The differences in whole steps of 1/64 or of something coarser, where they are such and counting them is cheap.
#[expect(clippy::cast_possible_truncation, reason = "whole numbers below 2^31")]
fn on_lattice(differences: &[f64]) -> Option<Vec<i64>> {
    for scale in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0] {
        let scaled: Vec<f64> = differences.iter().map(|difference| difference * scale).collect();
        if scaled.iter().all(|step| step.fract() == 0.0 && step.abs() < 2e9) {
            let steps: Vec<i64> = scaled.iter().map(|step| *step as i64).collect();
            let total: u64 = steps.iter().map(|step| step.unsigned_abs()).sum();
            return (index(total) * steps.len() < MOST_STEPS).then_some(steps);
        }
    }
    None
}

/// P(|±s₁ ± s₂ …| ≥ `observed`) under fair signs.
fn lattice_tail(sizes: &[usize], observed: u64) -> f64 {
    // The sum of the sizes whose sign is positive, S₊, determines the whole: it is 2 S₊ − total.
    let chances = subset_sums(sizes);
    let total = chances.len() as u64 - 1;
    let far = |positive: u64| (2 * positive).abs_diff(total) >= observed;
    (0..).zip(&chances).filter(|&(positive, _)| far(positive)).map(|(_, chance)| chance).sum::<f64>().min(1.0)
}

/// The chance of each sum when each of `sizes` is in or out by a fair coin.
pub(crate) fn subset_sums(sizes: &[usize]) -> Vec<f64> {
    let mut chances = vec![0.0; sizes.iter().sum::<usize>() + 1];
    chances[0] = 1.0;
    let mut reach = 0;
    for &size in sizes {
        reach += size;
        for sum in (0..=reach).rev() {
            let with = if sum >= size { chances[sum - size] } else { 0.0 };
            chances[sum] = 0.5 * (chances[sum] + with);
        }
    }
    chances
}

fn index(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What [`wilcoxon_test`] does with differences of 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zeros {
    /// They are left out before ranking (Wilcoxon).
    #[default]
    Dropped,
    /// Zeros are ranked and their ranks are dropped (Pratt, *Journal of the American Statistical Association* 54,
    /// 1959). Preferable with many zeros, as with half-point scores.
    RankedThenDropped,
}

/// The result of [`wilcoxon_test`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WilcoxonTest {
    /// Sum of the ranks of positive differences.
    pub w_plus: f64,
    /// Sum of the ranks of negative differences.
    pub w_minus: f64,
    /// Two-sided p-value.
    pub p: PValue,
}

/// Wilcoxon's signed-rank test (*Biometrics Bulletin* 1, 1945): tests whether paired differences are centered on 0.
///
/// Use it in the place of [`sign_flip_test`] when a few questions with huge differences should not decide. It assumes
/// independent differences (one per question) with a symmetric distribution. Ties share their mean rank. The
/// distribution is exact for these ranks up to 200 differences, and normal beyond.
///
/// All differences 0: p is 1.
///
/// # Errors
///
/// [`Error::NotFinite`].
///
/// ```
/// use stats::{Zeros, wilcoxon_test};
///
/// let test = wilcoxon_test(&[1.0, -2.0, 3.0, 4.0, 5.0, 6.0], Zeros::Dropped)?;
/// assert_eq!((test.w_plus, test.w_minus, test.p.p_value), (19.0, 2.0, 6.0 / 64.0));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn wilcoxon_test(differences: &[f64], zeros: Zeros) -> Result<WilcoxonTest, Error> {
    check_finite(differences)?;
    let ranked: Vec<f64> = match zeros {
        Zeros::Dropped => differences.iter().copied().filter(|&d| d != 0.0).collect(),
        Zeros::RankedThenDropped => differences.to_vec(),
    };
    let sizes: Vec<f64> = ranked.iter().map(|difference| difference.abs()).collect();
    let (ranks, _) = midranks(&sizes);
    let signed: Vec<(f64, f64)> = ranked.into_iter().zip(ranks).filter(|&(d, _)| d != 0.0).collect();
    let sum = |keep: fn(f64) -> bool| signed.iter().filter(|&&(d, _)| keep(d)).map(|(_, rank)| rank).sum();
    let (w_plus, w_minus): (f64, f64) = (sum(|d| d > 0.0), sum(|d| d < 0.0));
    let p = if signed.len() <= EXACT_RANKS {
        // Midranks are halves: twice a rank is whole.
        let doubled: Vec<usize> = signed.iter().map(|&(_, rank)| whole(2.0 * rank)).collect();
        let observed = whole(2.0 * (w_plus - w_minus).abs()) as u64;
        PValue { p_value: lattice_tail(&doubled, observed), method: PMethod::Exact }
    } else {
        let deviation = signed.iter().map(|(_, rank)| rank * rank).sum::<f64>().sqrt();
        PValue { p_value: two_sided_normal((w_plus - w_minus) / deviation), method: PMethod::Normal }
    };
    Ok(WilcoxonTest { w_plus, w_minus, p })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number that is no less than 0"
)]
fn whole(value: f64) -> usize {
    value.round() as usize
}

/// A center with its distribution-free interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HodgesLehmann {
    /// The median of all means of two differences, each with itself included.
    pub centre: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The level that the interval has, which is a little above the one asked for, since ranks are whole numbers. Below
    /// six differences it cannot reach 0.95.
    pub level: f64,
}

/// The Hodges–Lehmann estimate of the center of paired `differences`, with the interval that matches
/// [`wilcoxon_test`] (Hodges and Lehmann, *Annals of Mathematical Statistics* 34, 1963; Hollander and Wolfe,
/// *Nonparametric Statistical Methods*, §3.2–3.3).
///
/// Use it if there are outliers: the estimate is robust, unlike the mean. With symmetric differences both estimate
/// the same.
///
/// # Errors
///
/// [`Error::TooFewClusters`] without differences, [`Error::NotFinite`], [`Error::Level`].
///
/// ```
/// let one = stats::hodges_lehmann(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0], 0.95)?;
/// assert_eq!(one.centre, 4.0);
/// assert!(one.level >= 0.95);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn hodges_lehmann(differences: &[f64], level: f64) -> Result<HodgesLehmann, Error> {
    check_finite(differences)?;
    check_level(level)?;
    let n = differences.len();
    if n == 0 {
        return Err(Error::TooFewClusters { clusters: 0 });
    }
    let mut means = Vec::with_capacity(n * (n + 1) / 2);
    for (index, &one) in differences.iter().enumerate() {
        means.extend(differences[index..].iter().map(|&other| f64::midpoint(one, other)));
    }
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let (cut, reached) = if n <= EXACT_RANKS {
        exact_cut(n, tail)
    } else {
        let deviation = (length(n) * (length(n) + 1.0) * (2.0 * length(n) + 1.0) / 24.0).sqrt();
        let cut = length(means.len()) / 2.0 + normal_quantile(tail) * deviation;
        let cut = whole(cut.max(1.0).floor());
        let z = (length(means.len()) / 2.0 - length(cut)) / deviation;
        (cut, 1.0 - 2.0 * normal_cdf(-z))
    };
    let (low, high) = (means[cut - 1], means[means.len() - cut]);
    Ok(HodgesLehmann { centre: median(&means), low, high, level: reached })
}

/// Returns the largest c with P(W₊ < c) ≤ `tail`, and the confidence level for it.
fn exact_cut(n: usize, tail: f64) -> (usize, f64) {
    let chances = subset_sums(&(1..=n).collect::<Vec<_>>());
    let mut below = 0.0;
    for (sum, chance) in chances.iter().enumerate() {
        if below + chance > tail {
            // Not even the smallest and the largest mean reach the level: they are what there is.
            return if sum == 0 { (1, 1.0 - 2.0 * chance) } else { (sum, 1.0 - 2.0 * below) };
        }
        below += chance;
    }
    (1, 1.0)
}
