//! The size of a crossed design, its sampled factors, and its variances by source.

use serde::{Deserialize, Serialize};

/// The size of a crossed design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Design {
    /// Trained models.
    pub seeds: usize,
    /// Questions.
    pub questions: usize,
    /// Turns a question.
    pub turns: usize,
    /// Judgments an answer.
    pub repeats: usize,
}

/// The population of a claim: the factors of the design that are random samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Random seeds and random questions: a claim about a training method.
    SeedsAndQuestions,
    /// Random questions and fixed models.
    Questions,
    /// Random seeds and fixed questions: a claim about *this benchmark's* score.
    Seeds,
}

/// Variances by source, in squared score points: measured ([`Components::variances`](crate::Components::variances)) or
/// assumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variances {
    /// Between seeds, over all questions alike.
    pub seed: f64,
    /// Between questions, for all seeds alike.
    pub question: f64,
    /// Of seeds, differing from question to question.
    pub seed_question: f64,
    /// Between the turns of a question.
    pub turn: f64,
    /// Of a seed's answer to a turn.
    pub answer: f64,
    /// Of judgments of the same answer.
    pub judge: f64,
}
