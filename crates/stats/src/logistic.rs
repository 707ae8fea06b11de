//! Logistic regression with clustered standard errors.

use std::collections::BTreeMap;

/// A row of a logistic regression.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticRow {
    /// The covariates, as many in each row.
    pub x: Vec<f64>,
    /// The outcome, from 0 to 1.
    pub y: f64,
    /// The number of rows that it counts for, above 0.
    pub weight: f64,
    /// The cluster, such as a question. Rows of different clusters are independent.
    pub cluster: u64,
}

/// Coefficients in log-odds and their standard errors.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticFit {
    /// The coefficients.
    pub coefficients: Vec<f64>,
    /// Their standard errors, clustered.
    pub standard_errors: Vec<f64>,
}

/// Maximum of Newton steps.
const MOST_STEPS: usize = 100;
/// The largest slope at which the search ends, as a share of the sum of weights.
const FLAT: f64 = 1e-12;
/// Coefficients beyond this show that the maximum is at infinity.
const FINITE: f64 = 20.0;

/// Fits P(y) = 1/(1 + exp(−x·β)) by maximum likelihood; `None` if the maximum is not finite or not unique, or there are
/// fewer than two clusters.
///
/// Standard errors are the sandwich estimator over clusters (Liang and Zeger, *Biometrika* 73, 1986), with the factors
/// G/(G−1) and (N−1)/(N−k) of statsmodels, where N is the sum of weights.
///
/// Use it for outcomes of games with covariates, such as the length of answers. Assumes a linear effect on the log-odds, and
/// many clusters: with few, the errors are too small.
///
/// ```
/// use stats::{LogisticRow, logistic_regression};
///
/// // Three wins of four games.
/// let row = |y, cluster| LogisticRow { x: vec![1.0], y, weight: 1.0, cluster };
/// let fit = logistic_regression(&[row(1.0, 0), row(1.0, 1), row(1.0, 2), row(0.0, 3)]).expect("finite");
/// assert!((fit.coefficients[0] - 3f64.ln()).abs() < 1e-9);
/// ```
pub fn logistic_regression(rows: &[LogisticRow]) -> Option<LogisticFit> {
    let k = rows.first()?.x.len();
    let total: f64 = rows.iter().map(|of| of.weight).sum();
    let mut beta = vec![0.0; k];
    for _ in 0..MOST_STEPS {
        let (slope, information) = derivatives(rows, &beta);
        if slope.iter().all(|slope| slope.abs() <= FLAT * total) {
            break;
        }
        let step = product(&inverse(information)?, &slope);
        // The quadratic approximation is local, so long steps are shortened.
        let longest = step.iter().fold(0.0_f64, |longest, step| longest.max(step.abs()));
        let scale = if longest > 2.0 { 2.0 / longest } else { 1.0 };
        beta.iter_mut().zip(&step).for_each(|(beta, step)| *beta += scale * step);
        if beta.iter().any(|beta| beta.is_nan() || beta.abs() > FINITE) {
            return None;
        }
    }
    let (slope, information) = derivatives(rows, &beta);
    if slope.iter().any(|slope| slope.abs() > 1e-6 * total) {
        return None;
    }
    let standard_errors = clustered_errors(rows, &beta, &inverse(information)?, total)?;
    Some(LogisticFit { coefficients: beta, standard_errors })
}

fn probability(beta: &[f64], x: &[f64]) -> f64 {
    let eta: f64 = beta.iter().zip(x).map(|(beta, x)| beta * x).sum();
    1.0 / (1.0 + (-eta).exp())
}

/// The slope of the log-likelihood and its negative second derivatives.
fn derivatives(rows: &[LogisticRow], beta: &[f64]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let k = beta.len();
    let (mut slope, mut information) = (vec![0.0; k], vec![vec![0.0; k]; k]);
    for LogisticRow { x, y, weight, .. } in rows {
        let p = probability(beta, x);
        for i in 0..k {
            slope[i] += weight * (y - p) * x[i];
            for j in 0..k {
                information[i][j] += weight * p * (1.0 - p) * x[i] * x[j];
            }
        }
    }
    (slope, information)
}

