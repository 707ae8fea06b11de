//! What can go wrong, and where.

use std::{error, io, path::PathBuf};

use crate::UnreadableRating;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written; what stood there before is untouched.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of a file does not hold what it should.
    #[error("{}, line {line}, column {column}, field `{field}`: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// Where in the line the parser stopped, in bytes, counted from 1.
        column: usize,
        /// Where in the line's object: `turns[1]`; `.` is the object itself.
        field: String,
        /// What is wrong, as the parser says it.
        problem: String,
    },
    /// A line parses and yet makes no sense beside the rest of its file.
    #[error("{}, line {line}, field `{field}`: {problem}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A value has no form in JSON, such as a time stamp that is not finite.
    #[error("row {row} for {} cannot be written as JSON", path.display())]
    Unwritable {
        /// The file that was to be written.
        path: PathBuf,
        /// The row, counted from 1.
        row: usize,
        /// What the serializer said.
        source: serde_json::Error,
    },
    /// A model or judge has a name that cannot be a file name.
    #[error(
        "{name:?} cannot name a file: use a name that is not empty, starts with no dot and holds no `/` or `\\`"
    )]
    Name {
        /// The model's or judge's name.
        name: String,
    },
    /// A model that has no answers.
    #[error("no model {model:?} has answers; those that have: {}", known.join(", "))]
    NoModel {
        /// The model that was looked for.
        model: String,
        /// The models that there are.
        known: Vec<String>,
    },
    /// The prompts lack one that a match needs.
    #[error("no judge prompt is called {name:?}; the prompts at hand are: {}", known.join(", "))]
    NoPrompt {
        /// The prompt that was looked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A prompt template cannot be filled in.
    #[error("judge prompt {prompt:?}, byte {at}: {problem}")]
    Template {
        /// The prompt's name.
        prompt: String,
        /// Where in the template, in bytes.
        at: usize,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A model has not answered a question, or not all of its turns.
    #[error(
        "model {model:?} has {turns} of the {needed} answers to question {question_id}: answer the questions first"
    )]
    NoAnswer {
        /// The model.
        model: String,
        /// The question.
        question_id: u64,
        /// How many turns are answered.
        turns: usize,
        /// How many turns the question has.
        needed: usize,
    },
    /// The category of a question is judged against a reference, and there is none.
    #[error(
        "question {question_id} of category {category:?} is judged against a reference answer of {needed} turns, \
         and the references at hand hold {turns}: add one to reference_answer/ under the judge's name"
    )]
    NoReference {
        /// The question.
        question_id: u64,
        /// Its category.
        category: String,
        /// How many turns the reference has, 0 if there is none.
        turns: usize,
        /// How many turns the prompt shows.
        needed: usize,
    },
    /// A question has no turns, or more than two.
    #[error("question {question_id} has {turns} turns: one or two are what the benchmark knows")]
    Turns {
        /// The question.
        question_id: u64,
        /// How many turns it has.
        turns: usize,
    },
    /// The responder failed; no answer of the wave is kept.
    #[error("model {model:?} could not answer turn {turn}")]
    Respond {
        /// The model.
        model: String,
        /// The wave: 1 or 2.
        turn: u8,
        /// What the responder said.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The responder returned too few or too many answers.
    #[error("model {model:?} gave {got} answers to the {asked} conversations of turn {turn}")]
    AnswerCount {
        /// The model.
        model: String,
        /// The wave: 1 or 2.
        turn: u8,
        /// How many conversations were asked.
        asked: usize,
        /// How many answers came back.
        got: usize,
    },
    /// A file could not be downloaded.
    #[error("cannot fetch {url}")]
    Fetch {
        /// Its address.
        url: String,
        /// What went wrong.
        source: llm_client::Error,
    },
    /// Too few scores for an interval.
    #[error("no interval of {what}")]
    Statistics {
        /// What was to be estimated.
        what: String,
        /// What is missing.
        source: stats::Error,
    },
    /// A judge's rating is one on which FastChat stops.
    #[error("judgment of model {model:?}, question {question_id}, turn {turn}")]
    Rating {
        /// The model that was judged.
        model: String,
        /// The question.
        question_id: u64,
        /// The turn.
        turn: u8,
        /// The rating.
        source: UnreadableRating,
    },
}

impl Error {
    /// Whether the user can mend it by saying or writing something else (exit status 2).
    pub fn is_bad_input(&self) -> bool {
        !matches!(
            self,
            Self::Write { .. } | Self::Respond { .. } | Self::AnswerCount { .. } | Self::Fetch { .. }
        )
    }
}
