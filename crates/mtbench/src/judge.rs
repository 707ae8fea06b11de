//! The seam between the benchmark and whoever rates answers.

use std::error::Error;
use std::ops::ControlFlow;

use crate::Question;

/// One judging call: everything a judge may look at, already rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeRequest<'a> {
    /// The question that was asked.
    pub question: &'a Question,
    /// The model whose answer is judged, by its `model_id`; in a comparison the one that is shown as assistant A.
    pub model: &'a str,
    /// The model's answers, turn by turn, up to and including `turn`.
    pub answers: &'a [String],
    /// In a comparison, who is shown as assistant B.
    pub rival: Option<Rival<'a>>,
    /// The turn that is judged: 1 or 2.
    pub turn: u8,
    /// The system prompt.
    pub system_prompt: String,
    /// The user prompt, with question, answers and reference filled in.
    pub user_prompt: String,
    /// Which opinion on this request is asked for.
    pub draw: Draw,
}

/// Assistant B of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival<'a> {
    /// The model, by its `model_id`.
    pub model: &'a str,
    /// The model's answers, turn by turn, up to and including the judged one.
    pub answers: &'a [String],
}

/// Tells apart the opinions that are asked for on one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draw {
    /// The number of the repeat, from 0.
    pub repeat: u32,
    /// How often it was asked again since no verdict could be read, from 0.
    pub again: u32,
}

/// What a judge's call came to.
#[derive(Debug)]
pub enum Heard {
    /// The judge said this.
    Said(String),
    /// The call failed, and others may succeed.
    Failed(Box<dyn Error + Send + Sync>),
}

/// Rates answers: an LLM behind an endpoint, recorded judgments, or a sandbox judge.
///
/// A judge returns *text*, in the format that the prompt asks for (`Rating: [[7]]`, `[[A]]`), and the caller parses it. A
/// judge that computes its rating goes through the same parser as one that writes prose.
pub trait Judge {
    /// The judge's name, as judgments record it.
    fn name(&self) -> &str;

    /// Judges once.
    ///
    /// # Errors
    ///
    /// Whatever keeps the judge from answering; the caller records the request as unjudged.
    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn Error + Send + Sync>>;

    /// Judges all of `requests`, asking again up to `reasks` times where `has_verdict` finds no verdict in the text, and hands
    /// each outcome to `heard` with its request's index as it comes. Once `heard` breaks, nothing more is asked.
    ///
    /// One after the other by default; a judge that can do several at a time does.
    ///
    /// # Errors
    ///
    /// What makes all further calls pointless: no money, no key, a signal.
    fn judge_all(
        &self,
        requests: &[JudgeRequest<'_>],
        has_verdict: &dyn Fn(&str) -> bool,
        reasks: u32,
        heard: &mut dyn FnMut(usize, Heard) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for (index, request) in requests.iter().enumerate() {
            let mut said = self.judge(request);
            for again in 1..=reasks {
                if !said.as_ref().is_ok_and(|text| !has_verdict(text)) {
                    break;
                }
                let draw = Draw { again, ..request.draw };
                said = self.judge(&JudgeRequest { draw, ..request.clone() });
            }
            if heard(index, said.map_or_else(Heard::Failed, Heard::Said)).is_break() {
                break;
            }
        }
        Ok(())
    }
}
