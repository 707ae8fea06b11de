//! Contrasts: weighted sums of mean scores of selections, with the shape of the effect that they look for.

use experiment::{Analysis, ExperimentError, LEVEL, Pool, Scorer, Selection, Subject};
use stats::{
    Alternative, CrossedScores, MeanEstimate, PooledSeeds, VarianceParts, all_pairs, cross_fit,
    equivalence_test, falls_from_peak,
};

use crate::error::StudyError;

/// Monte Carlo draws of a max-contrast test.
const DRAWS: usize = 10_000;
/// Folds of the questions in cross-fitting.
const FOLDS: usize = 5;

/// A selection of subjects.
pub type Select<'a> = Box<dyn Fn(&Subject) -> bool + 'a>;

/// A weighted sum of the mean scores of selections; the weights add up to 0.
pub struct Contrast<'a> {
    terms: Vec<(f64, Side<'a>)>,
    shape: Shape,
}

/// A side of a comparison.
enum Side<'a> {
    /// The mean of the selected policies.
    Mean(Select<'a>),
    /// The best of several settings, chosen on data on which it is not tested.
    Best(Vec<Select<'a>>),
}

/// The cells of a study, and the weights of each side's mean on them.
type Sides = (PooledSeeds, Vec<Vec<f64>>);

/// What a contrast's test looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A weighted sum other than 0.
    Sum,
    /// Any difference between the levels of a trend.
    Levels,
    /// A fall from some checkpoint to the last one.
    Fall,
}

/// A contrast under one scorer, before corrections for other comparisons.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) estimate: MeanEstimate,
    /// The confidence level of its interval, which is higher for an effect that was chosen among several.
    pub(crate) level: f64,
    /// p of "there is no effect".
    pub(crate) p: f64,
    /// p of "some effect is as large as the margin or larger"; of falls only, if the contrast looks for falls.
    pub(crate) equivalence: f64,
    /// p of "some effect is as low as −margin or lower".
    pub(crate) not_lower: f64,
    /// Variances by source; `None` with one seed.
    pub(crate) parts: Option<VarianceParts>,
    /// The numbers of questions and of seeds.
    pub(crate) size: (usize, usize),
    /// The index of the checkpoint from which a fall is the most significant.
    pub(crate) fall_from: Option<usize>,
}

impl<'a> Contrast<'a> {
    /// Returns the difference of two selections.
    pub fn difference(first: Select<'a>, second: Select<'a>) -> Self {
        Self::sum(vec![(1.0, Side::Mean(first)), (-1.0, Side::Mean(second))])
    }

    /// Returns the mean of several differences.
    pub fn mean_difference(pairs: Vec<(Select<'a>, Select<'a>)>) -> Self {
        let share = 1.0 / pairs.len().max(1) as f64;
        let sides = pairs
            .into_iter()
            .flat_map(|(first, second)| [(share, Side::Mean(first)), (-share, Side::Mean(second))]);
        Self::sum(sides.collect())
    }

    /// Returns the gain of the least-squares line through the scores at `levels`, from the lowest to the highest level.
    /// Its test looks for any difference between levels.
    pub fn trend(levels: Vec<(f64, Select<'a>)>) -> Self {
        let weights = trend_weights(&levels.iter().map(|(level, _)| *level).collect::<Vec<_>>());
        let sides = weights.into_iter().zip(levels).map(|(weight, (_, keep))| (weight, Side::Mean(keep)));
        Self { terms: sides.collect(), shape: Shape::Levels }
    }

    /// Returns the change from the peak to the last of several checkpoints, in the order of training.
    pub fn fall(checkpoints: Vec<Select<'a>>) -> Self {
        let sides = checkpoints.into_iter().map(|keep| (0.0, Side::Mean(keep)));
        Self { terms: sides.collect(), shape: Shape::Fall }
    }

    /// Returns the difference between the best of `settings` and the best of `others`; one setting is no choice. The
    /// choices are cross-fitted over questions and seeds.
    pub fn best_difference(settings: Vec<Select<'a>>, others: Vec<Select<'a>>) -> Self {
        let side = |mut settings: Vec<Select<'a>>| match settings.len() {
            1 => Side::Mean(settings.remove(0)),
            _ => Side::Best(settings),
        };
        Self::sum(vec![(1.0, side(settings)), (-1.0, side(others))])
    }

