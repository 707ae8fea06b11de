//! Bradley–Terry strengths from pairwise wins.

use serde::{Deserialize, Serialize};

use crate::distribution::{length, normal_quantile};
use crate::error::check_level;
use crate::{Error, Interval};

/// Maximum of Newton steps; a concave likelihood needs fewer than ten.
const MOST_STEPS: usize = 200;
/// Largest slope of the log-likelihood, in games, at which the search ends.
const FLAT: f64 = 1e-11;
/// Elo's points for a factor of ten in odds.
const ELO_SCALE: f64 = 400.0;

/// Bradley–Terry strengths: P(i beats j) = 1/(1 + exp(strengthⱼ − strengthᵢ)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BradleyTerry {
    /// Natural log strengths, which sum to 0.
    pub strengths: Vec<f64>,
    /// `[policies][policies]`, their covariance.
    covariance: Vec<Vec<f64>>,
}

/// Fits strengths by maximum likelihood to `wins[i][j]`, how often i beat j (Bradley and Terry, *Biometrika* 39, 1952). A
/// tie is half a win for either side, as in Chatbot Arena.
///
/// Use it where policies met in pairs and not all met all: two win rates against different opponents cannot be compared,
/// two strengths can. Assumes that one number a policy explains every pairing, and that games are independent; with
/// several games a question the intervals are too narrow.
///
/// # Errors
///
/// [`Error::TooFewClusters`] below two policies; [`Error::OtherLength`] unless the table is square; [`Error::NotFinite`]
/// for a count below 0 or not finite; [`Error::Unconnected`] where some policies never lost to (or never met) the others:
/// their strength has no upper bound.
///
/// ```
/// // 63 wins, 46 losses, 51 ties: Table 2 of the paper.
/// let (wins, losses) = (63.0 + 51.0 / 2.0, 46.0 + 51.0 / 2.0);
/// let fit = stats::bradley_terry(&[[0.0, wins], [losses, 0.0]])?;
/// assert!((fit.elo()[0] - fit.elo()[1] - 37.0549).abs() < 0.01);
/// let gap = fit.gap(0, 1, 0.95)?;
/// assert!(gap.low < 0.0, "which is stronger is not settled");
/// # Ok::<(), stats::Error>(())
/// ```
pub fn bradley_terry<R: AsRef<[f64]>>(wins: &[R]) -> Result<BradleyTerry, Error> {
    let k = wins.len();
    if k < 2 {
        return Err(Error::TooFewClusters { clusters: k });
    }
    for (row, of_row) in wins.iter().map(AsRef::as_ref).enumerate() {
        if of_row.len() != k {
            return Err(Error::OtherLength { first: k, second: of_row.len() });
        }
        if let Some(&value) = of_row.iter().find(|value| !value.is_finite() || **value < 0.0) {
            return Err(Error::NotFinite { row, cluster: row as u64, value });
        }
    }
    let won = |i: usize, j: usize| if i == j { 0.0 } else { wins[i].as_ref()[j] };
    for (forward, name) in [(true, "beat"), (false, "lost to")] {
        let beats = |i: usize, j: usize| if forward { won(i, j) > 0.0 } else { won(j, i) > 0.0 };
        let reached = reached_from_first(k, beats);
        if let Some(policy) = reached.iter().position(|reached| !reached) {
            return Err(Error::Unconnected { policy, relation: name });
        }
    }
    let mut strengths = vec![0.0; k];
    for _ in 0..MOST_STEPS {
        let (slope, information) = derivatives(&strengths, won);
        if slope.iter().all(|slope| slope.abs() < FLAT) {
            break;
        }
        let step = centred_inverse(&information)
            .iter()
            .map(|row| row.iter().zip(&slope).map(|(a, b)| a * b).sum::<f64>())
            .collect::<Vec<f64>>();
        // The quadratic approximation is local, so long steps are shortened.
        let longest = step.iter().fold(0.0_f64, |longest, step| longest.max(step.abs()));
        let scale = if longest > 1.0 { 1.0 / longest } else { 1.0 };
        strengths.iter_mut().zip(step).for_each(|(strength, step)| *strength += scale * step);
    }
    let (_, information) = derivatives(&strengths, won);
    Ok(BradleyTerry { covariance: centred_inverse(&information), strengths })
}

