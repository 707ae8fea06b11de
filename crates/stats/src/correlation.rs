//! Rank correlations: does the score follow the volume, the noise, another judge?

use serde::{Deserialize, Serialize};

use crate::distribution::{length, midranks, moments, two_sided_normal, two_sided_t};
use crate::error::check_finite;
use crate::{Error, PMethod, PValue};

/// Maximum number of pairs for enumeration of all permutations.
pub(crate) const ENUMERABLE: usize = 9;
/// Pairs without ties for which Kendall's distribution is counted.
const COUNTABLE: usize = 150;

/// A rank correlation and its p-value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// Between −1 and 1.
    pub value: f64,
    /// Two-sided: how often a random order is as far from 0.
    pub p: PValue,
}

/// Kendall's τ-b of pairs `(first[i], second[i])`: (concordant − discordant)/√((n₀ − n₁)(n₀ − n₂)), with n₀ pairs of
/// pairs, n₁ of them tied in `first`, n₂ in `second` (Kendall, *Biometrika* 33, 1945).
///
/// Use it to ask whether a score rises with volume or noise, one mean a level. The p-value is exact up to nine pairs,
/// and up to 150 without ties. Beyond, it is normal with the variance for ties. **With four levels the smallest
/// two-sided p is 1/12**: no trend of four points can be significant. With replicates use
/// [`page_test`](crate::page_test) or [`jonckheere_test`](crate::jonckheere_test).
///
/// # Errors
///
/// [`Error::OtherLength`]; [`Error::NotFinite`]; [`Error::TooFewClusters`] below two pairs; [`Error::Constant`] where all
/// values of one side are the same and τ is 0/0.
///
/// ```
/// // IPO on GPT-4-Turbo's preferences, 25% to 100% of the pairs (Table 3 of the paper).
/// let tau = stats::kendall_tau(&[25.0, 50.0, 75.0, 100.0], &[6.953, 6.766, 5.741, 5.125])?;
/// assert_eq!(tau.value, -1.0);
/// assert!((tau.p.p_value - 1.0 / 12.0).abs() < 1e-12, "perfectly monotone, and still no evidence");
/// # Ok::<(), stats::Error>(())
/// ```
pub fn kendall_tau(first: &[f64], second: &[f64]) -> Result<Correlation, Error> {
    let (first, second) = ranked(first, second)?;
    let n = first.ranks.len();
    let balance = |order: &[f64]| -> f64 {
        let mut balance = 0.0;
        for i in 0..n {
            for j in 0..i {
                let (a, b) = (first.ranks[i] - first.ranks[j], order[i] - order[j]);
                if a != 0.0 && b != 0.0 {
                    balance += (a * b).signum();
                }
            }
        }
        balance
    };
    let observed = balance(&second.ranks);
    let pairs = length(n) * (length(n) - 1.0) / 2.0;
    let untied_pairs = (pairs - first.tied_pairs()) * (pairs - second.tied_pairs());
    let value = observed / untied_pairs.sqrt();
    let untied = first.ties.len() == n && second.ties.len() == n;
    let p = if untied && n <= COUNTABLE {
        let far = |discordant: usize| (pairs - 2.0 * length(discordant)).abs() >= observed.abs();
        let chances = inversions(n);
        let p = chances.iter().enumerate().filter(|&(k, _)| far(k)).map(|(_, chance)| chance).sum::<f64>();
        PValue { p_value: p.min(1.0), method: PMethod::Exact }
    } else if n <= ENUMERABLE {
        let p_value = share_of_orders(&second.ranks, |order| balance(order).abs() >= observed.abs());
        PValue { p_value, method: PMethod::Exact }
    } else {
        PValue { p_value: two_sided_normal(observed / deviation(&first, &second)), method: PMethod::Normal }
    };
    Ok(Correlation { value, p })
}

