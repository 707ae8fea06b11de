//! The comparison of arms: differences, corrected tests, and the required sample.

use std::collections::BTreeSet;

use serde::Serialize;
use stats::{MeanEstimate, PlannedTest, RequiredSample, SeedVariance, Source};

use crate::contrasts::contrasts;
use crate::differences::{Complete, Difference};
use crate::options::Options;
use crate::people::{CorrectedRow, People, people};
use crate::tested::{Measured, POWER, tests};
use crate::{Error, Ratings, Scores};

/// The comparison by one scorer.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The scorer's name; empty if the scores have no scorer.
    pub scorer: String,
    /// The contrasts.
    pub rows: Vec<ContrastRow>,
    /// The number of questions with scores of all compared arms.
    pub questions: usize,
    /// Questions that are left out, with the arms that lack scores.
    pub left_out: Vec<(String, String)>,
    /// The largest number of seeds of an arm.
    pub seeds: usize,
    /// The number of strata of questions.
    pub strata: usize,
    /// The variance between seeds, of each group of arms whose seeds vary alike; none with one seed.
    pub seed_variances: Vec<SeedVariance>,
    /// The confidence level.
    pub level: f64,
    /// The effect of the required samples; `None` for the estimates.
    pub effect: Option<f64>,
    /// Whether all scores are shares from 0 to 1.
    pub(crate) are_shares: bool,
    /// The corrections by people's ratings, if there are any.
    pub people: Option<People>,
}

/// A contrast of two arms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContrastRow {
    /// The two arms, as `A − B`.
    pub contrast: String,
    /// The scorer, if the scores name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scorer: Option<String>,
    /// The difference by the scorer.
    #[serde(flatten)]
    pub measured: Measured,
    /// The number of questions that detects the effect, all other sizes equal; `None` if no number does.
    pub required_questions: Option<usize>,
    /// The number of seeds; `None` if no number does, or if the variance between seeds is unknown.
    pub required_seeds: Option<usize>,
    /// The 90% interval of the minimum detectable effect, whose standard error is an estimate.
    pub mde_interval: [f64; 2],
    /// The 90% interval of the required questions.
    pub required_questions_interval: [Option<usize>; 2],
    /// The 90% interval of the required seeds.
    pub required_seeds_interval: [Option<usize>; 2],
    /// The difference as people's ratings correct it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub by_people: Option<CorrectedRow>,
}

/// Compares the arms of `scores`, once for each scorer.
///
/// # Errors
///
/// [`Error::Argument`] for an unknown arm or scorer; [`Error::Incomparable`] for arms without two questions in common;
/// [`Error::Stats`] for an invalid level.
pub fn compare(scores: &Scores, options: &Options) -> Result<Vec<Comparison>, Error> {
    compare_by(scores, options, None)
}

/// Compares the arms of `scores`, and corrects each scorer's differences by people's ratings.
///
/// # Errors
///
/// Those of [`compare`]; [`Error::Incomparable`] for ratings of answers without a score, or of fewer than two questions.
pub fn compare_with_ratings(
    scores: &Scores,
    options: &Options,
    ratings: &Ratings,
) -> Result<Vec<Comparison>, Error> {
    ratings.check(scores)?;
    compare_by(scores, options, Some(ratings))
}

fn compare_by(
    scores: &Scores,
    options: &Options,
    ratings: Option<&Ratings>,
) -> Result<Vec<Comparison>, Error> {
    let contrasts = contrasts(scores, options)?;
    let compared: BTreeSet<usize> = contrasts.iter().flatten().copied().collect();
    let in_place_of_people = ratings.and_then(Ratings::scorer).and_then(|name| scores.scorers.find(name));
    let scorers = scorers(scores, options)?.into_iter().filter(|scorer| Some(*scorer) != in_place_of_people);
    scorers
        .map(|scorer| {
            let complete = Complete::new(scores, scorer, &compared)?;
            of_scorer(scores, scorer, &complete, &contrasts, options, ratings)
        })
        .collect()
}

/// Returns the asked scorers as indices.
pub(crate) fn scorers(scores: &Scores, options: &Options) -> Result<Vec<usize>, Error> {
    let Some(name) = &options.scorer else { return Ok((0..scores.scorers().len()).collect()) };
    let found = scores.scorers.find(name).ok_or_else(|| {
        Error::Argument(format!(
            "there is no scorer {name:?}; the scorers are {}",
            scores.scorers().join(", ")
        ))
    })?;
    Ok(vec![found])
}

fn of_scorer(
    scores: &Scores,
    scorer: usize,
    complete: &Complete,
    contrasts: &[[usize; 2]],
    options: &Options,
    ratings: Option<&Ratings>,
) -> Result<Comparison, Error> {
    let (differences, seed_variances) = complete.differences(contrasts)?;
    let estimates: Vec<MeanEstimate> = differences.iter().map(|difference| difference.estimate).collect();
    let tests = tests(&estimates, options.level)?;
    let name = scores.scorers()[scorer].clone();
    let people = ratings
        .map(|ratings| people(scores, scorer, complete, contrasts, &differences, ratings, options.level))
        .transpose()?;
    let mut rows = Vec::new();
    for (at, ((&[first, second], difference), test)) in
        contrasts.iter().zip(&differences).zip(tests).enumerate()
    {
        let sample = sample(difference, contrasts.len(), options)?;
        let [questions, seeds] =
            sample.map(|required| required.map_or([None; 3], |r| [r.number, r.low, r.high]));
        rows.push(ContrastRow {
            contrast: format!("{} − {}", scores.arms()[first], scores.arms()[second]),
            scorer: Some(name.clone()).filter(|name| !name.is_empty()),
            measured: test.measured,
            required_questions: questions[0],
            required_seeds: seeds[0],
            mde_interval: test.mde_interval,
            required_questions_interval: [questions[1], questions[2]],
            required_seeds_interval: [seeds[1], seeds[2]],
            by_people: people.as_ref().map(|people| people.rows[at]),
        });
    }
    let question =
        |(question, arms): &(usize, String)| (scores.questions.all()[*question].clone(), arms.clone());
    let mut values = scores.rows.iter().filter(|row| row.scorer == scorer).filter_map(|row| row.score);
    Ok(Comparison {
        rows,
        questions: complete.questions.len(),
        left_out: complete.left_out.iter().map(question).collect(),
        seeds: complete.seeds(),
        strata: complete.strata(),
        seed_variances,
        level: options.level,
        effect: options.effect,
        are_shares: values.all(|value| (0.0..=1.0).contains(&value)),
        scorer: name,
        people,
    })
}

/// Returns the required questions and seeds; `None` without an effect or without the variance of its source.
fn sample(
    difference: &Difference,
    comparisons: usize,
    options: &Options,
) -> Result<[Option<RequiredSample>; 2], Error> {
    let effect = options.effect.unwrap_or(difference.estimate.value);
    let Some(parts) = difference.parts.filter(|_| effect != 0.0) else { return Ok([None; 2]) };
    let planned = PlannedTest { level: options.level, power: POWER, comparisons };
    let required = planned.required_samples(effect, &parts).map_err(Error::stats("the required sample"))?;
    let of = |source| required.iter().find(|required| required.source == source).copied();
    let seeds = of(Source::Seeds).filter(|_| parts.size.seeds > 1);
    Ok([of(Source::Questions), seeds])
}
