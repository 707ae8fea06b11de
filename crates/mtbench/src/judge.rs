//! The interface of judges.

use std::error::Error;
use std::ops::ControlFlow;

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

/// The outcome of one judge call.
#[derive(Debug)]
pub enum Heard {
    /// The judge's text and its verdict.
    Said {
        /// The text.
        text: String,
        /// The verdict of the text.
        verdict: Reading,
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

    /// Judges all of `requests` and passes each outcome with its request's index to `heard`. Stops once `heard` breaks.
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
        heard: &mut dyn FnMut(usize, Heard) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        for (index, request) in requests.iter().enumerate() {
            let mut outcome = heard_once(self.judge(request), read);
            for again in 1..=reasks {
                if outcome.is_answered() {
                    break;
                }
                let draw = Draw { again, ..request.draw };
                outcome = heard_once(self.judge(&JudgeRequest { draw, ..request.clone() }), read);
            }
            if heard(index, outcome).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Heard {
    /// Whether another call would not help: the text holds a verdict, or the call failed. A rating at which FastChat
    /// stops counts as a verdict.
    pub(crate) fn is_answered(&self) -> bool {
        match self {
            Self::Said { verdict, .. } => verdict.as_ref().map_or(true, |verdict| verdict.is_decided()),
            Self::Failed(_) => true,
        }
    }
}

fn heard_once(said: Result<String, Box<dyn Error + Send + Sync>>, read: &dyn Fn(&str) -> Reading) -> Heard {
    match said {
        Ok(text) => Heard::Said { verdict: read(&text), text },
        Err(error) => Heard::Failed(error),
    }
}
