//! Judges and models behind an OpenAI-compatible endpoint.

use std::error::Error as StdError;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use llm_client::{ChatMessage, ChatRequest, ChatSampling, Client, Failure};

use crate::{Conversation, Heard, Judge, JudgeRequest, Responder};

/// A judge behind an endpoint.
///
/// The client keeps each answer of the judge as soon as it is received, so that a run that was killed pays for none twice.
#[derive(Clone, Copy, Debug)]
pub struct EndpointJudge<'a> {
    /// The judge's name, as judgments record it and as its files are called.
    pub name: &'a str,
    /// The model, by the endpoint's name for it.
    pub model: &'a str,
    /// How judgments are drawn; FastChat's are greedy and of at most 2048 tokens.
    pub sampling: &'a ChatSampling,
    /// Makes the calls.
    pub client: &'a Client,
    /// Set once somebody asks to stop.
    pub stop: &'a AtomicBool,
}

/// FastChat's limit on a judgment, in tokens.
pub const JUDGMENT_TOKENS: u32 = 2048;

/// Opinions on one request are numbered by repeat and, below that, by how often they were asked again.
const DRAWS_A_REPEAT: u32 = 1000;

impl EndpointJudge<'_> {
    /// The request as it is sent; another [`Draw`](crate::Draw) is another request to the cache.
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
        self.judge_all(std::slice::from_ref(request), &|_| true, 0, &mut |_, heard| {
            said = Some(heard);
            ControlFlow::Continue(())
        })?;
        match said {
            Some(Heard::Said(text)) => Ok(text),
            Some(Heard::Failed(error)) => Err(error),
            None => Err(llm_client::Error::Stopped.into()),
        }
    }

    fn judge_all(
        &self,
        requests: &[JudgeRequest<'_>],
        has_verdict: &dyn Fn(&str) -> bool,
        reasks: u32,
        heard: &mut dyn FnMut(usize, Heard) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut fatal = None;
        let ask = |index: usize| {
            let mut request = self.chat_request(&requests[index]);
            async move {
                let mut said = self.client.chat(&request).await;
                for _ in 0..reasks {
                    if !said.as_ref().is_ok_and(|answered| !has_verdict(&answered.reply.text)) {
                        break;
                    }
                    request.repeat += 1;
                    said = self.client.chat(&request).await;
                }
                said
            }
        };
        self.client.run_each(requests.len(), self.stop, ask, |index, said| match said {
            Ok(answered) => heard(index, Heard::Said(answered.reply.text)),
            Err(error) if ends_all(&error) => {
                // A signal is the reason only where nothing else was before.
                fatal.get_or_insert(error);
                ControlFlow::Break(())
            }
            Err(error) => heard(index, Heard::Failed(error.into())),
        })?;
        if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            fatal.get_or_insert(llm_client::Error::Stopped);
        }
        fatal.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Whether the next call would fail as well.
fn ends_all(error: &llm_client::Error) -> bool {
    match error {
        llm_client::Error::Call { source, .. } => {
            // The client has been patient already: who still is over the limit or out of reach stays so for a while.
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

/// A model behind an endpoint that answers the benchmark.
#[derive(Clone, Copy, Debug)]
pub struct EndpointResponder<'a> {
    /// The model, by the endpoint's name for it.
    pub model: &'a str,
    /// What stands before every dialogue, if anything.
    pub system: Option<&'a str>,
    /// How answers are drawn; the temperature is that of each conversation.
    pub sampling: &'a ChatSampling,
    /// Makes the calls.
    pub client: &'a Client,
    /// Set once somebody asks to stop.
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
