//! Choosing the best of several settings, with an honest estimate of its gain.

use rand::{Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use crate::distribution::{length, moments};
use crate::estimate::satterthwaite;
use crate::{CrossedScores, Error, MeanEstimate, Over, PooledSeeds, Pooling};

/// The best of several settings, such as a β, a checkpoint or a loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelectedSetting {
    /// The index of the setting with the highest mean over all data: the one to use.
    pub best: usize,
    /// The held-out gain of *choosing the best setting* over the baseline.
    pub gain: MeanEstimate,
    /// The population of the gain: questions only if there is one seed.
    pub over: Over,
    /// The index of the choice in each block of held-out data. Different choices are a sign of equal settings.
    pub choices: Vec<usize>,
}

/// Chooses the best of several settings and estimates its gain over a baseline by cross-fitting.
///
/// The maximum of several noisy means is biased upwards, so a test on the data that chose the setting has false
/// positives. Here the questions are split into `folds`. A block is one fold of one seed. The other folds of the
/// other seeds choose a setting for each block (with one seed, the other folds of the same seed). The gain is that of
/// the choices, averaged over blocks.
///
/// The variance has the parts of [`PooledSeeds`]: questions, and seeds with a variance that all settings share.
///
/// # Errors
///
/// [`Error::TooFewClusters`] without candidates, with fewer than two folds, or with fewer questions than folds;
/// [`Error::OtherDesign`] unless candidates and baseline have the same questions and numbers of seeds.
///
/// ```
/// use rand::RngExt;
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{CrossedScores, Observation, select_by_cross_fitting};
///
/// let mut rng = ChaCha8Rng::seed_from_u64(0);
/// let mut cell = |gain: f64| {
///     CrossedScores::new((0..160).map(|i| {
///         let score = 5.0 + gain + rng.random::<f64>();
///         Observation { seed: i / 80, question: i % 80, turn: 1, repeat: 0, score }
///     }))
/// };
/// let (baseline, candidates) = (cell(0.0)?, [cell(0.0)?, cell(1.0)?, cell(0.0)?]);
/// let selection = select_by_cross_fitting(&candidates, &baseline, 5, &mut ChaCha8Rng::seed_from_u64(1))?;
/// assert_eq!(selection.best, 1);
/// assert!(selection.gain.interval(0.95)?.low > 0.8);
/// # Ok::<(), stats::Error>(())
/// ```
pub fn select_by_cross_fitting(
    candidates: &[CrossedScores],
    baseline: &CrossedScores,
    folds: usize,
    rng: &mut (impl Rng + ?Sized),
) -> Result<SelectedSetting, Error> {
    if let Some(candidate) = candidates.first() {
        baseline.check_same_questions(candidate)?;
        if candidate.design().seeds != baseline.design().seeds {
            return Err(Error::OtherDesign { first: baseline.design(), second: candidate.design() });
        }
    }
    let CrossFitted { scores, best, choices } = cross_fit(candidates, folds, rng)?;
    let (seeds, questions) = (baseline.design().seeds, baseline.design().questions);
    let differences: Vec<f64> = scores
        .question_means()
        .iter()
        .zip(baseline.question_means())
        .map(|(one, other)| one - other)
        .collect();
    let (value, squares) = moments(&differences);
    let n = length(questions);
    let mut terms = vec![(squares / (n - 1.0) / n, n - 1.0)];
    if seeds > 1 {
        let study =
            PooledSeeds::new(candidates.iter().chain([baseline]).map(|cell| (0, cell)), Pooling::Pooled)?;
        terms.extend(study.pooled_seed_term(seeds));
    }
    let (variance, degrees_of_freedom) = satterthwaite(&terms);
    Ok(SelectedSetting {
        best,
        gain: MeanEstimate { value, standard_error: variance.sqrt(), degrees_of_freedom },
        over: if seeds > 1 { Over::SeedsAndQuestions } else { Over::Questions },
        choices,
    })
}

/// The scores of the best of several settings on data that did not choose it.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossFitted {
    /// On each block of held-out data, the scores of the setting that the other data choose: a cell of a study.
    pub scores: CrossedScores,
    /// The index of the setting with the highest mean over all data.
    pub best: usize,
    /// The index of the choice in each block of held-out data.
    pub choices: Vec<usize>,
}

/// Chooses the best of several settings by cross-fitting, as [`select_by_cross_fitting`] does, for comparisons of the
/// choice with any cell of the same questions.
///
/// # Errors
///
/// [`Error::TooFewClusters`] without candidates, with fewer than two folds, or with fewer questions than folds;
/// [`Error::OtherDesign`] unless all candidates have the same questions and numbers of seeds.
///
/// ```
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
/// use stats::{CrossedScores, Observation, cross_fit};
///
/// let cell = |gain: f64| {
///     CrossedScores::new((0..160).map(|i| {
///         let score = gain + (i % 7) as f64;
///         Observation { seed: i / 80, question: i % 80, turn: 1, repeat: 0, score }
///     }))
/// };
/// let settings = [cell(0.0)?, cell(1.0)?];
/// let chosen = cross_fit(&settings, 5, &mut ChaCha8Rng::seed_from_u64(0))?;
/// assert_eq!((chosen.best, chosen.scores), (1, settings[1].clone()));
/// # Ok::<(), stats::Error>(())
/// ```
pub fn cross_fit(
    candidates: &[CrossedScores],
    folds: usize,
    rng: &mut (impl Rng + ?Sized),
) -> Result<CrossFitted, Error> {
    let Some(first) = candidates.first() else { return Err(Error::TooFewClusters { clusters: 0 }) };
    let (seeds, questions) = (first.design().seeds, first.design().questions);
    for candidate in candidates {
        first.check_same_questions(candidate)?;
        if candidate.design() != first.design() {
            return Err(Error::OtherDesign { first: first.design(), second: candidate.design() });
        }
    }
    if folds < 2 || questions < folds {
        return Err(Error::TooFewClusters { clusters: questions.min(folds) });
    }
    let mut fold_of: Vec<usize> = (0..questions).map(|index| index % folds).collect();
    fold_of.shuffle(rng);
    let cells: Vec<Vec<f64>> = candidates.iter().map(CrossedScores::cell_means).collect();
    let choices = choices(&cells, &fold_of, [seeds, folds]);
    let scores =
        CrossedScores::chosen_from(candidates, |seed, question| choices[seed * folds + fold_of[question]]);
    let mean = |cell: &Vec<f64>| cell.iter().sum::<f64>();
    let best = (0..cells.len()).max_by(|&a, &b| mean(&cells[a]).total_cmp(&mean(&cells[b]))).unwrap_or(0);
    Ok(CrossFitted { scores: scores.unwrap_or_else(|| first.clone()), best, choices })
}

/// Returns the choice of each block, `[seeds][folds]`.
fn choices(cells: &[Vec<f64>], fold_of: &[usize], [seeds, folds]: [usize; 2]) -> Vec<usize> {
    let questions = fold_of.len();
    let mut choices = Vec::new();
    for seed in 0..seeds {
        for fold in 0..folds {
            let score = |cell: &Vec<f64>| -> f64 {
                let others = (0..cell.len()).filter(|&index| {
                    fold_of[index % questions] != fold && (seeds == 1 || index / questions != seed)
                });
                others.map(|index| cell[index]).sum()
            };
            let scores: Vec<f64> = cells.iter().map(score).collect();
            choices.push((0..cells.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0));
        }
    }
    choices
}
