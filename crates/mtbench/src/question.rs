//! Questions: the rows of FastChat's `question.jsonl`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, fields, python_json::finite_or_absent, question_id};

/// One MT-Bench question of one or two turns. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The question's key; MT-Bench uses 81 to 160. [`question_label`](crate::question_label) returns the id of the file.
    #[serde(with = "question_id")]
    pub question_id: u64,
    /// The category, such as `writing`.
    pub category: String,
    /// The user's messages, one a turn.
    #[serde(deserialize_with = "fields::turns")]
    pub turns: Vec<String>,
    /// Notes of the question's author, usually a list of texts. Judging never reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Value>,
    /// Overrides the temperature that the category implies.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "finite_or_absent")]
    pub required_temperature: Option<f64>,
}

/// Questions whose reference answers in FastChat's `reference_answer/gpt-4.jsonl` are wrong. The judge grades math,
/// reasoning and coding questions by them. The list is from a correction proposed to FastChat (pull request 3158) and not
/// merged.
pub const KNOWN_WRONG_REFERENCES: [u64; 13] =
    [104, 105, 109, 111, 113, 114, 120, 122, 124, 125, 126, 128, 130];

/// The temperature of categories that FastChat's table does not list.
const OTHER_CATEGORIES: f64 = 0.7;

impl Question {
    /// Returns the sampling temperature of the answers: [`required_temperature`](Self::required_temperature) if set, else
    /// FastChat's for the category (0.1 for stem and humanities, 0 for math, coding, reasoning and extraction, otherwise
    /// 0.7).
    ///
    /// ```
    /// # let line = r#"{"question_id": 81, "category": "stem", "turns": ["Why is the sky blue?"]}"#;
    /// let mut question: mtbench::Question = serde_json::from_str(line)?;
    /// assert_eq!(question.temperature(), 0.1);
    /// question.required_temperature = Some(0.7);
    /// assert_eq!(question.temperature(), 0.7);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn temperature(&self) -> f64 {
        self.required_temperature.unwrap_or(match self.category.as_str() {
            "stem" | "humanities" => 0.1,
            "math" | "coding" | "reasoning" | "extraction" => 0.0,
            _ => OTHER_CATEGORIES,
        })
    }

    /// Whether FastChat judges the category against a reference answer.
    pub fn needs_reference(&self) -> bool {
        matches!(self.category.as_str(), "math" | "reasoning" | "coding" | "arena-hard-200")
    }

    pub(crate) fn checked_turns(&self) -> Result<usize, Error> {
        match self.turns.len() {
            turns @ 1..=2 => Ok(turns),
            turns => Err(Error::Turns { question_id: self.question_id, turns }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_category(category: &str) -> Question {
        Question {
            question_id: 1,
            category: category.to_owned(),
            turns: vec!["Hello?".to_owned()],
            reference: None,
            required_temperature: None,
        }
    }

    #[test]
    fn temperatures_are_fastchats() {
        for (category, temperature) in [
            ("writing", 0.7),
            ("roleplay", 0.7),
            ("extraction", 0.0),
            ("math", 0.0),
            ("coding", 0.0),
            ("reasoning", 0.0),
            ("stem", 0.1),
            ("humanities", 0.1),
            ("cooking", 0.7),
        ] {
            assert_eq!(of_category(category).temperature(), temperature, "{category}");
        }
        let question = Question { required_temperature: Some(0.0), ..of_category("writing") };
        assert_eq!(question.temperature(), 0.0, "the question's own takes precedence");
    }
}
