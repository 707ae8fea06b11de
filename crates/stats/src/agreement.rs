//! How far raters agree beyond chance.

use serde::{Deserialize, Serialize};

use crate::{Choice, Error};

/// How far raters agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Agreement beyond chance: (observed − expected)/(1 − expected).
    pub kappa: Kappa,
    /// P̄: the share of agreeing pairs of raters, averaged over the items.
    pub observed: f64,
    /// Pₑ: the share of agreeing pairs that chance would give.
    pub expected: f64,
    /// How many items were rated.
    pub items: usize,
    /// How many raters rated each item.
    pub raters: u64,
}

/// A kappa, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kappa {
    /// At most 1; 0 is chance.
    Value(f64),
    /// All ratings fall into one category: chance agrees fully as well, and kappa is 0/0.
    Undefined,
}

impl Kappa {
    /// The number, `None` where kappa is undefined.
    pub fn value(self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Undefined => None,
        }
    }
}

/// Fleiss' kappa of a table with one row an item and one column a category, each entry the number of raters who put the
/// item there.
///
/// With n raters, Pᵢ = (Σⱼ nᵢⱼ² − n)/(n(n − 1)), P̄ their mean over the items, pⱼ the share of all ratings in category j
/// and Pₑ = Σⱼ pⱼ²: κ = (P̄ − Pₑ)/(1 − Pₑ) (Fleiss, *Psychological Bulletin* 76, 1971). Raters need not be the same
/// persons for every item.
///
/// # Errors
///
/// [`Error::TooFew`] without items or with fewer than two raters; [`Error::UnequalRaters`] and
/// [`Error::UnequalCategories`] for a table that is not of one piece.
///
/// ```
/// // Three raters; two items on which they agree, one on which they do not.
/// let agreement = stats::fleiss_kappa(&[[3, 0], [0, 3], [2, 1]])?;
/// assert!((agreement.kappa.value().unwrap() - 0.55).abs() < 1e-12);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn fleiss_kappa<R: AsRef<[u64]>>(counts: &[R]) -> Result<Agreement, Error> {
    agreement(counts, Chance::Marginal)
}

/// Randolph's free-marginal kappa of such a table: as [`fleiss_kappa`], with chance that picks each of the k categories
/// alike, Pₑ = 1/k (Randolph, *Free-marginal multirater kappa*, 2005).
///
/// # Errors
///
/// As [`fleiss_kappa`].
pub fn randolph_kappa<R: AsRef<[u64]>>(counts: &[R]) -> Result<Agreement, Error> {
    agreement(counts, Chance::Uniform)
}

/// The table that kappas are computed from: for each item how many raters said [`Choice::Model1`], [`Choice::Model2`]
/// and [`Choice::Equal`].
pub fn choice_counts<R: AsRef<[Choice]>>(items: &[R]) -> Vec<[u64; 3]> {
    let count = |ratings: &R| {
        let mut counts = [0; 3];
        for rating in ratings.as_ref() {
            counts[rating.index()] += 1;
        }
        counts
    };
    items.iter().map(count).collect()
}

#[derive(Clone, Copy)]
enum Chance {
    Marginal,
    Uniform,
}

#[expect(clippy::cast_precision_loss, reason = "counts of ratings lie far below 2^53")]
fn agreement<R: AsRef<[u64]>>(counts: &[R], chance: Chance) -> Result<Agreement, Error> {
    let raters = check(counts)?;
    let n = raters as f64;
    let items = counts.len() as f64;
    let rows = || counts.iter().map(AsRef::as_ref);
    let categories = counts[0].as_ref().len();
    let mut shares = vec![0.0; categories];
    let mut observed = 0.0;
    for row in rows() {
        let squares: f64 = row.iter().map(|&count| (count as f64).powi(2)).sum();
        observed += (squares - n) / (n * (n - 1.0)) / items;
        for (share, &count) in shares.iter_mut().zip(row) {
            *share += count as f64 / (n * items);
        }
    }
    let used = (0..categories).filter(|&category| rows().any(|row| row[category] > 0)).count();
    let (expected, undefined) = match chance {
        Chance::Marginal => (shares.iter().map(|share| share * share).sum(), used == 1),
        Chance::Uniform => (1.0 / categories as f64, categories == 1),
    };
    let kappa =
        if undefined { Kappa::Undefined } else { Kappa::Value((observed - expected) / (1.0 - expected)) };
    Ok(Agreement { kappa, observed, expected, items: counts.len(), raters })
}

/// The number of raters, if the table is one that kappa is defined for.
fn check<R: AsRef<[u64]>>(counts: &[R]) -> Result<u64, Error> {
    let first = counts.first().ok_or(Error::TooFew { what: "items", needed: 1 })?.as_ref();
    let expected: u64 = first.iter().sum();
    if expected < 2 {
        return Err(Error::TooFew { what: "raters", needed: 2 });
    }
    for (item, row) in counts.iter().map(AsRef::as_ref).enumerate() {
        if row.len() != first.len() {
            return Err(Error::UnequalCategories { item, categories: row.len(), expected: first.len() });
        }
        let raters: u64 = row.iter().sum();
        if raters != expected {
            return Err(Error::UnequalRaters { item, raters, expected });
        }
    }
    Ok(expected)
}
