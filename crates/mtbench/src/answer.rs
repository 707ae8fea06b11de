//! Answers: the rows of FastChat's `model_answer/ID.jsonl`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{fields, python_json::finite_or_absent, question_id};

/// A model's answers to one question. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's key.
    #[serde(with = "question_id")]
    pub question_id: u64,
    /// Identifies the answer. FastChat draws a short UUID; other writers leave it out.
    #[serde(default, deserialize_with = "fields::label", skip_serializing_if = "Option::is_none")]
    pub answer_id: Option<String>,
    /// The model. [`BenchDir`](crate::BenchDir) fills in the name of the file, by which FastChat knows a model.
    #[serde(default)]
    pub model_id: String,
    /// The samples. Only the first one is judged.
    pub choices: Vec<Choice>,
    /// The time of the answer, in seconds since 1970.
    #[serde(
        default,
        deserialize_with = "fields::time",
        serialize_with = "finite_or_absent",
        skip_serializing_if = "Option::is_none"
    )]
    pub tstamp: Option<f64>,
    /// Fields of other writers, such as `generate_params`, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One sampled dialogue of an [`Answer`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The sample's number, from 0.
    #[serde(default)]
    pub index: u64,
    /// The model's messages, one a turn.
    #[serde(deserialize_with = "fields::turns")]
    pub turns: Vec<String>,
    /// Fields of other writers, such as `wall_time`, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Choice {
    /// The first sample, with these messages.
    pub fn new(turns: Vec<String>) -> Self {
        Self { turns, ..Self::default() }
    }
}

impl Answer {
    /// Returns the judged turns, those of the first choice. Without a choice there are none.
    pub fn turns(&self) -> &[String] {
        self.choices.first().map_or(&[], |choice| &choice.turns)
    }
}

/// The source of ids and times. This crate reads no clock and draws no random numbers.
pub trait Stamp {
    /// Returns the id of the answer to a question.
    fn answer_id(&mut self, question_id: u64) -> String;

    /// Returns the time of a row, in seconds since 1970.
    fn tstamp(&mut self) -> f64;
}

/// Stamps that are equal in every run: ids `{prefix}-{question_id}` and a constant time.
///
/// For runs whose files must be equal byte for byte, and for tests.
#[derive(Clone, Debug, PartialEq)]
pub struct FixedStamp {
    /// The start of every id.
    pub prefix: String,
    /// The time of every row, in seconds since 1970.
    pub tstamp: f64,
}

impl Stamp for FixedStamp {
    fn answer_id(&mut self, question_id: u64) -> String {
        format!("{}-{}", self.prefix, question_id::question_label(question_id))
    }

    fn tstamp(&mut self) -> f64 {
        self.tstamp
    }
}
