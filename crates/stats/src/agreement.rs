//! How far raters agree beyond chance.

use serde::{Deserialize, Serialize};

use crate::distribution::{length, t_quantile, to_f64};
use crate::error::check_level;
use crate::{Choice, Error, Interval};

/// Agreement of raters.
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
    /// How many raters rated each item; the most, where that differs.
    pub raters: u64,
    /// Standard error of kappa over *other items*, with fixed raters, from the items' influence values (Gwet,
    /// *British Journal of Mathematical and Statistical Psychology* 61, 2008). `None` where kappa is undefined or
    /// there is one item.
    pub standard_error: Option<f64>,
}

impl Agreement {
    /// The t-interval of kappa with items − 1 degrees of freedom, cut at 1; `None` where there is no standard error.
    ///
    /// It covers the sampling of items, not of raters.
    ///
    /// # Errors
    ///
    /// [`Error::Level`].
    ///
    /// ```
    /// let ratings: Vec<[u64; 3]> = (0..40).map(|i| [[3, 0, 0], [0, 3, 0], [2, 0, 1], [0, 1, 2]][i % 4]).collect();
    /// let interval = stats::fleiss_kappa(&ratings)?.interval(0.95)?.unwrap();
    /// assert!(interval.low > 0.3 && interval.high < 0.7);
    /// # Ok::<(), stats::Error>(())
    /// ```
    pub fn interval(&self, level: f64) -> Result<Option<Interval>, Error> {
        check_level(level)?;
        let (Some(kappa), Some(error)) = (self.kappa.value(), self.standard_error) else { return Ok(None) };
        let half = t_quantile(f64::midpoint(1.0, level), length(self.items) - 1.0) * error;
        Ok(Some(Interval { low: kappa - half, high: (kappa + half).min(1.0), level }))
    }
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

/// Fleiss' kappa of a table with one row per item and one column per category; entries count raters.
///
/// κ = (P̄ − Pₑ)/(1 − Pₑ) (Fleiss, *Psychological Bulletin* 76, 1971). For n raters, P̄ is the mean over items of Pᵢ
/// = (Σⱼ nᵢⱼ² − n)/(n(n − 1)). Pₑ = Σⱼ pⱼ², with pⱼ the proportion of all ratings in category j. Raters need not be
/// the same persons for every item. Use it for three or more raters and unordered categories, none of which has
/// nearly all ratings; [`gwet_ac1`] is for that case, [`krippendorff_alpha`](crate::krippendorff_alpha) for gaps.
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
    check(counts)?;
    Ok(agreement(counts, Chance::Marginal))
}

/// Gwet's AC1 of such a table: as [`fleiss_kappa`], with chance agreement Pₑ = Σⱼ pⱼ(1 − pⱼ)/(q − 1). q is the number
/// of categories, and pⱼ the mean proportion of category j.
///
/// Report it with kappa if one category has nearly all ratings: kappa is then near 0 although the raters agree, AC1
/// is not (Gwet 2008). Items may have different numbers of ratings. An item with one rating only counts towards the
/// category proportions.
///
/// # Errors
///
/// [`Error::TooFew`] without an item that two rated or with one category; [`Error::UnequalCategories`].
///
/// ```
/// // Nineteen items on which three raters agree, all in one category, and one on which they do not.
/// let mut ratings = vec![[3, 0]; 19];
/// ratings.push([2, 1]);
/// assert!(stats::fleiss_kappa(&ratings)?.kappa.value().unwrap() < 0.0);
/// assert!(stats::gwet_ac1(&ratings)?.kappa.value().unwrap() > 0.9);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn gwet_ac1<R: AsRef<[u64]>>(counts: &[R]) -> Result<Agreement, Error> {
    let categories = same_categories(counts)?;
    if categories < 2 {
        return Err(Error::TooFew { what: "categories", needed: 2 });
    }
    if !counts.iter().any(|row| row.as_ref().iter().sum::<u64>() >= 2) {
        return Err(Error::TooFew { what: "raters", needed: 2 });
    }
    Ok(agreement(counts, Chance::Unused))
}

/// Randolph's free-marginal kappa of such a table: as [`fleiss_kappa`], with chance agreement Pₑ = 1/k for k
/// categories (Randolph, *Free-marginal multirater kappa*, 2005). Use it where raters had no quota to fill and no
/// category is expected to be common.
///
/// # Errors
///
/// As [`fleiss_kappa`].
///
/// ```
/// // Always the same category: Fleiss' kappa is undefined, this one is 1.
/// assert_eq!(stats::randolph_kappa(&[[3, 0], [3, 0]])?.kappa.value(), Some(1.0));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn randolph_kappa<R: AsRef<[u64]>>(counts: &[R]) -> Result<Agreement, Error> {
    check(counts)?;
    Ok(agreement(counts, Chance::Uniform))
}

