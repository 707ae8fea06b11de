//! People's ratings of some answers, which correct a judge in every contrast.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use compare::{Ratings, draw_questions, study_arms};
use experiment::{Analysis, BENCHMARK, Evaluated, GOLD, LEVEL, Scorer};
use mtbench::{Question, question_label};
use seeds::Seeds;
use stats::{MeanEstimate, RatedItem, correct_by_people, equivalence_test};

use crate::contrast::{Contrast, Measurement};
use crate::error::StudyError;
use crate::recipe::StudyRecipe;

/// Ratings of some of a study's answers.
pub(crate) enum Rated {
    /// People's, and the arm of each training run by its address.
    People { ratings: Ratings, arms: BTreeMap<String, String> },
    /// The sandbox's gold quality of the answers to these questions.
    Gold(BTreeSet<u64>),
}

/// A contrast by people alone, and by a judge that they correct.
pub(crate) struct Correction {
    pub(crate) people: Measurement,
    pub(crate) corrected: Measurement,
    /// The weight of the judge.
    pub(crate) lambda: f64,
    /// The number of rated questions.
    pub(crate) rated: usize,
}

/// One policy's answers to a question: turn → judgment and rating of each seed.
type Turns = BTreeMap<u8, Vec<(f64, Option<f64>)>>;

/// Scores of answers, by question and turn. Several samples of an answer count as their mean.
#[derive(Default)]
struct Means(BTreeMap<(u64, u8), (f64, f64)>);

impl Means {
    fn add(&mut self, answer: (u64, u8), value: f64) {
        let sum = self.0.entry(answer).or_default();
        *sum = (sum.0 + value, sum.1 + 1.0);
    }

    fn by_answer(self) -> impl Iterator<Item = ((u64, u8), f64)> {
        self.0.into_iter().map(|(answer, (sum, count))| (answer, sum / count))
    }
}

/// The means of rated answers to a question.
struct OfQuestion {
    turns: Vec<u8>,
    judged: f64,
    rating: f64,
}

/// Checks that the file of ratings can be read, if `recipe` names one.
pub(crate) fn check(recipe: &StudyRecipe) -> Result<(), StudyError> {
    if let Some(path) = recipe.study.ratings.as_ref().filter(|_| !recipe.study.rates_by_gold()) {
        Ratings::read(path)?;
    }
    Ok(())
}

impl Rated {
    /// Reads the ratings that `recipe` names; `None` without any. `results` is the study's `results.parquet`, which names
    /// the arms.
    pub(crate) fn read(
        recipe: &StudyRecipe,
        questions: &[Question],
        results: &Path,
    ) -> Result<Option<Self>, StudyError> {
        let Some(path) = &recipe.study.ratings else { return Ok(None) };
        if recipe.study.rates_by_gold() {
            let rate = recipe.study.gold_rates();
            if rate < 2 || rate + 2 > questions.len() {
                return Ok(None);
            }
            let of =
                |question: &Question| (question_label(question.question_id), Some(question.category.clone()));
            let all: Vec<_> = questions.iter().map(of).collect();
            let drawn: BTreeSet<String> =
                draw_questions(&all, rate, &Seeds::new(recipe.seed))?.into_iter().collect();
            let ids = questions.iter().map(|question| question.question_id);
            return Ok(Some(Self::Gold(ids.filter(|id| drawn.contains(&question_label(*id))).collect())));
        }
        let (ratings, arms) = (Ratings::read(path)?, study_arms(results)?);
        let known: BTreeSet<&str> = arms.values().map(String::as_str).collect();
        for arm in ratings.arms().into_iter().filter(|arm| !known.contains(arm)) {
            let known: Vec<&str> = known.iter().copied().collect();
            tracing::warn!(
                "study.ratings, {}: the ratings of arm {arm:?} are not used, since the study has no such arm; its arms are {}",
                path.display(),
                known.join(", ")
            );
        }
        Ok(Some(Self::People { ratings, arms }))
    }