/// Spearman's ρ of pairs: the correlation of their ranks, ties sharing their mean rank.
///
/// Use it for "do two judges order these policies alike". The p-value is exact up to nine pairs; beyond it is
/// Student's t with n − 2 degrees of freedom. (SciPy uses t at every n, so that a perfect order of 4 has p = 0; the
/// exact p is 1/12.)
///
/// # Errors
///
/// As [`kendall_tau`].
///
/// ```
/// let rho = stats::spearman_rho(&[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0, 1.0, 4.0, 3.0, 5.0])?;
/// assert!((rho.value - 0.8).abs() < 1e-12);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn spearman_rho(first: &[f64], second: &[f64]) -> Result<Correlation, Error> {
    let (first, second) = ranked(first, second)?;
    let n = length(first.ranks.len());
    let ((mean, one), (_, other)) = (moments(&first.ranks), moments(&second.ranks));
    let product = |order: &[f64]| -> f64 {
        first.ranks.iter().zip(order).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>()
    };
    let observed = product(&second.ranks);
    let value = (observed / (one.sqrt() * other.sqrt())).clamp(-1.0, 1.0);
    let p = if first.ranks.len() <= ENUMERABLE {
        // Products of ranks are multiples of a quarter: what differs by less is equal.
        let far = |order: &[f64]| product(order).abs() >= observed.abs() - 1e-6;
        PValue { p_value: share_of_orders(&second.ranks, far), method: PMethod::Exact }
    } else {
        let t = value * ((n - 2.0) / ((1.0 - value) * (1.0 + value))).sqrt();
        PValue { p_value: two_sided_t(t, n - 2.0), method: PMethod::StudentsT }
    };
    Ok(Correlation { value, p })
}

struct Ranked {
    ranks: Vec<f64>,
    ties: Vec<usize>,
}

impl Ranked {
    fn tied_pairs(&self) -> f64 {
        self.ties.iter().map(|&size| length(size) * (length(size) - 1.0) / 2.0).sum()
    }

    /// Σ over the groups of ties.
    fn over_ties(&self, term: impl Fn(f64) -> f64) -> f64 {
        self.ties.iter().map(|&size| term(length(size))).sum()
    }
}

fn ranked(first: &[f64], second: &[f64]) -> Result<(Ranked, Ranked), Error> {
    if first.len() != second.len() {
        return Err(Error::OtherLength { first: first.len(), second: second.len() });
    }
    if first.len() < 2 {
        return Err(Error::TooFewClusters { clusters: first.len() });
    }
    let rank = |values: &[f64], side: &'static str| {
        check_finite(values)?;
        let (ranks, ties) = midranks(values);
        if ties.len() == 1 { Err(Error::Constant { side }) } else { Ok(Ranked { ranks, ties }) }
    };
    Ok((rank(first, "first")?, rank(second, "second")?))
}

/// Standard deviation of concordant − discordant in random order (Kendall, *Rank Correlation Methods*, §5.3).
fn deviation(first: &Ranked, second: &Ranked) -> f64 {
    let n = length(first.ranks.len());
    let spread = |m: f64| m * (m - 1.0) * (2.0 * m + 5.0);
    let twos = |side: &Ranked| side.over_ties(|m| m * (m - 1.0));
    let threes = |side: &Ranked| side.over_ties(|m| m * (m - 1.0) * (m - 2.0));
    let plain = (spread(n) - first.over_ties(spread) - second.over_ties(spread)) / 18.0;
    let joint = twos(first) * twos(second) / (2.0 * n * (n - 1.0));
    let triples = threes(first) * threes(second) / (9.0 * n * (n - 1.0) * (n - 2.0));
    (plain + joint + triples).sqrt()
}

/// The chance of each number of discordant pairs in a random order of n.
fn inversions(n: usize) -> Vec<f64> {
    let mut chances = vec![1.0];
    for size in 2..=n {
        let mut next = vec![0.0; chances.len() + size - 1];
        for (inversions, chance) in chances.iter().enumerate() {
            next[inversions..inversions + size].iter_mut().for_each(|sum| *sum += chance / length(size));
        }
        chances = next;
    }
    chances
}

/// Returns the proportion of permutations of `values` for which `hit` is true (Heap's algorithm).
pub(crate) fn share_of_orders(values: &[f64], hit: impl Fn(&[f64]) -> bool) -> f64 {
    let mut order = values.to_vec();
    let mut counters = vec![0; order.len()];
    let (mut hits, mut orders) = (u64::from(hit(&order)), 1_u64);
    let mut level = 1;
    while level < order.len() {
        if counters[level] < level {
            let other = if level % 2 == 0 { 0 } else { counters[level] };
            order.swap(other, level);
            hits += u64::from(hit(&order));
            orders += 1;
            counters[level] += 1;
            level = 1;
        } else {
            counters[level] = 0;
            level += 1;
        }
    }
    crate::distribution::to_f64(hits) / crate::distribution::to_f64(orders)
}
