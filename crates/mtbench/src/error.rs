//! Errors, with file, line and field.

use std::{error, io, path::PathBuf};

use files::json_lines::JsonLinesError;

use crate::question_id::question_label;
use crate::rating::UnreadableRating;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file cannot be written. The old file is unchanged.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A line of a file is no row.
    #[error("{}, line {line}, column {column}, field `{field}`: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column at which the parser stopped, from 1.
        column: usize,
        /// The path of the field, such as `turns[1]`; `.` is the whole object.
        field: String,
        /// The parser's message.
        problem: String,
    },
    /// A row contradicts the rest of its file.
    #[error("{}, line {line}, field `{field}`: {problem}", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// The contradiction and its remedy.
        problem: String,
    },
    /// A value has no form in JSON, such as a time stamp that is not finite.
    #[error("row {row} for {} cannot be written as JSON", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: usize,
        /// The serializer's error.
        source: serde_json::Error,
    },
    /// The name of a model or judge cannot be a file name.
    #[error(
        "{name:?} cannot name a file: use a name that is not empty, starts with no dot and holds no `/` or `\\`"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A model without answers or judgments.
    #[error("no model {model:?} has {what}; those that have: {}", listed(known))]
    NoModel {
        /// The model.
        model: String,
        /// The missing rows: `answers`, `judgments by gpt-4`, `comparisons by gpt-4`.
        what: String,
        /// The models that have such rows.
        known: Vec<String>,
    },
    /// Two models with nothing to compare.
    #[error(
        "{judge} has neither rated both {first:?} and {second:?} nor compared them: run `mtbench judge` on both first"
    )]
    NotCompared {
        /// The judge.
        judge: String,
        /// The first model.
        first: String,
        /// The second model.
        second: String,
    },
    /// A prompt is missing.
    #[error("no judge prompt is called {name:?}; the prompts at hand are: {}", known.join(", "))]
    NoPrompt {
        /// The prompt.
        name: String,
        /// The names of the prompts at hand.
        known: Vec<String>,
    },
    /// A prompt template cannot be filled in.
    #[error("judge prompt {prompt:?}, byte {at}: {problem}")]
    Template {
        /// The prompt's name.
        prompt: String,
        /// The position in the template, in bytes.
        at: usize,
        /// The mistake and its remedy.
        problem: String,
    },
    /// A question without all of its answers.
    #[error(
        "model {model:?} has {turns} of the {needed} answers to question {}: answer the questions first",
        question_label(*question_id)
    )]
    NoAnswer {
        /// The model.
        model: String,
        /// The question's key.
        question_id: u64,
        /// The number of answered turns.
        turns: usize,
        /// The number of turns of the question.
        needed: usize,
    },
    /// A question whose category is judged against a reference, without one.
    #[error(
        "question {} of category {category:?} is judged against a reference answer of {needed} turns, \
         and the references at hand hold {turns}: add one to reference_answer/ under the judge's name",
        question_label(*question_id)
    )]
    NoReference {
        /// The question's key.
        question_id: u64,
        /// Its category.
        category: String,
        /// The number of turns of the reference, 0 if there is none.
        turns: usize,
        /// The number of turns that the prompt shows.
        needed: usize,
    },
    /// A question has no turns, or more than two.
    #[error("question {} has {turns} turns: one or two are what the benchmark knows", question_label(*question_id))]
    Turns {
        /// The question's key.
        question_id: u64,
        /// Its number of turns.
        turns: usize,
    },
    /// The responder failed. No answer of the wave is kept.
    #[error("model {model:?} could not answer turn {turn}")]
    Respond {
        /// The model.
        model: String,
        /// The wave: 1 or 2.
        turn: u8,
        /// The responder's error.
        source: Box<dyn error::Error + Send + Sync>,
    },
    /// The responder returned too few or too many answers.
    #[error("model {model:?} gave {got} answers to the {asked} conversations of turn {turn}")]
    AnswerCount {
        /// The model.
        model: String,
        /// The wave: 1 or 2.
        turn: u8,
        /// The number of conversations.
        asked: usize,
        /// The number of answers.
        got: usize,
    },
    /// A file cannot be downloaded.
    #[error("cannot fetch {url}")]
    Fetch {
        /// Its address, without a password.
        url: String,
        /// The client's error.
        source: llm_client::Error,
    },
    /// A bundle cannot be written or imported.
    #[error("bundle {}: {problem}", path.display())]
    Bundle {
        /// The bundle's folder.
        path: PathBuf,
        /// The mistake and its remedy.
        problem: String,
    },
    /// Too few scores for an interval.
    #[error("no interval of {what}")]
    Statistics {
        /// The estimate.
        what: String,
        /// The error of the computation.
        source: stats::Error,
    },
    /// A rating at which FastChat stops.
    #[error("judgment of model {model:?}, question {}, turn {turn}", question_label(*question_id))]
    Rating {
        /// The judged model.
        model: String,
        /// The question's key.
        question_id: u64,
        /// The turn.
        turn: u8,
        /// The rating.
        source: UnreadableRating,
    },
}

impl Error {
    /// Whether other input or another command helps (exit status 2).
    pub fn is_bad_input(&self) -> bool {
        !matches!(
            self,
            Self::Write { .. } | Self::Respond { .. } | Self::AnswerCount { .. } | Self::Fetch { .. }
        )
    }
}

impl From<JsonLinesError> for Error {
    fn from(error: JsonLinesError) -> Self {
        match error {
            JsonLinesError::Line { path, line, column, field, problem } => {
                let field = if field.is_empty() { ".".to_owned() } else { field };
                Self::Line { path, line, column, field, problem }
            }
            JsonLinesError::Read { path, source } => Self::Read { path, source },
            other => Self::Read { path: PathBuf::new(), source: io::Error::other(other) },
        }
    }
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