fn clustered_errors(rows: &[LogisticRow], beta: &[f64], bread: &[Vec<f64>], total: f64) -> Option<Vec<f64>> {
    let k = beta.len();
    let mut scores: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for LogisticRow { x, y, weight, cluster } in rows {
        let residual = weight * (y - probability(beta, x));
        let of = scores.entry(*cluster).or_insert_with(|| vec![0.0; k]);
        of.iter_mut().zip(x).for_each(|(score, x)| *score += residual * x);
    }
    let clusters = scores.len() as f64;
    if clusters < 2.0 || total <= k as f64 {
        return None;
    }
    let factor = clusters / (clusters - 1.0) * (total - 1.0) / (total - k as f64);
    let variance = |row: &Vec<f64>| {
        let of_cluster = |score: &Vec<f64>| row.iter().zip(score).map(|(a, b)| a * b).sum::<f64>();
        scores.values().map(|score| of_cluster(score).powi(2)).sum::<f64>()
    };
    Some(bread.iter().map(|row| (factor * variance(row)).sqrt()).collect())
}

fn product(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

/// The inverse of a symmetric positive definite matrix; `None` if it is singular.
fn inverse(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let k = matrix.len();
    let scale = matrix.iter().enumerate().map(|(at, row)| row[at]).fold(0.0, f64::max);
    let mut inverse: Vec<Vec<f64>> =
        (0..k).map(|i| (0..k).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for column in 0..k {
        let pivot =
            (column..k).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() <= 1e-10 * scale {
            return None;
        }
        matrix.swap(column, pivot);
        inverse.swap(column, pivot);
        let divisor = matrix[column][column];
        for j in 0..k {
            matrix[column][j] /= divisor;
            inverse[column][j] /= divisor;
        }
        for row in (0..k).filter(|row| *row != column) {
            let factor = matrix[row][column];
            for j in 0..k {
                matrix[row][j] -= factor * matrix[column][j];
                inverse[row][j] -= factor * inverse[column][j];
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Fixture {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        #[serde(rename = "observations")]
        rows: Vec<Row>,
        coefficients: Vec<f64>,
        errors: Vec<f64>,
    }

    #[derive(Deserialize)]
    struct Row {
        x: Vec<f64>,
        y: f64,
        weight: f64,
        cluster: u64,
    }

    /// Largest relative difference from statsmodels, which ends at a tolerance of its own.
    const STATSMODELS: f64 = 1e-8;

    #[test]
    fn coefficients_and_clustered_errors_are_those_of_statsmodels() {
        let fixture: Fixture = serde_json::from_str(include_str!("../tests/fixtures/logistic.json")).unwrap();
        assert_eq!(fixture.cases.len(), 3);
        for case in fixture.cases {
            let rows: Vec<LogisticRow> = case
                .rows
                .into_iter()
                .map(|Row { x, y, weight, cluster }| LogisticRow { x, y, weight, cluster })
                .collect();
            let fit = logistic_regression(&rows).unwrap();
            for (ours, theirs) in fit
                .coefficients
                .iter()
                .chain(&fit.standard_errors)
                .zip(case.coefficients.iter().chain(&case.errors))
            {
                assert!((ours - theirs).abs() <= STATSMODELS * theirs.abs().max(1.0), "{ours} and {theirs}");
            }
        }
    }

    #[test]
    fn a_maximum_at_infinity_and_collinear_covariates_are_none() {
        let row = |x: &[f64], y, cluster| LogisticRow { x: x.to_vec(), y, weight: 1.0, cluster };
        assert_eq!(logistic_regression(&[]), None);
        let always: Vec<LogisticRow> = (0..20).map(|cluster| row(&[1.0], 1.0, cluster)).collect();
        assert_eq!(logistic_regression(&always), None, "the model wins every game");
        let twice: Vec<LogisticRow> =
            (0..20).map(|cluster| row(&[1.0, 2.0], (cluster % 2) as f64, cluster)).collect();
        assert_eq!(logistic_regression(&twice), None);
        let one_cluster: Vec<LogisticRow> = (0..20).map(|at| row(&[1.0], (at % 2) as f64, 7)).collect();
        assert_eq!(logistic_regression(&one_cluster), None);
        let even: Vec<LogisticRow> =
            (0..20).map(|cluster| row(&[1.0], (cluster % 2) as f64, cluster)).collect();
        assert!(logistic_regression(&even).unwrap().coefficients[0].abs() < 1e-12);
    }
}
