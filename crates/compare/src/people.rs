//! A judge that people's ratings correct: prediction-powered inference for every difference.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use stats::{MeanEstimate, RatedItem, correct_by_people};

use crate::differences::{Complete, Difference};
use crate::ratings::Ratings;
use crate::scores::Score;
use crate::tested::{Measured, tests};
use crate::{Error, Scores};

/// The number of additional ratings whose benefit is predicted.
pub(crate) const MORE_RATINGS: usize = 80;

/// The differences of one scorer, corrected by people's ratings.
#[derive(Clone, Debug)]
pub struct People {
    /// One row for each contrast.
    pub rows: Vec<CorrectedRow>,
    /// The judge against people.
    pub check: JudgeCheck,
    /// The number of ratings of the compared arms.
    pub ratings: usize,
}

/// A difference by people alone, and by the judge as corrected by them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CorrectedRow {
    /// The difference of the ratings.
    pub people: Measured,
    /// The judge's difference, corrected.
    pub corrected: Measured,
    /// The weight of the judge, from 0 to 1.
    pub lambda: f64,
    /// The number of rated questions.
    pub rated_questions: usize,
    /// Half the width of the corrected interval with 80 more ratings, predicted.
    pub half_width_with_80_more: f64,
}

/// A judge against people, on the answers that both scored. Means and intervals are over questions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeCheck {
    /// The number of answers.
    pub answers: usize,
    /// Mean of the judge's score minus the rating.
    pub bias: Option<MeanEstimate>,
    /// Share of pairs of answers to a turn that both order alike, of those that neither ties.
    pub agreement: Option<MeanEstimate>,
    /// Points that the judge adds to the longer of two answers, compared with people.
    pub length_bias: Option<MeanEstimate>,
}

/// An answer with both scores.
struct Both {
    question: usize,
    turn: usize,
    judged: f64,
    rating: f64,
    characters: Option<f64>,
}

/// The judge's scores of an answer, of which there may be several samples, and its rating.
struct Sum {
    judged: f64,
    count: usize,
    rating: f64,
    characters: Option<f64>,
}

/// Corrects the differences of `scorer` by `ratings`.
pub(crate) fn people(
    scores: &Scores,
    scorer: usize,
    complete: &Complete,
    contrasts: &[[usize; 2]],
    differences: &[Difference],
    ratings: &Ratings,
    level: f64,
) -> Result<People, Error> {
    let arms: BTreeSet<usize> = contrasts.iter().flatten().copied().collect();
    let rated = rated(scores, scorer, complete, &arms, ratings);
    let mut found = Vec::new();
    for (contrast, difference) in contrasts.iter().zip(differences) {
        found.push(corrected(scores, complete, *contrast, difference, &rated, ratings, level)?);
    }
    let by = |of: fn(&Corrected) -> MeanEstimate| tests(&found.iter().map(of).collect::<Vec<_>>(), level);
    let (people, corrected) = (by(|of| of.people)?, by(|of| of.corrected)?);
    let rows =
        found.iter().zip(people.iter().zip(&corrected)).map(|(of, (people, corrected))| CorrectedRow {
            people: people.measured,
            corrected: corrected.measured,
            lambda: of.lambda,
            rated_questions: of.rated,
            half_width_with_80_more: of.half_width_with_more,
        });
    let is_of = |name: &str| scores.arms.find(name).is_some_and(|arm| arms.contains(&arm));
    Ok(People { rows: rows.collect(), check: check(&rated), ratings: ratings.count(is_of) })
}

struct Corrected {
    people: MeanEstimate,
    corrected: MeanEstimate,
    lambda: f64,
    rated: usize,
    half_width_with_more: f64,
}

/// Returns the answers with both scores, by arm.
fn rated(
    scores: &Scores,
    scorer: usize,
    complete: &Complete,
    arms: &BTreeSet<usize>,
    ratings: &Ratings,
) -> BTreeMap<usize, Vec<Both>> {
    let kept: BTreeSet<usize> = complete.questions.iter().copied().collect();
    let mut sums: BTreeMap<[usize; 4], Sum> = BTreeMap::new();
    let is_asked =
        |row: &&Score| row.scorer == scorer && arms.contains(&row.arm) && kept.contains(&row.question);
    for row in scores.rows.iter().filter(is_asked) {
        let (Some(score), Some(rating)) = (row.score, ratings.of_answer(&scores.answer(row))) else {
            continue;
        };
        let key = [row.arm, row.seed, row.question, row.turn];
        let sum =
            sums.entry(key).or_insert(Sum { judged: 0.0, count: 0, rating, characters: row.characters });
        (sum.judged, sum.count) = (sum.judged + score, sum.count + 1);
    }
    let mut by_arm: BTreeMap<usize, Vec<Both>> = BTreeMap::new();
    for ([arm, _, question, turn], Sum { judged, count, rating, characters }) in sums {
        let judged = judged / count as f64;
        by_arm.entry(arm).or_default().push(Both { question, turn, judged, rating, characters });
    }
    by_arm
}

