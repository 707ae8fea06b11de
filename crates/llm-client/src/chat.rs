//! Requests and replies.

use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::Value;

/// A request for a chat completion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The endpoint's name of the model.
    pub model: String,
    /// The conversation; the last message is usually the user's.
    pub messages: Vec<ChatMessage>,
    /// The sampling of the answer.
    pub sampling: ChatSampling,
    /// The number of the repeat, from 0. It is not sent; it gives each of several equal requests its own answer in the
    /// cache.
    pub repeat: u32,
}

/// The sampling of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatSampling {
    /// The temperature; the server's default if none. Some models accept no other.
    pub temperature: Option<f64>,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// The name of the limit in the request.
    pub limit_name: LimitName,
    /// A seed, for servers that take one.
    pub seed: Option<u64>,
    /// Stop sequences.
    pub stop: Vec<String>,
    /// The number of alternatives of each token whose log-probabilities are requested, from 0 to 20; none if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u8>,
}

/// The name of the parameter that limits an answer's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// `max_tokens`, which every server accepts.
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's reasoning models require.
    MaxCompletionTokens,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// The author.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// The author of a message.
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The model's text; empty if it has none.
    pub text: String,
    /// The server's reason for the end: `stop`, `length`, `content_filter`.
    pub finish_reason: Option<String>,
    /// The server's name of the model.
    pub model: Option<String>,
    /// The token counts; none if the server sends none, or impossible ones.
    pub usage: Option<Usage>,
    /// The server's fingerprint of its configuration, which changes with the model's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The tokens of the text with their log-probabilities; empty if the server sends none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// Its log-probability, in nats.
    pub logprob: f64,
    /// The most probable tokens at its place, with their log-probabilities.
    #[serde(default, rename = "top_logprobs")]
    pub top: Vec<Alternative>,
}

/// A token that the model might have produced instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The token's text.
    pub token: String,
    /// Its log-probability, in nats.
    pub logprob: f64,
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
    /// Greedy decoding of at most `max_tokens` tokens.
    pub fn greedy(max_tokens: u32) -> Self {
        Self {
            temperature: Some(0.0),
            max_tokens,
            limit_name: LimitName::MaxTokens,
            seed: None,
            stop: Vec::new(),
            top_logprobs: None,
        }
    }
}

/// The most tokens of a message's frame in common chat formats.
const FRAME_TOKENS: u64 = 8;

impl ChatRequest {
    /// An upper bound of the prompt's tokens: byte-level tokenizers make at most one a byte.
    pub(crate) fn most_prompt_tokens(&self) -> u64 {
        self.messages.iter().map(|message| message.content.len() as u64 + FRAME_TOKENS).sum()
    }

    /// Estimates the prompt's tokens: English has about four bytes a token.
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
            logprobs: sampling.top_logprobs.map(|_| true),
            top_logprobs: sampling.top_logprobs,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
}

/// The part of a reply that is used. Third-party servers leave out much of what OpenAI sends.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WireReply {
    choices: Vec<WireChoice>,
    #[serde(default, deserialize_with = "text")]
    model: Option<String>,
    #[serde(default, deserialize_with = "text")]
    system_fingerprint: Option<String>,
    #[serde(default, deserialize_with = "usage")]
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize, Serialize)]
struct WireChoice {
    message: WireMessage,
    #[serde(default, deserialize_with = "text")]
    finish_reason: Option<String>,
    #[serde(default, deserialize_with = "logprobs")]
    logprobs: WireLogprobs,
}

/// The log-probabilities of a choice, in the server's form.
#[derive(Debug, Default, Deserialize, Serialize)]
struct WireLogprobs {
    content: Vec<TokenLogprob>,
}

#[derive(Debug, Deserialize, Serialize)]
struct WireMessage {
    content: Option<String>,
}

