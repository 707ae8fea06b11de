//! Tests for trends along ordered conditions, such as four volumes or five noise levels, with replicates.

use serde::{Deserialize, Serialize};

use crate::correlation::{ENUMERABLE, share_of_orders};
use crate::distribution::{length, midranks, moments, normal_cdf};
use crate::error::check_finite;
use crate::{Error, PMethod};

/// Maximum number of conditions for the exact test.
const MOST_CONDITIONS: usize = 8;
/// Maximum number of values for the exact distribution without ties.
const COUNTABLE: usize = 80;

/// A trend test's result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Page's L or Jonckheere's J.
    pub statistic: f64,
    /// The statistic in standard deviations from its expectation.
    pub z: f64,
    /// p of "values rise with the condition".
    pub p_rising: f64,
    /// p of "values fall with the condition".
    pub p_falling: f64,
    /// How the p-values were computed.
    pub method: PMethod,
}

impl Trend {
    /// The p-value for a trend in either direction: twice the smaller one.
    pub fn p_two_sided(&self) -> f64 {
        (2.0 * self.p_rising.min(self.p_falling)).min(1.0)
    }
}

/// Page's test for a trend across ordered conditions within blocks: `blocks[i][j]` is block i under condition j.
///
/// A block contains all conditions: a seed that was trained at every volume, or a question that every policy
/// answered. Values are ranked within blocks, so blocks need no common scale. L = Σⱼ j·Rⱼ, with Rⱼ the sum of
/// condition j's ranks (Page, *Journal of the American Statistical Association* 58, 1963). Exact up to eight
/// conditions, ties included (each block's own ranks in random order); normal beyond.
///
/// # Errors
///
/// [`Error::TooFewClusters`] without blocks or with fewer than two conditions; [`Error::OtherLength`] for a block of
/// another length; [`Error::NotFinite`]; [`Error::Constant`] where every block is tied throughout.
///
/// ```
/// // Three seeds at four volumes: each rises.
/// let blocks = [[5.9, 6.1, 6.2, 6.5], [6.0, 6.2, 6.3, 6.4], [5.8, 5.9, 6.4, 6.6]];
/// let trend = stats::page_test(&blocks)?;
/// assert_eq!(trend.statistic, 90.0);
/// assert!(trend.p_rising < 0.001, "one seed cannot get there, three can");
/// # Ok::<(), stats::Error>(())
/// ```
pub fn page_test<B: AsRef<[f64]>>(blocks: &[B]) -> Result<Trend, Error> {
    let conditions = blocks.first().map_or(0, |block| block.as_ref().len());
    if conditions < 2 {
        return Err(Error::TooFewClusters { clusters: conditions });
    }
    let (mut statistic, mut expected, mut variance) = (0.0, 0.0, 0.0);
    let mut ranks_of = Vec::new();
    let places: Vec<f64> = (1..=conditions).map(length).collect();
    let (middle, spread) = moments(&places);
    for block in blocks.iter().map(AsRef::as_ref) {
        check_finite(block)?;
        if block.len() != conditions {
            return Err(Error::OtherLength { first: conditions, second: block.len() });
        }
        let (ranks, _) = midranks(block);
        let (mean, squares) = moments(&ranks);
        statistic += weighted(&ranks);
        expected += length(conditions) * middle * mean;
        variance += spread * squares / (length(conditions) - 1.0);
        ranks_of.push(ranks);
    }
    if variance <= 0.0 {
        return Err(Error::Constant { side: "every block" });
    }
    let z = (statistic - expected) / variance.sqrt();
    let (p_rising, p_falling, method) = if conditions <= MOST_CONDITIONS {
        let (rising, falling) = page_tails(&ranks_of, statistic);
        (rising, falling, PMethod::Exact)
    } else {
        (normal_cdf(-z), normal_cdf(z), PMethod::Normal)
    };
    Ok(Trend { statistic, z, p_rising, p_falling, method })
}

fn weighted(ranks: &[f64]) -> f64 {
    (1..).zip(ranks).map(|(place, rank)| f64::from(place) * rank).sum()
}

/// Returns P(L ≥ `observed`) and P(L ≤ `observed`) under random permutations of each block's ranks.
fn page_tails(blocks: &[Vec<f64>], observed: f64) -> (f64, f64) {
    let mut known: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    let mut chances = vec![1.0];
    for ranks in blocks {
        let mut sorted = ranks.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = known.iter().position(|(of, _)| *of == sorted).unwrap_or_else(|| {
            let of_block = page_block(&sorted);
            known.push((sorted, of_block));
            known.len() - 1
        });
        chances = convolve(&chances, &known[at].1);
    }
    let observed = doubled(observed);
    let tail = |keep: &dyn Fn(usize) -> bool| -> f64 {
        chances.iter().enumerate().filter(|&(sum, _)| keep(sum)).map(|(_, p)| p).sum::<f64>().min(1.0)
    };
    (tail(&|sum| sum >= observed), tail(&|sum| sum <= observed))
}

/// The chance of each 2·Σ j·rank of one block.
fn page_block(ranks: &[f64]) -> Vec<f64> {
    let counts = std::cell::RefCell::new(vec![0.0; doubled(weighted(ranks)) + 1]);
    // `ranks` ascend, so that their own order has the largest sum.
    share_of_orders(ranks, |order| {
        counts.borrow_mut()[doubled(weighted(order))] += 1.0;
        true
    });
    let mut counts = counts.into_inner();
    let orders: f64 = counts.iter().sum();
    counts.iter_mut().for_each(|count| *count /= orders);
    counts
}

