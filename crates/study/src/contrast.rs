//! Contrasts: weighted sums of mean scores on the same turns of every seed.

use std::collections::{BTreeMap, BTreeSet};

use experiment::{Analysis, Scorer, Subject};
use stats::{Components, CrossedScores, Observation};

use crate::error::StudyError;

/// Sums of scores are exact to this.
const ROUNDING: f64 = 1e-9;

/// A selection of subjects.
pub type Select<'a> = Box<dyn Fn(&Subject) -> bool + 'a>;

/// A weighted sum of the mean scores of selections; the weights add up to 0.
pub struct Contrast<'a> {
    terms: Vec<(f64, Select<'a>)>,
}

impl<'a> Contrast<'a> {
    /// Returns the difference of two selections.
    pub fn difference(first: Select<'a>, second: Select<'a>) -> Self {
        Self { terms: vec![(1.0, first), (-1.0, second)] }
    }

    /// Returns the mean of several differences.
    pub fn mean_difference(pairs: Vec<(Select<'a>, Select<'a>)>) -> Self {
        let share = 1.0 / pairs.len().max(1) as f64;
        let terms = pairs.into_iter().flat_map(|(first, second)| [(share, first), (-share, second)]);
        Self { terms: terms.collect() }
    }

    /// Returns the gain of the least-squares line through the scores at `levels`, from the lowest to the highest level.
    pub fn trend(levels: Vec<(f64, Select<'a>)>) -> Self {
        let weights = trend_weights(&levels.iter().map(|(level, _)| *level).collect::<Vec<_>>());
        Self { terms: weights.into_iter().zip(levels).map(|(weight, (_, keep))| (weight, keep)).collect() }
    }

    /// Returns mean and variance components over seeds and turns; `None` if a selection is empty or fewer than two questions
    /// remain.
    pub(crate) fn components(
        &self,
        analysis: &Analysis<'_>,
        scorer: &Scorer,
    ) -> Result<Option<Components>, StudyError> {
        let mut sums: BTreeMap<(u64, u64, u8), (f64, usize)> = BTreeMap::new();
        for (weight, keep) in &self.terms {
            for (at, score) in by_turn(analysis, scorer, keep) {
                let (sum, terms) = sums.entry(at).or_default();
                *sum += weight * score;
                *terms += 1;
            }
        }
        let whole = |terms: usize| terms == self.terms.len();
        let seeds: BTreeSet<u64> =
            sums.iter().filter(|(_, (_, terms))| whole(*terms)).map(|(&(seed, ..), _)| seed).collect();
        let turns: BTreeSet<(u64, u8)> = sums.keys().map(|&(_, question, turn)| (question, turn)).collect();
        // A turn without a rating excludes its question, for all seeds and terms.
        let is_broken = |&&(question, turn): &&(u64, u8)| {
            seeds.iter().any(|&seed| !sums.get(&(seed, question, turn)).is_some_and(|(_, n)| whole(*n)))
        };
        let broken: BTreeSet<u64> = turns.iter().filter(is_broken).map(|(question, _)| *question).collect();
        let rows: Vec<Observation> = sums
            .iter()
            .filter(|((seed, question, _), _)| seeds.contains(seed) && !broken.contains(question))
            .map(|(&(seed, question, turn), &(score, _))| Observation {
                seed,
                question,
                turn: turn.into(),
                repeat: 0,
                // Rounding of the weights must not look like an effect of equal scores.
                score: (score / ROUNDING).round() * ROUNDING,
            })
            .collect();
        if rows.iter().map(|row| row.question).collect::<BTreeSet<_>>().len() < 2 {
            return Ok(None);
        }
        let components = CrossedScores::new(rows).and_then(|scores| scores.components());
        components.map(Some).map_err(StudyError::stats("variance components"))
    }
}

/// Returns the weights of [`Contrast::trend`].
pub(crate) fn trend_weights(levels: &[f64]) -> Vec<f64> {
    let mean = levels.iter().sum::<f64>() / levels.len().max(1) as f64;
    let squares: f64 = levels.iter().map(|level| (level - mean).powi(2)).sum();
    let low = levels.iter().copied().fold(f64::INFINITY, f64::min);
    let high = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    levels.iter().map(|level| (level - mean) / squares * (high - low)).collect()
}

/// Returns mean scores by seed, question and turn.
fn by_turn(analysis: &Analysis<'_>, scorer: &Scorer, keep: &Select<'_>) -> BTreeMap<(u64, u64, u8), f64> {
    let mut sums: BTreeMap<(u64, u64, u8), (f64, f64)> = BTreeMap::new();
    for (subject, score) in analysis.scored(scorer, keep) {
        if let Some(value) = score.score {
            let (sum, count) = sums.entry((subject.seed(), score.question_id, score.turn)).or_default();
            *sum += value;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(at, (sum, count))| (at, sum / count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_the_gain_of_the_regression_line() {
        let levels = [0.25, 0.5, 0.75, 1.0];
        let gain = |scores: [f64; 4]| -> f64 {
            trend_weights(&levels).iter().zip(scores).map(|(weight, score)| weight * score).sum()
        };
        assert!((gain(levels.map(|level| 5.0 + 2.0 * level)) - 1.5).abs() < 1e-12);
        assert!(gain([6.0; 4]).abs() < 1e-12);
        assert!(gain([6.0, 7.0, 7.0, 6.0]).abs() < 1e-12, "a symmetric rise and fall has no trend");
    }
}
