//! Judges and models behind an OpenAI-compatible endpoint.

use std::error::Error as StdError;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use llm_client::{ChatMessage, ChatRequest, ChatSampling, Client, Failure, Reply};

use crate::judge::{Judge, JudgeOutcome, JudgeRequest, Served};
use crate::responder::{Conversation, Responder};
use crate::verdict::{Reading, Verdict};

/// A judge behind an endpoint.
///
/// The client stores each answer as soon as it is received. After a kill only calls in flight are made, and paid, again.
#[derive(Clone, Copy, Debug)]
pub struct EndpointJudge<'a> {
    /// The judge's name, in judgments and in file names.
    pub name: &'a str,
    /// The endpoint's name of the model.
    pub model: &'a str,
    /// The sampling of judgments. FastChat's are greedy and have at most 2048 tokens.
    pub sampling: &'a ChatSampling,
    /// The client of the endpoint.
    pub client: &'a Client,
    /// A request to stop.
    pub stop: &'a AtomicBool,
}

/// FastChat's limit on a judgment, in tokens.
pub const JUDGMENT_TOKENS: u32 = 2048;

/// Opinions on one request are numbered by repeat and, within a repeat, by attempt.
const DRAWS_A_REPEAT: u32 = 1000;

impl EndpointJudge<'_> {
    /// Returns the request as it is sent. Another [`Draw`](crate::Draw) is another request to the cache.
    pub fn chat_request(&self, request: &JudgeRequest<'_>) -> ChatRequest {
        let draw = request.draw;
        ChatRequest {
            model: self.model.to_owned(),
            messages: vec![
                ChatMessage::system(&request.system_prompt),
                ChatMessage::user(&request.user_prompt),
            ],
            sampling: self.sampling.clone(),
            repeat: draw.repeat * DRAWS_A_REPEAT + draw.again.min(DRAWS_A_REPEAT - 1),
        }
    }
}

impl Judge for EndpointJudge<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn judge(&self, request: &JudgeRequest<'_>) -> Result<String, Box<dyn StdError + Send + Sync>> {
        let mut said = None;
        let any_text = |_: &str| Ok(Verdict::NoVerdict);
        self.judge_all(std::slice::from_ref(request), &any_text, 0, &mut |_, done| {
            said = Some(done);
            ControlFlow::Continue(())
        })?;
        match said {
            Some(JudgeOutcome::Answered { text, .. }) => Ok(text),
            Some(JudgeOutcome::Failed(error)) => Err(error),
            None => Err(llm_client::Error::Stopped.into()),
        }
    }

    fn judge_all(
        &self,
        requests: &[JudgeRequest<'_>],
        read: &dyn Fn(&str) -> Reading,
        reasks: u32,
        done: &mut dyn FnMut(usize, JudgeOutcome) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut fatal = None;
        let ask = |index: usize| {
            let mut request = self.chat_request(&requests[index]);
            async move {
                let mut reasks = reasks;
                loop {
                    let Reply { text, model, fingerprint, .. } = self.client.chat(&request).await?.reply;
                    let served_model = model.filter(|model| model != self.model);
                    let served = Served { served_model, fingerprint };
                    let outcome = JudgeOutcome::Answered { verdict: read(&text), text, served };
                    if reasks == 0 || outcome.is_answered() {
                        return Ok(outcome);
                    }
                    reasks -= 1;
                    request.repeat += 1;
                }
            }
        };
        self.client.run_each(requests.len(), self.stop, ask, |index, said| match said {
            Ok(outcome) => done(index, outcome),
            Err(error) if ends_all(&error) => {
                // A signal is the reason only if nothing else was before.
                fatal.get_or_insert(error);
                ControlFlow::Break(())
            }
            Err(error) => done(index, JudgeOutcome::Failed(error.into())),
        })?;
        if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            fatal.get_or_insert(llm_client::Error::Stopped);
        }
        fatal.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Whether the next call would fail, too.
fn ends_all(error: &llm_client::Error) -> bool {
    match error {
        llm_client::Error::Call { source, .. } => {
            // The client has already retried: a rate limit or a missing server lasts longer than that.
            matches!(
                source,
                Failure::QuotaExhausted { .. }
                    | Failure::Refused { .. }
                    | Failure::RateLimited { .. }
                    | Failure::Unreachable { .. }
            )
        }
        _ => true,
    }
}

/// A model behind an endpoint that answers the questions.
#[derive(Clone, Copy, Debug)]
pub struct EndpointResponder<'a> {
    /// The endpoint's name of the model.
    pub model: &'a str,
    /// The system message of every dialogue, if any.
    pub system: Option<&'a str>,
    /// The sampling of answers, except the temperature, which each conversation gives.
    pub sampling: &'a ChatSampling,
    /// The client of the endpoint.
    pub client: &'a Client,
    /// A request to stop.
    pub stop: &'a AtomicBool,
}

/// FastChat's limit on an answer, in tokens.
pub const ANSWER_TOKENS: u32 = 1024;

impl Responder for EndpointResponder<'_> {
    fn respond(
        &mut self,
        conversations: &[Conversation<'_>],
    ) -> Result<Vec<String>, Box<dyn StdError + Send + Sync>> {
        let responder = *self;
        let ask = |index: usize| {
            let request = responder.chat_request(&conversations[index]);
            async move { responder.client.chat(&request).await }
        };
        let mut answers: Vec<Option<String>> = vec![None; conversations.len()];
        let mut failed = None;
        responder.client.run_each(conversations.len(), responder.stop, ask, |index, said| match said {
            Ok(answered) => {
                answers[index] = Some(answered.reply.text);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failed.get_or_insert(error);
                ControlFlow::Break(())
            }
        })?;
        let answers: Option<Vec<String>> = answers.into_iter().collect();
        answers.ok_or_else(|| failed.unwrap_or(llm_client::Error::Stopped).into())
    }
}

impl EndpointResponder<'_> {
    fn chat_request(&self, conversation: &Conversation<'_>) -> ChatRequest {
        let mut messages: Vec<ChatMessage> = self.system.map(ChatMessage::system).into_iter().collect();
        for (turn, user) in conversation.user.iter().enumerate() {
            messages.push(ChatMessage::user(*user));
            messages.extend(conversation.assistant.get(turn).map(|answer| ChatMessage::assistant(*answer)));
        }
        let sampling = ChatSampling { temperature: Some(conversation.temperature), ..self.sampling.clone() };
        ChatRequest { model: self.model.to_owned(), messages, sampling, repeat: 0 }
    }
}
