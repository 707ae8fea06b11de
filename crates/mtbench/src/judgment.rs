//! Judgments: the rows of FastChat's `model_judgment/JUDGE_single.jsonl`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::python_json::finite_or_absent;
use crate::rating::{Mode, Rating, UnreadableRating};
use crate::verdict::{JUDGE_FAILED, Verdict};
use crate::{fields, question_id};

/// One judged turn of one answer. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Row")]
pub struct Judgment {
    /// The question's key.
    #[serde(with = "question_id")]
    pub question_id: u64,
    /// The judged model.
    pub model: String,
    /// The judge and its prompt.
    pub judge: JudgedBy,
    /// The user prompt of the judge.
    pub user_prompt: String,
    /// The judge's text; [`JUDGE_FAILED`] for a failed call.
    pub judgment: String,
    /// The verdict of the text. The file has the rating as `score`, or −1.
    #[serde(rename = "score", serialize_with = "as_score")]
    pub verdict: Verdict,
    /// The judged turn: 1 or 2.
    pub turn: u8,
    /// The time of the judgment, in seconds since 1970.
    #[serde(serialize_with = "finite_or_absent", skip_serializing_if = "Option::is_none")]
    pub tstamp: Option<f64>,
    /// Fields of other writers, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A line as FastChat's `show_result.py` reads it: only model, score and turn are needed, and the question here.
#[derive(Deserialize)]
struct Row {
    #[serde(with = "question_id")]
    question_id: u64,
    model: String,
    #[serde(default)]
    judge: JudgedBy,
    #[serde(default)]
    user_prompt: String,
    #[serde(default)]
    judgment: String,
    #[serde(default, deserialize_with = "fields::score")]
    score: Option<Rating>,
    #[serde(deserialize_with = "fields::turn")]
    turn: u8,
    #[serde(default, deserialize_with = "fields::time")]
    tstamp: Option<f64>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

impl From<Row> for Judgment {
    fn from(row: Row) -> Self {
        let Row { question_id, model, judge, user_prompt, judgment, score, turn, tstamp, extra } = row;
        let verdict = score.map_or_else(|| Verdict::without(&judgment), Verdict::Rating);
        Self { question_id, model, judge, user_prompt, judgment, verdict, turn, tstamp, extra }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn as_score<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    verdict.rating().unwrap_or(Rating::Whole(fields::MISSING)).serialize(serializer)
}

/// A judge and its prompt: a pair in FastChat's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "(String, String)")]
pub struct JudgedBy {
    /// The judge's [name](crate::Judge::name).
    pub judge: String,
    /// The prompt's [name](crate::JudgePrompt::name).
    pub prompt: String,
}

impl<'de> Deserialize<'de> for JudgedBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> de::Visitor<'de> for Pair {
            type Value = JudgedBy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a judge and its prompt, or a judge")
            }

            fn visit_str<E: de::Error>(self, judge: &str) -> Result<JudgedBy, E> {
                Ok((judge.to_owned(), String::new()).into())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, pair: A) -> Result<JudgedBy, A::Error> {
                let pair = <(String, String)>::deserialize(de::value::SeqAccessDeserializer::new(pair))?;
                Ok(pair.into())
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

impl From<(String, String)> for JudgedBy {
    fn from((judge, prompt): (String, String)) -> Self {
        Self { judge, prompt }
    }
}

impl From<JudgedBy> for (String, String) {
    fn from(by: JudgedBy) -> Self {
        (by.judge, by.prompt)
    }
}

impl Judgment {
    /// Parses the text again, in another mode.
    ///
    /// # Errors
    ///
    /// As [`parse_rating`](crate::parse_rating).
    pub fn reread(self, mode: Mode) -> Result<Self, UnreadableRating> {
        Ok(Self { verdict: Verdict::of_single(&self.judgment, mode)?, ..self })
    }

    /// Returns the rating, if the verdict is one.
    pub fn score(&self) -> Option<Rating> {
        self.verdict.rating()
    }

    /// Whether the call failed, so that another run makes it again.
    pub(crate) fn is_failed(&self) -> bool {
        self.judgment == JUDGE_FAILED
    }

    /// Returns the number of the repeat, from 0: one judge's several opinions on one answer.
    pub fn repeat(&self) -> u32 {
        repeat_of(&self.extra)
    }

    /// Identifies the judgment that a rerun replaces.
    pub(crate) fn key(&self) -> SingleKey {
        SingleKey {
            question_id: self.question_id,
            model: self.model.clone(),
            judge: self.judge.clone(),
            turn: self.turn,
            repeat: self.repeat(),
        }
    }
}

/// The identity of a judgment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SingleKey {
    pub(crate) question_id: u64,
    pub(crate) model: String,
    pub(crate) judge: JudgedBy,
    pub(crate) turn: u8,
    pub(crate) repeat: u32,
}

/// The field that numbers repeats, from 1. FastChat's lines, and first opinions, have none.
const REPEAT: &str = "repeat";

pub(crate) fn repeat_of(extra: &Map<String, Value>) -> u32 {
    let given = extra.get(REPEAT).and_then(Value::as_u64);
    given.and_then(|repeat| u32::try_from(repeat).ok()).unwrap_or(0)
}

pub(crate) fn with_repeat(repeat: u32) -> Map<String, Value> {
    if repeat == 0 { Map::new() } else { Map::from_iter([(REPEAT.to_owned(), repeat.into())]) }
}
