//! Failures of one attempt, and whether another attempt may succeed.

use std::time::Duration;

use serde_json::Value;

use crate::printable::one_line;

/// The failure of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Too many requests or tokens a minute. A later attempt may succeed.
    #[error("rate limit: {message}")]
    RateLimited {
        /// The wait that the server requests.
        retry_after: Option<Duration>,
        /// The server's message.
        message: String,
    },
    /// The account has no money left. Another attempt fails, too.
    #[error("quota exhausted: {message}; top up the account or take another key")]
    QuotaExhausted {
        /// The server's message.
        message: String,
    },
    /// Prompt and answer exceed the model's context. Another attempt fails, too.
    #[error("the prompt does not fit the model's context: {message}")]
    ContextOverflow {
        /// The server's message.
        message: String,
    },
    /// The server refuses the request: a wrong key, model, parameter or address. Another attempt fails, too.
    #[error("HTTP status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's message.
        message: String,
    },
    /// An error of the server, or overload.
    #[error("HTTP status {status}: {message}")]
    Server {
        /// The HTTP status.
        status: u16,
        /// The wait that the server requests.
        retry_after: Option<Duration>,
        /// The server's message.
        message: String,
    },
    /// No complete answer within the timeout.
    #[error("no answer within {} s", limit.as_secs_f64())]
    Timeout {
        /// The timeout.
        limit: Duration,
    },
    /// The connection ended inside of the answer.
    #[error("the answer broke off")]
    CutBody,
    /// No connection.
    #[error("no connection: {message}")]
    Unreachable {
        /// The system's message.
        message: String,
    },
    /// A success status with a body that is no chat completion.
    #[error("the answer is no chat completion: {message}")]
    Malformed {
        /// The parser's message.
        message: String,
    },
    /// The batch ended without the call, which is not billed. Another batch may make it.
    #[error("not made in the batch: {message}")]
    NotInBatch {
        /// The server's code and message.
        message: String,
    },
    /// The answer exceeds the size limit. Another attempt would be billed again.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// The size limit, in bytes.
        limit: usize,
    },
}

impl Failure {
    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Server { .. }
            | Self::Timeout { .. }
            | Self::CutBody
            | Self::Unreachable { .. }
            | Self::NotInBatch { .. }
            | Self::Malformed { .. } => true,
            Self::QuotaExhausted { .. }
            | Self::ContextOverflow { .. }
            | Self::Refused { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// Whether the server may bill the attempt although no answer arrived.
    pub fn may_be_billed(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::CutBody | Self::Malformed { .. } | Self::TooLarge { .. })
    }

    /// Returns the wait that the server requests.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns the kind of the failure, as the ledger records it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::QuotaExhausted { .. } => "quota_exhausted",
            Self::ContextOverflow { .. } => "context_overflow",
            Self::Refused { .. } => "refused",
            Self::Server { .. } => "server_error",
            Self::Timeout { .. } => "timeout",
            Self::CutBody => "cut_body",
            Self::Unreachable { .. } => "unreachable",
            Self::Malformed { .. } => "malformed",
            Self::NotInBatch { .. } => "not_in_batch",
            Self::TooLarge { .. } => "too_large",
        }
    }

    /// The failure of a call that a batch did not make.
    pub(crate) fn in_batch(code: &str, message: &str) -> Self {
        let message = match (code, message) {
            ("", "") => "the server gives no reason".to_owned(),
            ("", message) => one_line(message, LONGEST_MESSAGE),
            (code, message) => one_line(&format!("{code}: {message}"), LONGEST_MESSAGE),
        };
        Self::NotInBatch { message }
    }

    /// Classifies a response with an error status. Servers differ in the format of `body`.
    pub(crate) fn of_response(status: u16, body: &str, retry_after: Option<Duration>) -> Self {
        let said = ServerError::read(body);
        let message = said.message.clone();
        match status {
            402 => Self::QuotaExhausted { message },
            429 if said.means_no_money() => Self::QuotaExhausted { message },
            429 => Self::RateLimited { retry_after, message },
            400 | 413 | 422 if said.means_overflow() => Self::ContextOverflow { message },
            408 | 409 | 425 | 500..=599 => Self::Server { status, retry_after, message },
            _ => Self::Refused { status, message },
        }
    }
}