impl BradleyTerry {
    /// The strengths on Elo's scale: 400 points are odds of ten to one, the mean is 1,000.
    pub fn elo(&self) -> Vec<f64> {
        self.strengths
            .iter()
            .map(|strength| 1000.0 + strength * ELO_SCALE / std::f64::consts::LN_10)
            .collect()
    }

    /// The interval of the log odds that policy `first` beats `second`, normal from the Fisher information.
    ///
    /// # Errors
    ///
    /// [`Error::Level`]; [`Error::UnknownPolicy`] for an index beyond the table.
    pub fn gap(&self, first: usize, second: usize, level: f64) -> Result<Interval, Error> {
        check_level(level)?;
        if let Some(policy) = [first, second].into_iter().find(|&policy| policy >= self.strengths.len()) {
            return Err(Error::UnknownPolicy { policy, policies: self.strengths.len() });
        }
        let covariance = |i: usize, j: usize| self.covariance[i][j];
        let variance =
            covariance(first, first) + covariance(second, second) - 2.0 * covariance(first, second);
        let half = normal_quantile(f64::midpoint(1.0, level)) * variance.max(0.0).sqrt();
        let gap = self.strengths[first] - self.strengths[second];
        Ok(Interval { low: gap - half, high: gap + half, level })
    }
}

fn reached_from_first(k: usize, beats: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    let mut reached = vec![false; k];
    reached[0] = true;
    let mut open = vec![0];
    while let Some(i) = open.pop() {
        for (j, reached) in reached.iter_mut().enumerate() {
            if !*reached && beats(i, j) {
                *reached = true;
                open.push(j);
            }
        }
    }
    reached
}

/// Slope of the log-likelihood and its negative curvature.
fn derivatives(strengths: &[f64], won: impl Fn(usize, usize) -> f64) -> (Vec<f64>, Vec<Vec<f64>>) {
    let k = strengths.len();
    let mut slope = vec![0.0; k];
    let mut information = vec![vec![0.0; k]; k];
    for i in 0..k {
        for j in 0..i {
            let p = 1.0 / (1.0 + (strengths[j] - strengths[i]).exp());
            let games = won(i, j) + won(j, i);
            let surplus = won(i, j) - games * p;
            slope[i] += surplus;
            slope[j] -= surplus;
            let weight = games * p * (1.0 - p);
            information[i][i] += weight;
            information[j][j] += weight;
            information[i][j] -= weight;
            information[j][i] -= weight;
        }
    }
    (slope, information)
}

/// The inverse among vectors that sum to 0: that of `matrix` + 11ᵀ/k, less 11ᵀ/k.
fn centred_inverse(matrix: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let k = matrix.len();
    let share = 1.0 / length(k);
    let mut left: Vec<Vec<f64>> =
        matrix.iter().map(|row| row.iter().map(|value| value + share).collect()).collect();
    let mut right: Vec<Vec<f64>> =
        (0..k).map(|i| (0..k).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for column in 0..k {
        // The matrix is symmetric and positive definite: no pivoting is needed.
        let pivot = left[column][column];
        for value in left[column].iter_mut().chain(right[column].iter_mut()) {
            *value /= pivot;
        }
        let (from_left, from_right) = (left[column].clone(), right[column].clone());
        for row in (0..k).filter(|&row| row != column) {
            let factor = left[row][column];
            left[row].iter_mut().zip(&from_left).for_each(|(value, from)| *value -= factor * from);
            right[row].iter_mut().zip(&from_right).for_each(|(value, from)| *value -= factor * from);
        }
    }
    right.iter_mut().flatten().for_each(|value| *value -= share);
    right
}
