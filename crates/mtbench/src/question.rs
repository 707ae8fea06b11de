//! Questions, as FastChat's `question.jsonl` holds them.

use serde::{Deserialize, Serialize};

/// One MT-Bench question of one or two turns. Field order is that of FastChat's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Identifies the question; MT-Bench uses 81 to 160.
    pub question_id: u64,
    /// One of the benchmark's categories, such as `writing`.
    pub category: String,
    /// What the user says, turn by turn.
    pub turns: Vec<String>,
    /// Notes of the question's author; judging never reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Vec<String>>,
    /// Overrides the temperature that the category implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_temperature: Option<f64>,
}