/// The most characters of a server's message that are shown.
const LONGEST_MESSAGE: usize = 400;

/// The body of an error: `{"error": {…}}` (OpenAI, llama.cpp), `{"error": "…"}` (Ollama),
/// `{"object": "error", …}` (vLLM), `{"detail": …}` (FastAPI), or no JSON at all (a proxy).
struct ServerError {
    message: String,
    /// Code and type, in lower case.
    codes: String,
}

impl ServerError {
    fn read(body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let error = json.get("error").filter(|error| !error.is_null()).unwrap_or(&json);
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let field = |name: &str| error.get(name).map(text).unwrap_or_default();
        let message = match error {
            Value::Object(fields) => ["message", "detail"]
                .iter()
                .find_map(|name| fields.get(*name))
                .map_or_else(|| error.to_string(), text),
            Value::Null => body.to_owned(),
            other => text(other),
        };
        let message = one_line(&message, LONGEST_MESSAGE);
        Self { message, codes: format!("{} {}", field("code"), field("type")).to_lowercase() }
    }

    fn means_no_money(&self) -> bool {
        let message = self.message.to_lowercase();
        ["insufficient_quota", "billing_hard_limit", "billing_not_active"]
            .iter()
            .any(|code| self.codes.contains(code))
            || message.contains("exceeded your current quota")
    }

    fn means_overflow(&self) -> bool {
        let message = self.message.to_lowercase();
        ["context_length_exceeded", "exceed_context_size"].iter().any(|code| self.codes.contains(code))
            || ["maximum context length", "context length", "context window", "context size"]
                .iter()
                .any(|words| message.contains(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> &'static str {
        Failure::of_response(status, body, None).kind()
    }

    #[test]
    fn errors_of_all_servers_are_classified() {
        let quota = r#"{"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}}"#;
        let overflow = r#"{"error": {"message": "This model's maximum context length is 8192 tokens.", "type": "invalid_request_error", "code": "context_length_exceeded"}}"#;
        let vllm = r#"{"object": "error", "message": "This model's maximum context length is 4096 tokens", "type": "BadRequestError", "code": 400}"#;
        let llama_cpp = r#"{"error": {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error"}}"#;
        for (status, body, expected) in [
            (
                429,
                r#"{"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}"#,
                "rate_limited",
            ),
            (429, quota, "quota_exhausted"),
            (402, r#"{"error": {"message": "Insufficient credits", "code": 402}}"#, "quota_exhausted"),
            (400, overflow, "context_overflow"),
            (400, vllm, "context_overflow"),
            (400, llama_cpp, "context_overflow"),
            (400, r#"{"error": {"message": "unknown parameter"}}"#, "refused"),
            (401, r#"{"error": {"message": "Incorrect API key provided"}}"#, "refused"),
            (404, r#"{"error": "model 'x' not found"}"#, "refused"),
            (422, r#"{"detail": [{"msg": "field required"}]}"#, "refused"),
            (500, "<html>oops</html>", "server_error"),
            (503, "", "server_error"),
            (529, r#"{"error": {"type": "overloaded_error"}}"#, "server_error"),
        ] {
            assert_eq!(kind(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn messages_are_short_and_printable() {
        let said = |body: &str| Failure::of_response(404, body, None).to_string();
        assert_eq!(said(r#"{"error": "model 'x' not found"}"#), "HTTP status 404: model 'x' not found");
        assert_eq!(said("no JSON"), "HTTP status 404: no JSON");
        assert!(said(&"x".repeat(10_000)).len() < 500);
        assert_eq!(
            said("\u{1b}]0;title\u{7}\n\u{202e}drow"),
            "HTTP status 404: \\u{1b}]0;title\\u{7} \\u{202e}drow"
        );
    }
}