impl WireReply {
    /// Parses a body. No answer is lost because of its token counts: counts that JSON numbers cannot hold are unknown.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct WithoutUsage {
            choices: Vec<WireChoice>,
            #[serde(rename = "usage")]
            _usage: Option<IgnoredAny>,
        }
        serde_json::from_slice(body).or_else(|error| match serde_json::from_slice::<WithoutUsage>(body) {
            Ok(WithoutUsage { choices, .. }) => {
                Ok(Self { choices, model: None, system_fingerprint: None, usage: None })
            }
            Err(_) => Err(error),
        })
    }

    /// Returns the first choice, the only one requested.
    pub(crate) fn into_reply(self) -> Option<Reply> {
        let choice = self.choices.into_iter().next()?;
        Some(Reply {
            text: choice.message.content.unwrap_or_default(),
            finish_reason: choice.finish_reason,
            model: self.model,
            usage: self.usage,
            fingerprint: self.system_fingerprint,
            logprobs: choice.logprobs.content,
        })
    }
}

/// A string; anything else is none.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().map(str::to_owned))
}

/// Log-probabilities; empty if they have another form.
fn logprobs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WireLogprobs, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// The most tokens that one call can have. Larger counts are errors of the server.
const MOST_TOKENS: u64 = 1_000_000_000;

/// Token counts; none if one is missing, negative, fractional or impossibly large.
fn usage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Usage>, D::Error> {
    let counts = Value::deserialize(deserializer)?;
    let count = |name: &str| counts.get(name)?.as_u64().filter(|count| *count <= MOST_TOKENS);
    let usage = || {
        let (prompt_tokens, completion_tokens) = (count("prompt_tokens")?, count("completion_tokens")?);
        Some(Usage { prompt_tokens, completion_tokens })
    };
    Ok(usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_and_fingerprint_are_read_where_they_have_the_known_form() {
        let reply = |logprobs: &str| {
            let body = format!(
                r#"{{"choices": [{{"message": {{"content": "A"}}, "logprobs": {logprobs}}}], "system_fingerprint": "fp_1"}}"#
            );
            WireReply::parse(body.as_bytes()).unwrap().into_reply().unwrap()
        };
        let token = r#"{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": [{"token": "B", "logprob": -1}]}"#;
        let read = reply(&format!(r#"{{"content": [{token}], "refusal": null}}"#));
        assert_eq!(read.fingerprint.as_deref(), Some("fp_1"));
        assert_eq!(read.logprobs[0].top, [Alternative { token: "B".to_owned(), logprob: -1.0 }]);
        for other in ["null", "{}", "[]", "3", r#"{"content": null}"#, r#"{"content": [{"token": 3}]}"#] {
            let read = reply(other);
            assert_eq!((read.text.as_str(), read.logprobs.len()), ("A", 0), "{other}");
        }
    }

    #[test]
    fn impossible_token_counts_are_unknown_and_lose_no_answer() {
        let reply = |usage: &str| {
            let body = format!(r#"{{"choices": [{{"message": {{"content": "7"}}}}], "model": "m"{usage}}}"#);
            WireReply::parse(body.as_bytes()).unwrap().into_reply().unwrap()
        };
        let long = format!("1{}", "0".repeat(400));
        let count = |prompt: &str| {
            reply(&format!(r#", "usage": {{"prompt_tokens": {prompt}, "completion_tokens": 2}}"#))
        };
        for impossible in
            ["-35", "null", "\"7\"", "1.5", "18446744073709551615", "1e300", "1e999", &long, "{}"]
        {
            let reply = count(impossible);
            assert_eq!((reply.text.as_str(), reply.usage), ("7", None), "{impossible}");
        }
        for missing in ["", r#", "usage": null"#, r#", "usage": 3"#, r#", "usage": {"prompt_tokens": 3}"#] {
            assert_eq!(reply(missing).usage, None, "{missing}");
        }
        assert_eq!(count("3").usage, Some(Usage { prompt_tokens: 3, completion_tokens: 2 }));
    }
}