fn convolve(one: &[f64], other: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; one.len() + other.len() - 1];
    for (a, p) in one.iter().enumerate().filter(|&(_, &p)| p > 0.0) {
        for (b, q) in other.iter().enumerate() {
            sums[a + b] += p * q;
        }
    }
    sums
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a multiple of a half, no less than 0"
)]
fn doubled(value: f64) -> usize {
    (2.0 * value).round() as usize
}

/// The Jonckheere–Terpstra test for a trend across ordered groups of *independent* values: `groups[j]` contains the
/// replicates of condition j; groups may differ in size.
///
/// Use it for independent runs, with seeds that are not shared between conditions. With shared seeds [`page_test`]
/// has more power. J counts the pairs of values from two groups that lie in the groups' order, ties half (Jonckheere,
/// *Biometrika* 41, 1954). Exact without ties up to 80 values, and with ties up to nine; normal with the variance for
/// ties beyond (Hollander and Wolfe, §6.2).
///
/// # Errors
///
/// [`Error::TooFewClusters`] with fewer than two non-empty groups; [`Error::NotFinite`]; [`Error::Constant`] where
/// all values are the same.
///
/// ```
/// let trend = stats::jonckheere_test(&[vec![5.9, 6.0, 5.8], vec![6.1, 6.3], vec![6.4, 6.2, 6.6]])?;
/// assert_eq!(trend.statistic, 20.0);
/// assert!(trend.p_two_sided() < 0.02);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn jonckheere_test<G: AsRef<[f64]>>(groups: &[G]) -> Result<Trend, Error> {
    let sizes: Vec<usize> =
        groups.iter().map(|group| group.as_ref().len()).filter(|&size| size > 0).collect();
    let values: Vec<f64> = groups.iter().flat_map(|group| group.as_ref().iter().copied()).collect();
    check_finite(&values)?;
    if sizes.len() < 2 {
        return Err(Error::TooFewClusters { clusters: sizes.len() });
    }
    let (ranks, ties) = midranks(&values);
    if ties.len() == 1 {
        return Err(Error::Constant { side: "every group" });
    }
    let n = length(values.len());
    let count = |order: &[f64]| {
        let mut count = 0.0;
        let mut start = 0;
        for size in &sizes {
            let (before, group) = (&order[..start], &order[start..start + size]);
            for value in group {
                for earlier in before {
                    count += if earlier < value { 1.0 } else { f64::from(u8::from(earlier == value)) / 2.0 };
                }
            }
            start += size;
        }
        count
    };
    let statistic = count(&ranks);
    let expected = (n * n - sizes.iter().map(|&size| length(size).powi(2)).sum::<f64>()) / 4.0;
    let z = (statistic - expected) / jonckheere_variance(n, &sizes, &ties).sqrt();
    let (p_rising, p_falling, method) = if ties.len() == values.len() && values.len() <= COUNTABLE {
        let chances = jonckheere_chances(&sizes);
        let observed = doubled(statistic) / 2;
        let at_least = chances[observed..].iter().sum::<f64>().min(1.0);
        (at_least, chances[..=observed].iter().sum::<f64>().min(1.0), PMethod::Exact)
    } else if values.len() <= ENUMERABLE {
        let rising = share_of_orders(&ranks, |order| count(order) >= statistic);
        let falling = share_of_orders(&ranks, |order| count(order) <= statistic);
        (rising, falling, PMethod::Exact)
    } else {
        (normal_cdf(-z), normal_cdf(z), PMethod::Normal)
    };
    Ok(Trend { statistic, z, p_rising, p_falling, method })
}

fn jonckheere_variance(n: f64, sizes: &[usize], ties: &[usize]) -> f64 {
    let over = |counts: &[usize], term: fn(f64) -> f64| counts.iter().map(|&m| term(length(m))).sum::<f64>();
    let spread: fn(f64) -> f64 = |m| m * (m - 1.0) * (2.0 * m + 5.0);
    let twos: fn(f64) -> f64 = |m| m * (m - 1.0);
    let threes: fn(f64) -> f64 = |m| m * (m - 1.0) * (m - 2.0);
    let plain = (spread(n) - over(sizes, spread) - over(ties, spread)) / 72.0;
    let triples = if n > 2.0 { over(sizes, threes) * over(ties, threes) / (36.0 * threes(n)) } else { 0.0 };
    plain + triples + over(sizes, twos) * over(ties, twos) / (8.0 * twos(n))
}

/// The chance of each J without ties: each group against all earlier ones is an independent Mann–Whitney count.
fn jonckheere_chances(sizes: &[usize]) -> Vec<f64> {
    let mut chances = vec![1.0];
    let mut before = 0;
    for &size in sizes {
        chances = convolve(&chances, &mann_whitney_chances(before, size));
        before += size;
    }
    chances
}

/// The chance of each count of pairs (earlier, later) in order, for `m` and `n` values in random order.
fn mann_whitney_chances(m: usize, n: usize) -> Vec<f64> {
    // table[j]: with i of the first kind and j of the second. The largest value is of the second kind with
    // probability j/(i + j), and then exceeds all i of the first kind.
    let mut table: Vec<Vec<f64>> = vec![vec![1.0]; n + 1];
    for i in 1..=m {
        for j in 1..=n {
            let mut chances = vec![0.0; i * j + 1];
            let share = length(j) / length(i + j);
            for (count, p) in table[j - 1].iter().enumerate() {
                chances[count + i] += share * p;
            }
            for (count, p) in table[j].iter().enumerate() {
                chances[count] += (1.0 - share) * p;
            }
            table[j] = chances;
        }
    }
    table.swap_remove(n)
}