fn corrected(
    scores: &Scores,
    complete: &Complete,
    [first, second]: [usize; 2],
    difference: &Difference,
    rated: &BTreeMap<usize, Vec<Both>>,
    ratings: &Ratings,
    level: f64,
) -> Result<Corrected, Error> {
    let [one, other] = [first, second].map(|arm| means(rated.get(&arm).map_or(&[][..], Vec::as_slice)));
    let [ours, theirs] = [first, second].map(|arm| complete.question_means(arm));
    let (mut items, mut unrated) = (Vec::new(), Vec::new());
    for (at, question) in complete.questions.iter().enumerate() {
        match (one.get(question), other.get(question)) {
            // The same turns of both arms, so that the difference is one of answers to the same requests.
            (Some(one), Some(other)) if one.turns == other.turns => {
                items.push(RatedItem { rating: one.rating - other.rating, judged: one.judged - other.judged })
            }
            _ => unrated.push(ours[at] - theirs[at]),
        }
    }
    if items.len() < 2 {
        let [first, second] = [first, second].map(|arm| &scores.arms()[arm]);
        return Err(Error::Incomparable(format!(
            "{} questions have ratings of both {first:?} and {second:?}; two or more are needed",
            items.len()
        )));
    }
    let parts = difference.parts.as_ref();
    let found = correct_by_people(&items, &unrated, parts).map_err(Error::stats("a corrected difference"))?;
    let lambda = found.lambda;
    // 80 ratings are so many questions at the present number of ratings a question.
    let of_both = [first, second].map(|arm| scores.arms()[arm].as_str());
    let count = ratings.count(|name| of_both.contains(&name));
    let per_question = (count as f64 / items.len() as f64).max(1.0);
    let n = items.len() as f64 + MORE_RATINGS as f64 / per_question;
    let variance = predicted_variance(&items, &unrated, lambda, n);
    let with_more = MeanEstimate { value: 0.0, standard_error: variance.sqrt(), degrees_of_freedom: n - 1.0 };
    let half_width = |estimate: &MeanEstimate| -> Result<f64, Error> {
        let interval = parts
            .map_or(*estimate, |parts| parts.over_seeds(*estimate))
            .interval(level)
            .map_err(Error::stats("an interval"))?;
        Ok((interval.high - interval.low) / 2.0)
    };
    Ok(Corrected {
        people: found.people,
        corrected: found.corrected,
        lambda,
        rated: items.len(),
        half_width_with_more: half_width(&with_more)?,
    })
}

/// Returns the variance of the corrected mean with `n` rated items.
fn predicted_variance(items: &[RatedItem], unrated: &[f64], lambda: f64, n: f64) -> f64 {
    let spread = |values: Vec<f64>| {
        let size = values.len() as f64;
        let mean = values.iter().sum::<f64>() / size;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (size - 1.0).max(1.0)
    };
    let all = (items.len() + unrated.len()) as f64;
    if n >= all - 1.0 {
        return spread(items.iter().map(|item| item.rating).collect()) / all;
    }
    let rectified = spread(items.iter().map(|item| item.rating - lambda * item.judged).collect());
    rectified / n + lambda * lambda * spread(unrated.to_vec()) / (all - n)
}

/// The means of one arm's answers to a question.
struct OfQuestion {
    turns: BTreeSet<usize>,
    judged: f64,
    rating: f64,
}

fn means(rated: &[Both]) -> BTreeMap<usize, OfQuestion> {
    // Question → turn → sums of judgments and ratings, and their number.
    let mut sums: BTreeMap<usize, BTreeMap<usize, [f64; 3]>> = BTreeMap::new();
    for both in rated {
        let sum = sums.entry(both.question).or_default().entry(both.turn).or_default();
        *sum = [sum[0] + both.judged, sum[1] + both.rating, sum[2] + 1.0];
    }
    let of_question = |turns: BTreeMap<usize, [f64; 3]>| {
        let mean = |at: usize| turns.values().map(|sum| sum[at] / sum[2]).sum::<f64>() / turns.len() as f64;
        OfQuestion { judged: mean(0), rating: mean(1), turns: turns.keys().copied().collect() }
    };
    sums.into_iter().map(|(question, turns)| (question, of_question(turns))).collect()
}

/// Compares the judge with people.
fn check(rated: &BTreeMap<usize, Vec<Both>>) -> JudgeCheck {
    let all: Vec<(usize, &Both)> =
        rated.iter().flat_map(|(arm, of)| of.iter().map(move |both| (*arm, both))).collect();
    let mut by_turn: BTreeMap<(usize, usize), Vec<(usize, &Both)>> = BTreeMap::new();
    for &(arm, both) in &all {
        by_turn.entry((both.question, both.turn)).or_default().push((arm, both));
    }
    let (mut alike, mut longer) = (Vec::new(), Vec::new());
    for ((question, _), answers) in &by_turn {
        for (at, (arm, one)) in answers.iter().enumerate() {
            for (_, other) in answers[at + 1..].iter().filter(|(of, _)| of != arm) {
                let (judged, rating) = (one.judged - other.judged, one.rating - other.rating);
                if judged != 0.0 && rating != 0.0 {
                    alike.push((*question, f64::from(u8::from((judged > 0.0) == (rating > 0.0)))));
                }
                match (one.characters, other.characters) {
                    (Some(a), Some(b)) if a > b => longer.push((*question, judged - rating)),
                    (Some(a), Some(b)) if a < b => longer.push((*question, rating - judged)),
                    _ => {}
                }
            }
        }
    }
    JudgeCheck {
        answers: all.len(),
        bias: by_question(all.iter().map(|(_, both)| (both.question, both.judged - both.rating))),
        agreement: by_question(alike),
        length_bias: by_question(longer),
    }
}

/// Returns the mean of values over questions; `None` below two questions.
fn by_question(values: impl IntoIterator<Item = (usize, f64)>) -> Option<MeanEstimate> {
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (question, value) in values {
        let sum = sums.entry(question).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    MeanEstimate::of(&sums.values().map(|(sum, count)| sum / count).collect::<Vec<_>>()).ok()
}