    fn sum(terms: Vec<(f64, Side<'a>)>) -> Self {
        Self { terms, shape: Shape::Sum }
    }

    /// Measures the contrast; `None` if a selection is empty or fewer than two questions remain. `margin` is the largest
    /// effect that does not matter.
    pub(crate) fn measure(
        &self,
        analysis: &Analysis<'_>,
        scorer: &Scorer,
        margin: f64,
    ) -> Result<Option<Measurement>, StudyError> {
        let Some(pool) = analysis.pool(scorer)? else { return Ok(None) };
        let measured = self.sides(analysis, &pool).and_then(|sides| match sides {
            Some((study, sides)) => self.measure_in(&study, &sides, &pool, (analysis, margin)).map(Some),
            None => Ok(None),
        });
        match measured {
            Err(stats::Error::TooFewClusters { .. }) => Ok(None),
            measured => {
                Ok(measured.map_err(ExperimentError::stats(format!("comparisons of {}", scorer.label)))?)
            }
        }
    }

    /// Returns the study, with a cell for each chosen side, and the weights of each side's mean on its cells.
    fn sides(&self, analysis: &Analysis<'_>, pool: &Pool) -> Result<Option<Sides>, stats::Error> {
        let (mut sides, mut further) = (Vec::new(), Vec::new());
        for (_, side) in &self.terms {
            match side {
                Side::Mean(keep) => match analysis.weights(pool, &[(1.0, keep as Selection<'_>)]) {
                    Some(weights) => sides.push(weights),
                    None => return Ok(None),
                },
                Side::Best(settings) => {
                    let mut cells: Vec<CrossedScores> = Vec::new();
                    for keep in settings {
                        let selected = analysis.selected(pool, keep);
                        let [at] = selected[..] else { return Ok(None) };
                        cells.push(pool.scores(at).clone());
                    }
                    let mut weights = vec![0.0; pool.policies().len() + further.len()];
                    weights.push(1.0);
                    sides.push(weights);
                    further.push(cross_fit(&cells, FOLDS, &mut analysis.rng())?.scores);
                }
            }
        }
        let cells = pool.policies().len() + further.len();
        sides.iter_mut().for_each(|weights| weights.resize(cells, 0.0));
        let study = if further.is_empty() { pool.study().clone() } else { pool.with_cells(&further)? };
        Ok(Some((study, sides)))
    }

    /// Returns the weights of its estimate on the policies of `pool`; `None` if the data choose a side or a checkpoint, or
    /// if a selection is empty.
    pub(crate) fn weights(&self, analysis: &Analysis<'_>, pool: &Pool) -> Option<Vec<f64>> {
        let fixed = self.terms.iter().map(|(weight, side)| match side {
            Side::Mean(keep) => Some((*weight, keep as Selection<'_>)),
            Side::Best(_) => None,
        });
        let fixed = fixed.collect::<Option<Vec<_>>>().filter(|_| self.shape != Shape::Fall)?;
        analysis.weights(pool, &fixed)
    }

    fn measure_in(
        &self,
        study: &PooledSeeds,
        sides: &[Vec<f64>],
        pool: &Pool,
        (analysis, margin): (&Analysis<'_>, f64),
    ) -> Result<Measurement, stats::Error> {
        let own: Vec<f64> = self.terms.iter().map(|(weight, _)| *weight).collect();
        let of_sides = |contrasts: Vec<Vec<f64>>| -> Vec<Vec<f64>> {
            contrasts.iter().map(|weights| combined(sides, weights)).collect()
        };
        let (mut weights, mut level, mut fall_from) = (combined(sides, &own), LEVEL, None);
        let (p, tested) = match self.shape {
            Shape::Sum => (study.contrast(&weights)?.p_value(), vec![weights.clone()]),
            Shape::Levels => {
                let pairs = of_sides(all_pairs(sides.len()));
                let all: Vec<Vec<f64>> = [weights.clone()].into_iter().chain(pairs.clone()).collect();
                let test =
                    study.max_contrast_test(&all, Alternative::TwoSided, DRAWS, &mut analysis.rng())?;
                (test.p_value, pairs)
            }
            Shape::Fall => {
                let falls = of_sides(falls_from_peak(sides.len()));
                let test =
                    study.max_contrast_test(&falls, Alternative::Greater, DRAWS, &mut analysis.rng())?;
                weights = negated(&falls[test.largest]);
                level = 1.0 - (1.0 - LEVEL) / falls.len() as f64;
                fall_from = Some(test.largest);
                (test.p_value, falls.iter().map(|weights| negated(weights)).collect())
            }
        };
        let (mut equivalence, mut not_lower) = (0.0_f64, 0.0_f64);
        for weights in &tested {
            // Each effect has to be within the margin, so the largest p counts.
            let test = equivalence_test(&study.contrast(weights)?, margin)?;
            equivalence = equivalence.max(test.p_value);
            not_lower = not_lower.max(test.p_below);
        }
        if self.shape == Shape::Fall {
            // A rise of any size is no fall.
            equivalence = not_lower;
        }
        let estimate = study.contrast(&weights)?;
        let used = (0..pool.policies().len()).filter(|&at| weights[at] != 0.0);
        let sizes = used.map(|at| (pool.scores(at).design().questions, pool.scores(at).design().seeds));
        let size = sizes.reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)));
        Ok(Measurement {
            estimate,
            level,
            p,
            equivalence,
            not_lower,
            parts: if pool.has_seeds() { study.contrast_parts(&weights).ok() } else { None },
            size: size.unwrap_or_default(),
            fall_from,
        })
    }
}

/// Returns the weighted sum of the weights of sides.
fn combined(sides: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let cells = sides.first().map_or(0, Vec::len);
    (0..cells).map(|cell| sides.iter().zip(weights).map(|(side, weight)| side[cell] * weight).sum()).collect()
}

fn negated(weights: &[f64]) -> Vec<f64> {
    weights.iter().map(|weight| -weight).collect()
}

/// Returns the weights of [`Contrast::trend`].
pub(crate) fn trend_weights(levels: &[f64]) -> Vec<f64> {
    let mean = levels.iter().sum::<f64>() / levels.len().max(1) as f64;
    let squares: f64 = levels.iter().map(|level| (level - mean).powi(2)).sum();
    let low = levels.iter().copied().fold(f64::INFINITY, f64::min);
    let high = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    levels.iter().map(|level| (level - mean) / squares * (high - low)).collect()
}

#[cfg(test)]
mod tests {
    use experiment::Scorers;

    use super::*;
    use crate::fixtures::{at, checkpoints};
    use crate::recipe::{Preset, StudyRecipe};

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

    const MARGIN: f64 = 0.2;

    #[track_caller]
    fn measured(seeds: u64, means: &[f64], contrast: &Contrast<'_>) -> Measurement {
        let setup = StudyRecipe::preset(Preset::Sandbox, &[]).unwrap().setup();
        let collected = checkpoints(&setup, seeds, means);
        let analysis = Analysis::new(&setup, &collected);
        contrast.measure(&analysis, &Scorers::of(&setup).judge, MARGIN).unwrap().expect("scores")
    }

    #[test]
    fn a_rise_and_fall_is_a_relationship_and_a_fall_without_a_trend() {
        let means = [5.0, 6.0, 6.0, 5.0];
        let levels = [0.25, 0.5, 0.75, 1.0].into_iter().enumerate().map(|(k, level)| (level, at(k)));
        let trend = measured(2, &means, &Contrast::trend(levels.collect()));
        assert!(trend.estimate.p_value() > 0.05 && trend.p < 0.01, "{trend:?}");
        assert!(trend.equivalence > 0.5, "two levels differ by more than the margin: {trend:?}");
        let fall = measured(2, &means, &Contrast::fall((0..4).map(at).collect()));
        assert!(matches!(fall.fall_from, Some(1 | 2)) && fall.p < 0.01, "{fall:?}");
        assert!((fall.estimate.value + 1.0).abs() < 0.3 && fall.not_lower > 0.5, "{fall:?}");
        let rising = measured(2, &[4.0, 5.0, 6.0, 7.0], &Contrast::fall((0..4).map(at).collect()));
        assert!(rising.p > 0.5 && rising.not_lower < 0.01, "{rising:?}");
    }

    #[test]
    fn equal_scores_have_no_effect_and_one_seed_no_variance_between_seeds() {
        let difference = || Contrast::difference(at(0), at(1));
        let two = measured(2, &[5.0, 5.0], &difference());
        assert!(two.p > 0.01 && two.equivalence < 0.05 && two.parts.is_some(), "{two:?}");
        assert_eq!(two.size, (40, 2));
        let one = measured(1, &[5.0, 5.0], &difference());
        assert!(one.parts.is_none() && one.size == (40, 1), "{one:?}");
    }

    #[test]
    fn the_best_setting_is_tested_on_data_that_did_not_choose_it() {
        let best = || Contrast::best_difference((0..3).map(at).collect(), vec![at(3)]);
        let better = measured(2, &[5.0, 6.0, 5.0, 5.0], &best());
        assert!((better.estimate.value - 1.0).abs() < 0.3 && better.p < 0.01, "{better:?}");
        let equal = measured(2, &[5.0; 4], &best());
        assert!(equal.p > 0.01, "{equal:?}");
    }

    #[test]
    fn a_missing_rating_excludes_its_question_from_the_comparisons_of_its_policy_only() {
        let setup = StudyRecipe::preset(Preset::Sandbox, &[]).unwrap().setup();
        let mut collected = checkpoints(&setup, 2, &[5.0, 5.0, 5.0]);
        collected.evaluated[2].evaluation.scores[7].score = None;
        let analysis = Analysis::new(&setup, &collected);
        let size = |first, second| {
            let contrast = Contrast::difference(at(first), at(second));
            contrast.measure(&analysis, &Scorers::of(&setup).judge, MARGIN).unwrap().unwrap().size
        };
        assert_eq!((size(0, 1), size(0, 2)), ((40, 2), (39, 2)));
    }
}