/// The table that kappas are computed from: for each item how many raters said [`Choice::Model1`], [`Choice::Model2`]
/// and [`Choice::Equal`].
///
/// ```
/// use stats::Choice::{Equal, Model1};
///
/// assert_eq!(stats::choice_counts(&[[Model1, Model1, Equal]]), [[2, 0, 1]]);
/// ```
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
    Unused,
}

impl Chance {
    /// The agreement by chance that an item's shares have with the shares of all.
    fn of(self, shares: &[f64], all: &[f64]) -> f64 {
        let categories = length(all.len());
        match self {
            Self::Marginal => shares.iter().zip(all).map(|(share, all)| share * all).sum(),
            Self::Uniform => 1.0 / categories,
            Self::Unused => {
                shares.iter().zip(all).map(|(share, all)| share * (1.0 - all)).sum::<f64>()
                    / (categories - 1.0)
            }
        }
    }
}

/// Kappa with its standard error, of a table that was checked. Items that nobody rated are left out.
fn agreement<R: AsRef<[u64]>>(counts: &[R], chance: Chance) -> Agreement {
    let rated = counts.iter().map(AsRef::as_ref).filter(|row: &&[u64]| row.iter().any(|&count| count > 0));
    let rows: Vec<(&[u64], f64)> = rated.map(|row| (row, to_f64(row.iter().sum()))).collect();
    let items = length(rows.len());
    let shared = length(rows.iter().filter(|(_, raters)| *raters >= 2.0).count());
    let shares: Vec<Vec<f64>> =
        rows.iter().map(|(row, raters)| row.iter().map(|&count| to_f64(count) / raters).collect()).collect();
    let categories = rows.first().map_or(0, |(row, _)| row.len());
    let all: Vec<f64> =
        (0..categories).map(|category| shares.iter().map(|of| of[category]).sum::<f64>() / items).collect();
    let expected = chance.of(&all, &all);
    let agreeing = |(row, raters): &(&[u64], f64)| {
        let squares: f64 = row.iter().map(|&count| to_f64(count).powi(2)).sum();
        if *raters >= 2.0 { (squares - raters) / (raters * (raters - 1.0)) } else { 0.0 }
    };
    let observed = rows.iter().map(agreeing).sum::<f64>() / shared;
    let one_category = rows.iter().all(|(row, _)| row.iter().filter(|&&count| count > 0).count() == 1)
        && all.iter().filter(|&&share| share > 0.0).count() == 1;
    let undefined = match chance {
        Chance::Marginal => one_category,
        Chance::Uniform => categories == 1,
        Chance::Unused => false,
    };
    let raters = rows.iter().map(|(row, _)| row.iter().sum()).max().unwrap_or(0);
    let blank = Agreement {
        kappa: Kappa::Undefined,
        observed,
        expected,
        items: rows.len(),
        raters,
        standard_error: None,
    };
    if undefined {
        return blank;
    }
    let kappa = (observed - expected) / (1.0 - expected);
    let influence = |(row, shares): (&(&[u64], f64), &Vec<f64>)| {
        let by_chance = if row.1 >= 2.0 { expected } else { 0.0 };
        let own = items / shared * (agreeing(row) - by_chance) / (1.0 - expected);
        own - 2.0 * (1.0 - kappa) * (chance.of(shares, &all) - expected) / (1.0 - expected) - kappa
    };
    let squares: f64 = rows.iter().zip(&shares).map(influence).map(|value| value * value).sum();
    let standard_error = (rows.len() > 1).then(|| (squares / (items * (items - 1.0))).sqrt());
    Agreement { kappa: Kappa::Value(kappa), standard_error, ..blank }
}

/// The number of categories, which every item must have.
fn same_categories<R: AsRef<[u64]>>(counts: &[R]) -> Result<usize, Error> {
    let expected = counts.first().ok_or(Error::TooFew { what: "items", needed: 1 })?.as_ref().len();
    let other =
        counts.iter().map(|row| row.as_ref().len()).enumerate().find(|&(_, length)| length != expected);
    match other {
        Some((item, categories)) => Err(Error::UnequalCategories { item, categories, expected }),
        None => Ok(expected),
    }
}

/// Refuses a table that Fleiss' kappa is not defined for.
fn check<R: AsRef<[u64]>>(counts: &[R]) -> Result<(), Error> {
    same_categories(counts)?;
    let raters = |row: &R| row.as_ref().iter().sum::<u64>();
    let expected = raters(&counts[0]);
    if expected < 2 {
        return Err(Error::TooFew { what: "raters", needed: 2 });
    }
    match counts.iter().map(raters).enumerate().find(|&(_, raters)| raters != expected) {
        Some((item, raters)) => Err(Error::UnequalRaters { item, raters, expected }),
        None => Ok(()),
    }
}
