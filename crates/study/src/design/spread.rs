//! The spread of scores: how much policies, seeds, questions and answers differ.

use std::path::Path;

use experiment::BENCHMARK;
use experiment::results::{ScoreRow, read_parquet};
use stats::{CrossedScores, Observation, PooledSeeds, Pooling};

use crate::error::StudyError;

/// Standard deviations of scores, in points. The effect of a question on all policies alike cancels in differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Between training seeds of a policy, of its mean.
    pub seed: f64,
    /// Between questions, of one policy's advantage over others.
    pub policy_question: f64,
    /// Between seeds, of a policy's quality on one question.
    pub seed_question: f64,
    /// Between answers to one turn, as judged: sampling and judge.
    pub answer: f64,
    /// Between policies, of the mean of log₂(characters) of their answers: in doublings.
    pub length: f64,
}

impl Spread {
    /// Assumed values, of the size of those in the simulations of the crate `stats`: single ratings by a strong model, one
    /// sampled answer.
    pub const TYPICAL: Self =
        Self { seed: 0.15, policy_question: 0.4, seed_question: 0.7, answer: 1.3, length: 0.3 };

    /// Measures the spread of the policies in `results.parquet` of an earlier study, on the benchmark under its first scorer.
    ///
    /// One answer per seed does not separate the sampling of answers from seeds that differ by question, so both count as
    /// sampling.
    ///
    /// # Errors
    ///
    /// If the file cannot be read; [`StudyError::Pilot`] without two policies with two seeds each.
    pub fn of_study(folder: &Path) -> Result<Self, StudyError> {
        let path = folder.join("results.parquet");
        let pilot = |reason: &str| StudyError::Pilot { path: path.clone(), reason: reason.to_owned() };
        if !path.exists() {
            return Err(pilot("does not exist"));
        }
        let rows = read_parquet(&path)?;
        let mut rows: Vec<&ScoreRow> = rows.iter().filter(|row| row.question_set == BENCHMARK).collect();
        let scorer = rows.first().map(|row| &row.scorer);
        rows.retain(|row| Some(&row.scorer) == scorer);
        let turns = rows.iter().map(|row| row.turn).max().unwrap_or(1).max(1);
        let length = spread_of_lengths(&rows);
        let mut policies: Vec<(&ScoreRow, Vec<Observation>)> = Vec::new();
        for row in rows {
            let Some(score) = row.score else { continue };
            let observation = Observation {
                seed: row.seed,
                question: row.question_id,
                turn: row.turn.into(),
                repeat: row.sample,
                score,
            };
            match policies.iter_mut().find(|(known, _)| is_same_policy(known, row)) {
                Some((_, scores)) => scores.push(observation),
                None => policies.push((row, vec![observation])),
            }
        }
        // A policy with missing ratings has no complete design.
        let cells: Vec<CrossedScores> =
            policies.into_iter().filter_map(|(_, scores)| CrossedScores::new(scores).ok()).collect();
        let cells: Vec<&CrossedScores> = cells.iter().filter(|cell| cell.design().seeds > 1).collect();
        if cells.len() < 2 {
            return Err(pilot("has fewer than two policies with two or more seeds and all ratings"));
        }
        let failed = || StudyError::stats("spread of the earlier study");
        let study =
            PooledSeeds::new(cells.iter().map(|&cell| (0, cell)), Pooling::Paired).map_err(failed())?;
        let variances = study.seed_variances();
        let Some(variance) = variances.first() else { return Err(pilot("has no variances")) };
        let mut of_questions = Vec::new();
        for other in 1..cells.len() {
            // Half of a difference's variance is that of one policy.
            of_questions.push(study.variance_parts(0, other).map_err(failed())?.question / 2.0);
        }
        let of_questions = of_questions.iter().sum::<f64>() / of_questions.len() as f64;
        let root = |variance: f64| variance.max(0.0).sqrt();
        Ok(Self {
            seed: root(variance.value),
            policy_question: root(of_questions),
            seed_question: 0.0,
            answer: root(variance.answers.value * f64::from(turns)),
            length,
        })
    }

    /// Returns the variances of a contrast with these weights on policies, of which some are trained: of questions, seeds,
    /// seeds by question, and answers of one turn.
    pub(super) fn variances(&self, weights: &[f64], is_trained: &[bool]) -> [f64; 4] {
        let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
        let trained: f64 = weights
            .iter()
            .zip(is_trained)
            .filter(|(_, trained)| **trained)
            .map(|(weight, _)| weight * weight)
            .sum();
        let Self { seed, policy_question, seed_question, answer, .. } = self;
        [
            squares * policy_question.powi(2),
            trained * seed.powi(2),
            squares * seed_question.powi(2),
            squares * answer.powi(2),
        ]
    }

    /// Returns the values in words.
    pub(super) fn in_words(&self) -> String {
        let Self { seed, policy_question, seed_question, answer, .. } = self;
        format!(
            "training seeds {seed:.2}, a policy's advantage by question {policy_question:.2}, seeds by question \
             {seed_question:.2}, answers as judged {answer:.2}"
        )
    }
}

/// Returns the standard deviation between policies of the mean of log₂(characters); 0 for fewer than two policies.
fn spread_of_lengths(rows: &[&ScoreRow]) -> f64 {
    let mut policies: Vec<(&ScoreRow, f64, f64)> = Vec::new();
    for row in rows.iter().filter(|row| row.characters > 0) {
        let length = (row.characters as f64).log2();
        match policies.iter_mut().find(|(known, ..)| is_same_policy(known, row)) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + length, *count + 1.0),
            None => policies.push((row, length, 1.0)),
        }
    }
    let means: Vec<f64> = policies.iter().map(|(_, sum, count)| sum / count).collect();
    let mean = means.iter().sum::<f64>() / means.len().max(1) as f64;
    let squares: f64 = means.iter().map(|length| (length - mean).powi(2)).sum();
    (squares / means.len().saturating_sub(1).max(1) as f64).sqrt()
}

/// Returns whether two rows differ in seed, sample, question, turn and score only.
fn is_same_policy(one: &ScoreRow, other: &ScoreRow) -> bool {
    let key = |row: &ScoreRow| {
        let numbers =
            [row.beta, row.label_smoothing, row.fraction, row.flip_rate, row.learning_rate, row.progress];
        (numbers.map(f64::to_bits), row.epochs)
    };
    let names = |row: &ScoreRow| {
        [&row.annotator, &row.slice, &row.loss, &row.logp_reduction, &row.question_set].map(String::clone)
    };
    key(one) == key(other) && names(one) == names(other)
}
