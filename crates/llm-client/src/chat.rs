//! What is asked and what is answered.

use serde::{Deserialize, Serialize};

/// A chat completion to ask for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The model, by the endpoint's name for it.
    pub model: String,
    /// The conversation; the last message is usually the user's.
    pub messages: Vec<ChatMessage>,
    /// How the answer is drawn.
    pub sampling: ChatSampling,
    /// Tells apart requests that are equal otherwise and still want an answer each: the number of the repeat, from 0. It is
    /// not sent; the cache knows by it that the second opinion is not the first.
    pub repeat: u32,
}

/// How an answer is drawn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatSampling {
    /// Temperature; the server's default if none. Some models accept no other.
    pub temperature: Option<f64>,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// By which name the limit is sent.
    pub limit_name: LimitName,
    /// A seed, for servers that take one.
    pub seed: Option<u64>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
}

/// The name of the parameter that limits an answer's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// `max_tokens`, which every server knows.
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's reasoning models insist on.
    MaxCompletionTokens,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What they say.
    pub content: String,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A chat completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// What the model said; empty where it said nothing.
    pub text: String,
    /// Why it ended, in the server's words: `stop`, `length`, `content_filter`.
    pub finish_reason: Option<String>,
    /// The model by the server's own account.
    pub model: Option<String>,
    /// What was counted, where the server counts.
    pub usage: Option<Usage>,
}

/// Tokens of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: u64,
}

impl ChatMessage {
    /// A message of the system.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: Role::System, content: content.into() }
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }

    /// A message of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: content.into() }
    }
}

impl ChatSampling {
    /// The most probable answer, of at most `max_tokens` tokens.
    pub fn greedy(max_tokens: u32) -> Self {
        Self {
            temperature: Some(0.0),
            max_tokens,
            limit_name: LimitName::MaxTokens,
            seed: None,
            stop: Vec::new(),
        }
    }
}

/// The most tokens that a message's frame takes in the chat formats in use.
const FRAME_TOKENS: u64 = 8;

impl ChatRequest {
    /// No fewer tokens than the prompt has: tokenizers that work on bytes make at most one a byte.
    pub(crate) fn most_prompt_tokens(&self) -> u64 {
        self.messages.iter().map(|message| message.content.len() as u64 + FRAME_TOKENS).sum()
    }

    /// About as many tokens as the prompt has: English has some four bytes a token.
    pub fn likely_prompt_tokens(&self) -> u64 {
        self.messages.iter().map(|message| message.content.len() as u64 / 4 + FRAME_TOKENS).sum()
    }

    /// The request as it is sent.
    pub(crate) fn body(&self) -> Body<'_> {
        let sampling = &self.sampling;
        let limit = |name| (sampling.limit_name == name).then_some(sampling.max_tokens);
        Body {
            model: &self.model,
            messages: &self.messages,
            temperature: sampling.temperature,
            max_tokens: limit(LimitName::MaxTokens),
            max_completion_tokens: limit(LimitName::MaxCompletionTokens),
            seed: sampling.seed,
            stop: &sampling.stop,
        }
    }
}

/// The body of a call to `/chat/completions`.
#[derive(Debug, Serialize)]
pub(crate) struct Body<'a> {
    model: &'a str,
    messages: &'a [ChatMessage],
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
}

/// What comes back, as far as we read it: third parties leave out much of what OpenAI sends.
#[derive(Debug, Deserialize)]
pub(crate) struct WireReply {
    choices: Vec<WireChoice>,
    model: Option<String>,
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct WireChoice {
    message: WireMessage,
    finish_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WireMessage {
    content: Option<String>,
}

impl WireReply {
    /// The first choice, which is all that is asked for.
    pub(crate) fn into_reply(self) -> Option<Reply> {
        let choice = self.choices.into_iter().next()?;
        Some(Reply {
            text: choice.message.content.unwrap_or_default(),
            finish_reason: choice.finish_reason,
            model: self.model,
            usage: self.usage,
        })
    }
}
