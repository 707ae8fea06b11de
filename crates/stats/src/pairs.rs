//! Agreement of two raters (Cohen) and of any number with gaps (Krippendorff).

use serde::{Deserialize, Serialize};

use crate::distribution::{length, normal_quantile, t_quantile, to_f64};
use crate::error::check_level;
use crate::{Error, Interval, Kappa};

/// The weights of disagreements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// Any disagreement alike: for categories without an order.
    #[default]
    Unweighted,
    /// By the distance between categories.
    Linear,
    /// By the distance's square; kappa then is an intraclass correlation.
    Quadratic,
}

/// Cohen's kappa with its large-sample standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CohenKappa {
    /// Agreement beyond chance; undefined where both raters use one and the same category.
    pub kappa: Kappa,
    /// The (weighted) share of items on which they agree.
    pub observed: f64,
    /// The share that chance would give.
    pub expected: f64,
    /// Standard error; `None` where kappa is undefined.
    pub standard_error: Option<f64>,
    /// How many items both rated.
    pub items: u64,
}

impl CohenKappa {
    /// The normal interval of kappa, as statsmodels gives it; `None` where kappa is undefined.
    ///
    /// # Errors
    ///
    /// [`Error::Level`].
    pub fn interval(&self, level: f64) -> Result<Option<Interval>, Error> {
        check_level(level)?;
        let (Some(kappa), Some(error)) = (self.kappa.value(), self.standard_error) else { return Ok(None) };
        let half = normal_quantile(f64::midpoint(1.0, level)) * error;
        Ok(Some(Interval { low: kappa - half, high: kappa + half, level }))
    }
}

/// Cohen's kappa of two raters (*Educational and Psychological Measurement* 20, 1960), weighted or not, from their table:
/// `table[i][j]` items that the first put into category i and the second into j. Standard error of Fleiss, Cohen and
/// Everitt (*Psychological Bulletin* 72, 1969).
///
/// Use it for exactly two raters of the same items with different marginal distributions; Fleiss' kappa gives them
/// one common chance instead.
///
/// # Errors
///
/// [`Error::UnequalCategories`] unless the table is square; [`Error::TooFew`] without items.
///
/// ```
/// use stats::{Weights, cohen_kappa};
///
/// let kappa = cohen_kappa(&[[20, 5], [10, 15]], Weights::Unweighted)?;
/// assert!((kappa.kappa.value().unwrap() - 0.4).abs() < 1e-12);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn cohen_kappa<R: AsRef<[u64]>>(table: &[R], weights: Weights) -> Result<CohenKappa, Error> {
    let k = table.len();
    let odd = table.iter().map(|row| row.as_ref().len()).enumerate().find(|&(_, length)| length != k);
    if let Some((item, categories)) = odd {
        return Err(Error::UnequalCategories { item, categories, expected: k });
    }
    let items: u64 = table.iter().flat_map(AsRef::as_ref).sum();
    if items == 0 {
        return Err(Error::TooFew { what: "items", needed: 1 });
    }
    let n = to_f64(items);
    let p = |i: usize, j: usize| to_f64(table[i].as_ref()[j]) / n;
    let weight = |i: usize, j: usize| {
        let distance = length(i.abs_diff(j)) / (length(k) - 1.0).max(1.0);
        match weights {
            Weights::Unweighted => f64::from(u8::from(i == j)),
            Weights::Linear => 1.0 - distance,
            Weights::Quadratic => 1.0 - distance * distance,
        }
    };
    let rows: Vec<f64> = (0..k).map(|i| (0..k).map(|j| p(i, j)).sum()).collect();
    let columns: Vec<f64> = (0..k).map(|j| (0..k).map(|i| p(i, j)).sum()).collect();
    let cells = || (0..k).flat_map(|i| (0..k).map(move |j| (i, j)));
    let observed: f64 = cells().map(|(i, j)| weight(i, j) * p(i, j)).sum();
    let expected: f64 = cells().map(|(i, j)| weight(i, j) * rows[i] * columns[j]).sum();
    if (0..k).any(|i| table[i].as_ref()[i] == items) {
        let kappa = Kappa::Undefined;
        return Ok(CohenKappa { kappa, observed, expected, standard_error: None, items });
    }
    let kappa = (observed - expected) / (1.0 - expected);
    let of_row: Vec<f64> = (0..k).map(|i| (0..k).map(|j| weight(i, j) * columns[j]).sum()).collect();
    let of_column: Vec<f64> = (0..k).map(|j| (0..k).map(|i| weight(i, j) * rows[i]).sum()).collect();
    let squares: f64 = cells()
        .map(|(i, j)| p(i, j) * (weight(i, j) - (of_row[i] + of_column[j]) * (1.0 - kappa)).powi(2))
        .sum();
    let variance = (squares - (kappa - expected * (1.0 - kappa)).powi(2)) / (n * (1.0 - expected).powi(2));
    let standard_error = Some(variance.max(0.0).sqrt());
    Ok(CohenKappa { kappa: Kappa::Value(kappa), observed, expected, standard_error, items })
}

/// How far apart two categories are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Different or not.
    #[default]
    Nominal,
    /// By how many ratings lie between them.
    Ordinal,
    /// By the difference of their numbers: columns are values at equal steps.
    Interval,
}

