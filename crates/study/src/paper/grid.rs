//! The grid of the printed scores: the means that they can be.

use std::collections::BTreeSet;

use super::{Error, PaperTable};

/// Ratings of one run: 80 questions with two turns.
const ROWS: u32 = 160;
/// Number of runs in a printed mean, according to the paper.
const RUNS: u32 = 4;

/// The distinct printed scores and their grid.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreGrid {
    /// Number of distinct printed scores.
    pub scores: usize,
    /// Number of scores that are means of half points over 160 rows, to three digits.
    pub on_grid: usize,
    /// The other scores, with the numbers of rows from 150 to 159 that fit.
    pub off_grid: Vec<(String, Vec<u32>)>,
    /// Share of all means of four runs that print like the mean of one.
    pub by_chance: f64,
    /// Base-10 logarithm of the probability that as many means of four runs are on the grid.
    pub log10_p: f64,
}

/// Returns the grid of the scores in `tables`.
///
/// # Errors
///
/// None; a parsed table has all required cells.
pub fn grid(tables: &[PaperTable]) -> Result<ScoreGrid, Error> {
    let mut distinct: BTreeSet<&str> = BTreeSet::new();
    for table in tables {
        for (index, _) in table.score_columns() {
            distinct.extend(table.rows.iter().map(|row| row[index].as_str()));
        }
    }
    let single = prints(ROWS);
    let (on, off): (Vec<&str>, Vec<&str>) = distinct.iter().partition(|score| single.contains(**score));
    let fits = |score: &str| (150..ROWS).filter(|&rows| prints(rows).contains(score)).collect();
    let sums = (2 * ROWS * RUNS)..=(20 * ROWS * RUNS);
    let all = f64::from(18 * ROWS * RUNS + 1);
    let alike = sums.filter(|&sum| single.contains(&print(sum, ROWS * RUNS)[0])).count();
    let by_chance = alike as f64 / all;
    Ok(ScoreGrid {
        scores: distinct.len(),
        on_grid: on.len(),
        off_grid: off.into_iter().map(|score| (score.to_owned(), fits(score))).collect(),
        by_chance,
        log10_p: log10_tail(distinct.len(), on.len(), by_chance),
    })
}

/// Returns the printed means of half points from 1 to 10 over `rows` ratings.
fn prints(rows: u32) -> BTreeSet<String> {
    (2 * rows..=20 * rows).flat_map(|sum| print(sum, rows)).collect()
}

/// Returns the mean of `rows` ratings to three digits, with ties rounded up and down.
fn print(half_points: u32, rows: u32) -> [String; 2] {
    let (thousandths, divisor) = (1000 * half_points, 2 * rows);
    let (whole, rest) = (thousandths / divisor, thousandths % divisor);
    let up = whole + u32::from(2 * rest >= divisor);
    let down = whole + u32::from(2 * rest > divisor);
    [up, down].map(|value| format!("{}.{:03}", value / 1000, value % 1000))
}

/// log₁₀ P(X ≥ `hits`) of a binomial X.
fn log10_tail(n: usize, hits: usize, p: f64) -> f64 {
    let choose = |k: usize| (1..=k).map(|i| ((n - k + i) as f64 / i as f64).log10()).sum::<f64>();
    let term = |k: usize| choose(k) + k as f64 * p.log10() + (n - k) as f64 * (1.0 - p).log10();
    let largest = (hits..=n).map(term).fold(f64::NEG_INFINITY, f64::max);
    largest + (hits..=n).map(|k| 10_f64.powf(term(k) - largest)).sum::<f64>().log10()
}
