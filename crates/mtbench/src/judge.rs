//! The interface of judges.

use std::error::Error;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::question::Question;
use crate::verdict::Reading;

/// One judge call: all inputs of a judge, rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgeRequest<'a> {
    /// The question.
    pub question: &'a Question,
    /// The judged model; in a comparison assistant A.
    pub model: &'a str,
    /// The model's messages up to and including `turn`.
    pub answers: &'a [String],
    /// Assistant B of a comparison.
    pub rival: Option<Rival<'a>>,
    /// The judged turn: 1 or 2.
    pub turn: u8,
    /// The system prompt.
    pub system_prompt: String,
    /// The user prompt with question, answers and reference.
    pub user_prompt: String,
    /// Distinguishes several opinions on this request.
    pub draw: Draw,
}

/// Assistant B of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival<'a> {
    /// The model.
    pub model: &'a str,
    /// The model's messages up to and including the judged turn.
    pub answers: &'a [String],
}

/// Distinguishes several opinions on one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Draw {
    /// The number of the repeat, from 0.
    pub repeat: u32,
    /// The number of calls before this one whose texts held no verdict.
    pub again: u32,
}

/// What a server reports of itself with an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Served {
    /// The server's name of the model, if it is not the requested one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_model: Option<String>,
    /// The fingerprint of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let model = self.served_model.as_deref().unwrap_or("the requested model");
        match &self.fingerprint {
            Some(fingerprint) => write!(f, "{model} with fingerprint {fingerprint}"),
            None => f.write_str(model),
        }
    }
}

/// The outcome of one judge call.
#[derive(Debug)]
pub enum JudgeOutcome {
    /// The judge's text and its verdict.
    Answered {
        /// The text.
        text: String,
        /// The verdict of the text.
        verdict: Reading,
        /// What the server reports of itself.
        served: Served,
    },
    /// The call failed. Other calls may succeed.
    Failed(Box<dyn Error + Send + Sync>),
}

/// Rates answers: an LLM behind an endpoint, recorded judgments, or a sandbox judge.
///
/// A judge returns *text* in the format of its prompt (`Rating: [[7]]`, `[[A]]`), which the caller parses. A judge that
/// computes its rating goes through the same parser as one that writes prose.
pub trait Judge {
    /// Returns the judge's name, as judgments record it.
    fn name(&self) -> &str;

    /// Judges once.
    ///
    /// # Errors
    ///
    /// Any failure of the call. The caller records the request as failed.
    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn Error + Send + Sync>>;

    /// Judges all of `requests` and passes each outcome with its request's index to `done`. Stops once `done` breaks.
    ///
    /// `read` parses a text. Where it finds no verdict, the request is repeated up to `reasks` times. Requests run one
    /// after the other by default; a judge may run several at a time.
    ///
    /// # Errors
    ///
    /// A failure that all further calls would share: no money, no key, a signal.
    fn judge_all(
        &self,
        requests: &[JudgeRequest<'_>],
        read: &dyn Fn(&str) -> Reading,
        reasks: u32,
        done: &mut dyn FnMut(usize, JudgeOutcome) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for (index, request) in requests.iter().enumerate() {
            let mut outcome = outcome_of(self.judge(request), read);
            for again in 1..=reasks {
                if outcome.is_answered() {
                    break;
                }
                let draw = Draw { again, ..request.draw };
                outcome = outcome_of(self.judge(&JudgeRequest { draw, ..request.clone() }), read);
            }
            if done(index, outcome).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl JudgeOutcome {
    /// Whether another call would not help: the text holds a verdict, or the call failed. A rating at which FastChat
    /// stops counts as a verdict.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Answered { verdict, .. } => verdict.as_ref().map_or(true, |verdict| verdict.is_decided()),
            Self::Failed(_) => true,
        }
    }
}

fn outcome_of(
    said: Result<String, Box<dyn Error + Send + Sync>>,
    read: &dyn Fn(&str) -> Reading,
) -> JudgeOutcome {
    match said {
        Ok(text) => JudgeOutcome::Answered { verdict: read(&text), text, served: Served::default() },
        Err(error) => JudgeOutcome::Failed(error),
    }
}