/// Krippendorff's α.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alpha {
    /// 1 − observed/expected disagreement; undefined where all ratings fall into one category.
    pub alpha: Kappa,
    /// Standard error over other items, by leaving out each in turn; `None` where α is undefined, or would be without one
    /// of the items.
    pub standard_error: Option<f64>,
    /// Items with two ratings or more: the others are left out.
    pub items: usize,
    /// Ratings of those items.
    pub ratings: u64,
}

impl Alpha {
    /// The t-interval of α with items − 1 degrees of freedom, cut at 1; `None` where there is no standard error.
    ///
    /// # Errors
    ///
    /// [`Error::Level`].
    pub fn interval(&self, level: f64) -> Result<Option<Interval>, Error> {
        check_level(level)?;
        let (Some(alpha), Some(error)) = (self.alpha.value(), self.standard_error) else { return Ok(None) };
        let half = t_quantile(f64::midpoint(1.0, level), length(self.items) - 1.0) * error;
        Ok(Some(Interval { low: alpha - half, high: (alpha + half).min(1.0), level }))
    }
}

/// Krippendorff's α (*Content Analysis*, 2004, ch. 11) of a table with one row per item and one column per category;
/// entries count raters.
///
/// Use it for unequal numbers of ratings, or for ordered categories: scores of 1 to 10 are columns with
/// [`Metric::Interval`]. With complete nominal ratings it is Fleiss' kappa but for a small-sample term.
///
/// # Errors
///
/// [`Error::TooFew`] without an item that two rated; [`Error::UnequalCategories`].
///
/// ```
/// use stats::{Metric, krippendorff_alpha};
///
/// // The third item has one rating only and is left out.
/// let alpha = krippendorff_alpha(&[[2, 0], [0, 3], [1, 0], [1, 2]], Metric::Nominal)?;
/// assert_eq!(alpha.items, 3);
/// assert!(alpha.alpha.value().unwrap() > 0.4);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn krippendorff_alpha<R: AsRef<[u64]>>(counts: &[R], metric: Metric) -> Result<Alpha, Error> {
    let categories = counts.first().map_or(0, |row| row.as_ref().len());
    let rows = || counts.iter().map(AsRef::as_ref);
    if let Some((item, row)) = rows().enumerate().find(|(_, row)| row.len() != categories) {
        return Err(Error::UnequalCategories { item, categories: row.len(), expected: categories });
    }
    let rated: Vec<&[u64]> = rows().filter(|row: &&[u64]| row.iter().sum::<u64>() >= 2).collect();
    if rated.is_empty() {
        return Err(Error::TooFew { what: "items with two ratings", needed: 1 });
    }
    let ratings = rated.iter().copied().flatten().sum();
    let coincidences = |row: &[u64]| -> Vec<f64> {
        let raters = to_f64(row.iter().sum());
        let cell = |c: usize, k: usize| {
            to_f64(row[c]) * (to_f64(row[k]) - f64::from(u8::from(c == k))) / (raters - 1.0)
        };
        (0..categories * categories).map(|at| cell(at / categories, at % categories)).collect()
    };
    let of_items: Vec<Vec<f64>> = rated.iter().map(|row| coincidences(row)).collect();
    let mut all = vec![0.0; categories * categories];
    for of_item in &of_items {
        all.iter_mut().zip(of_item).for_each(|(sum, value)| *sum += value);
    }
    let alpha = alpha_of(&all, categories, metric);
    let without = |of_item: &Vec<f64>| {
        let rest: Vec<f64> = all.iter().zip(of_item).map(|(sum, value)| (sum - value).max(0.0)).collect();
        alpha_of(&rest, categories, metric)
    };
    let left_out: Option<Vec<f64>> = of_items.iter().map(without).collect();
    let standard_error = left_out.filter(|values| values.len() > 1 && alpha.is_some()).map(|values| {
        let n = length(values.len());
        let (_, squares) = crate::distribution::moments(&values);
        (squares * (n - 1.0) / n).sqrt()
    });
    let alpha = alpha.map_or(Kappa::Undefined, Kappa::Value);
    Ok(Alpha { alpha, standard_error, items: rated.len(), ratings })
}

/// α of a matrix of coincidences, `[categories × categories]`; `None` for 0/0.
fn alpha_of(coincidences: &[f64], categories: usize, metric: Metric) -> Option<f64> {
    let totals: Vec<f64> = coincidences.chunks_exact(categories).map(|row| row.iter().sum::<f64>()).collect();
    let n: f64 = totals.iter().sum();
    let distance = |c: usize, k: usize| match metric {
        Metric::Nominal => f64::from(u8::from(c != k)),
        Metric::Interval => length(c.abs_diff(k)).powi(2),
        Metric::Ordinal => {
            let (low, high) = (c.min(k), c.max(k));
            let between: f64 = totals[low..=high].iter().sum();
            (between - f64::midpoint(totals[c], totals[k])).powi(2)
        }
    };
    let (mut observed, mut expected) = (0.0, 0.0);
    for c in 0..categories {
        for k in 0..categories {
            let distance = if c == k { 0.0 } else { distance(c, k) };
            observed += coincidences[c * categories + k] * distance;
            expected += totals[c] * totals[k] * distance / (n - 1.0);
        }
    }
    (expected > 1e-12).then(|| 1.0 - observed / expected)
}
