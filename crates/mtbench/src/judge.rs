//! The seam between the benchmark and whoever rates answers.

use std::error::Error;

use crate::Question;

/// One single-answer judging call: everything a judge may look at, already rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeRequest<'a> {
    /// The question that was asked.
    pub question: &'a Question,
    /// The model whose answer is judged, by its `model_id`.
    pub model: &'a str,
    /// The model's answers, turn by turn, up to and including `turn`.
    pub answers: &'a [String],
    /// The turn that is judged: 1 or 2.
    pub turn: u8,
    /// The system prompt.
    pub system_prompt: String,
    /// The user prompt, with question, answer and reference filled in.
    pub user_prompt: String,
}

/// Rates answers: an LLM behind an endpoint, recorded judgments, or a sandbox judge.
///
/// A judge returns *text*, in the format that the prompt asks for (`Rating: [[7]]`), and the caller parses it. A judge
/// that computes its rating goes through the same parser as one that writes prose.
pub trait Judge {
    /// The judge's name, as judgments record it.
    fn name(&self) -> &str;

    /// Judges one turn of one answer.
    ///
    /// # Errors
    ///
    /// Whatever keeps the judge from answering; the caller records the request as unjudged.
    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn Error + Send + Sync>>;
}