    /// Returns the ratings of a policy's answers, by question and turn.
    fn of<'a>(&'a self, evaluated: &Evaluated) -> Box<dyn Fn(u64, u8) -> Option<f64> + 'a> {
        match self {
            Self::People { ratings, arms } => {
                let arm = arms.get(evaluated.key.as_str());
                let seed = evaluated.subject.seed().to_string();
                Box::new(move |question, turn| {
                    let answer = [arm?.clone(), seed.clone(), question_label(question), turn.to_string()];
                    ratings.of_answer(&answer)
                })
            }
            Self::Gold(questions) => {
                let mut means = Means::default();
                for score in evaluated.evaluation.scores.iter().filter(|score| {
                    questions.contains(&score.question_id)
                        && (score.scorer.as_str(), score.question_set.as_str()) == (GOLD, BENCHMARK)
                }) {
                    score
                        .score
                        .into_iter()
                        .for_each(|value| means.add((score.question_id, score.turn), value));
                }
                let gold: BTreeMap<(u64, u8), f64> = means.by_answer().collect();
                Box::new(move |question, turn| gold.get(&(question, turn)).copied())
            }
        }
    }

    /// Corrects a contrast of `scorer`; `None` if its policies or settings are chosen by the data, or if fewer than two
    /// questions have ratings of all of its policies.
    pub(crate) fn correct(
        &self,
        contrast: &Contrast<'_>,
        (analysis, scorer, margin): (&Analysis<'_>, &Scorer, f64),
    ) -> Result<Option<Correction>, StudyError> {
        let Some(pool) = analysis.pool(scorer)? else { return Ok(None) };
        let Some(weights) = contrast.weights(analysis, &pool) else { return Ok(None) };
        let used = pool.policies().iter().zip(&weights).filter(|(_, weight)| **weight != 0.0);
        let policies: Vec<(f64, BTreeMap<u64, Turns>)> =
            used.map(|(policy, weight)| (*weight, self.answers(analysis.seeds_of(policy), scorer))).collect();
        let (items, unrated) = items(&policies);
        if items.len() < 2 {
            return Ok(None);
        }
        let failed = || StudyError::stats(format!("{}, corrected by people", scorer.label));
        let parts = if pool.has_seeds() { pool.study().contrast_parts(&weights).ok() } else { None };
        let found = correct_by_people(&items, &unrated, parts.as_ref()).map_err(failed())?;
        let seeds = parts.map_or(1, |parts| parts.size.seeds);
        let measurement = |estimate: MeanEstimate, questions: usize| -> Result<Measurement, StudyError> {
            let test = equivalence_test(&estimate, margin).map_err(failed())?;
            Ok(Measurement {
                estimate,
                level: LEVEL,
                p: estimate.p_value(),
                equivalence: test.p_value,
                not_lower: test.p_below,
                parts: None,
                size: (questions, seeds),
                fall_from: None,
            })
        };
        Ok(Some(Correction {
            people: measurement(found.people, items.len())?,
            corrected: measurement(found.corrected, items.len() + unrated.len())?,
            lambda: found.lambda,
            rated: found.rated,
        }))
    }

    /// Returns the answers of a policy's seeds with complete judgments, by question.
    fn answers<'e>(
        &self,
        seeds: impl Iterator<Item = &'e Evaluated>,
        scorer: &Scorer,
    ) -> BTreeMap<u64, Turns> {
        let mut answers: BTreeMap<u64, Turns> = BTreeMap::new();
        let mut incomplete: BTreeSet<u64> = BTreeSet::new();
        for evaluated in seeds {
            let mut judged = Means::default();
            for score in evaluated.evaluation.scores.iter().filter(|score| scorer.is_of(score)) {
                match score.score {
                    Some(value) => judged.add((score.question_id, score.turn), value),
                    None => {
                        incomplete.insert(score.question_id);
                    }
                }
            }
            let rating = self.of(evaluated);
            for ((question, turn), judged) in judged.by_answer() {
                let answer = (judged, rating(question, turn));
                answers.entry(question).or_default().entry(turn).or_default().push(answer);
            }
        }
        answers.retain(|question, _| !incomplete.contains(question));
        answers
    }
}

/// Returns the contrast's rated questions, and its judgments of the others.
fn items(policies: &[(f64, BTreeMap<u64, Turns>)]) -> (Vec<RatedItem>, Vec<f64>) {
    let (mut items, mut unrated) = (Vec::new(), Vec::new());
    let Some((_, first)) = policies.first() else { return (items, unrated) };
    for question in first.keys() {
        let Some(answers) = policies
            .iter()
            .map(|(weight, answers)| Some((*weight, answers.get(question)?)))
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let rated: Option<Vec<(f64, OfQuestion)>> =
            answers.iter().map(|(weight, turns)| Some((*weight, of_question(turns)?))).collect();
        match rated {
            // The same turns of all policies, so that the contrast is one of answers to the same requests.
            Some(rated) if rated.iter().all(|(_, of)| of.turns == rated[0].1.turns) => {
                let sum =
                    |value: fn(&OfQuestion) -> f64| rated.iter().map(|(weight, of)| weight * value(of)).sum();
                items.push(RatedItem { rating: sum(|of| of.rating), judged: sum(|of| of.judged) });
            }
            _ => unrated.push(answers.iter().map(|(weight, turns)| weight * judged(turns)).sum()),
        }
    }
    (items, unrated)
}

/// Returns the means of the rated answers, turns weighted alike; `None` without any.
fn of_question(turns: &Turns) -> Option<OfQuestion> {
    let mut rated: BTreeMap<u8, Vec<(f64, f64)>> = BTreeMap::new();
    for (turn, answers) in turns {
        let both = answers.iter().filter_map(|(judged, rating)| Some((*judged, (*rating)?)));
        let both: Vec<(f64, f64)> = both.collect();
        if !both.is_empty() {
            rated.insert(*turn, both);
        }
    }
    let mean = |of: fn(&(f64, f64)) -> f64| {
        let by_turn = rated.values().map(|both| both.iter().map(of).sum::<f64>() / both.len() as f64);
        by_turn.sum::<f64>() / rated.len() as f64
    };
    (!rated.is_empty()).then(|| OfQuestion {
        turns: rated.keys().copied().collect(),
        judged: mean(|both| both.0),
        rating: mean(|both| both.1),
    })
}

fn judged(turns: &Turns) -> f64 {
    let by_turn = turns
        .values()
        .map(|answers| answers.iter().map(|(judged, _)| judged).sum::<f64>() / answers.len() as f64);
    by_turn.sum::<f64>() / turns.len() as f64
}
