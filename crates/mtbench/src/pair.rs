//! Comparisons: the rows of FastChat's `model_judgment/JUDGE_pair.jsonl`. Two games with swapped positions.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::judgment::{JudgedBy, repeat_of};
use crate::python_json::finite_or_absent;
use crate::rating::Mode;
use crate::verdict::{JUDGE_FAILED, PairVerdict, Verdict};
use crate::{fields, question_id};

/// Two models' answers to one turn, compared twice. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairJudgment {
    /// The question's key.
    #[serde(with = "question_id")]
    pub question_id: u64,
    /// Assistant A of the first game and B of the second.
    pub model_1: String,
    /// The other model.
    pub model_2: String,
    /// The winner of the first game.
    pub g1_winner: Winner,
    /// The winner of the second game.
    pub g2_winner: Winner,
    /// The judge and its prompt.
    #[serde(default)]
    pub judge: JudgedBy,
    /// The judge's user prompt in the first game.
    #[serde(default)]
    pub g1_user_prompt: String,
    /// The judge's text in the first game.
    #[serde(default)]
    pub g1_judgment: String,
    /// The judge's user prompt in the second game.
    #[serde(default)]
    pub g2_user_prompt: String,
    /// The judge's text in the second game.
    #[serde(default)]
    pub g2_judgment: String,
    /// The judged turn: 1 or 2.
    #[serde(deserialize_with = "fields::turn")]
    pub turn: u8,
    /// The time of the judgment, in seconds since 1970.
    #[serde(
        default,
        deserialize_with = "fields::time",
        serialize_with = "finite_or_absent",
        skip_serializing_if = "Option::is_none"
    )]
    pub tstamp: Option<f64>,
    /// Fields of other writers, unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The winner of a game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The first model.
    #[serde(rename = "model_1")]
    Model1,
    /// The second model.
    #[serde(rename = "model_2")]
    Model2,
    /// Neither.
    Tie,
    /// Unknown: the call failed, or its text holds no verdict.
    Error,
}

impl Winner {
    /// Returns the winner of game `game` (1 or 2). Positions are swapped in the second game.
    pub fn of_game(game: u8, verdict: Verdict) -> Self {
        match (verdict.preference(), game) {
            (None, _) => Self::Error,
            (Some(PairVerdict::Tie), _) => Self::Tie,
            (Some(PairVerdict::A), 1) | (Some(PairVerdict::B), 2) => Self::Model1,
            (Some(_), _) => Self::Model2,
        }
    }

    /// Returns the same winner after the models swap places.
    #[must_use]
    pub fn swapped(self) -> Self {
        match self {
            Self::Model1 => Self::Model2,
            Self::Model2 => Self::Model1,
            other => other,
        }
    }
}

impl PairJudgment {
    /// Returns the winner of both games together: a tie unless one model won both, [`Winner::Error`] if either game has no
    /// verdict.
    pub fn winner(&self) -> Winner {
        match (self.g1_winner, self.g2_winner) {
            (Winner::Error, _) | (_, Winner::Error) => Winner::Error,
            (first, second) if first == second => first,
            _ => Winner::Tie,
        }
    }

    /// Parses the texts again, in another mode. A game without a text keeps its winner.
    #[must_use]
    pub fn reread(self, mode: Mode) -> Self {
        let winner = |game, text: &str, recorded| match text {
            "" => recorded,
            text => Winner::of_game(game, Verdict::of_game(text, mode)),
        };
        let g1_winner = winner(1, &self.g1_judgment, self.g1_winner);
        let g2_winner = winner(2, &self.g2_judgment, self.g2_winner);
        Self { g1_winner, g2_winner, ..self }
    }

    /// Whether a call failed, so that another run makes both again.
    pub(crate) fn is_failed(&self) -> bool {
        [&self.g1_judgment, &self.g2_judgment].iter().any(|text| *text == JUDGE_FAILED)
    }

    /// Identifies the comparison that a rerun replaces.
    pub(crate) fn key(&self) -> PairKey {
        PairKey {
            question_id: self.question_id,
            models: (self.model_1.clone(), self.model_2.clone()),
            judge: self.judge.clone(),
            turn: self.turn,
            repeat: repeat_of(&self.extra),
        }
    }
}

/// The identity of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairKey {
    pub(crate) question_id: u64,
    pub(crate) models: (String, String),
    pub(crate) judge: JudgedBy,
    pub(crate) turn: u8,
    pub(crate) repeat: u32,
}
