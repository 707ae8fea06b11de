//! The Batch API of OpenAI-compatible servers: files and batches.

use std::collections::BTreeMap;
use std::time::Duration;

use async_openai::config::Config as _;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cache::RequestKey;
use crate::chat::{ChatRequest, Reply, WireReply};
use crate::endpoint::{Address, Endpoint, EndpointKind, Once};
use crate::error::Error;
use crate::failure::Failure;

/// The server's path of a chat completion, which each line of a batch names.
const COMPLETIONS: &str = "/v1/chat/completions";

/// The only window that servers accept: a batch ends within a day.
const WINDOW: &str = "24h";

/// The most bytes of a batch's input file.
pub(crate) const MOST_INPUT_BYTES: usize = 200_000_000;

/// The most bytes of a batch's results.
const MOST_RESULT_BYTES: usize = 4 << 30;

/// The most bytes of any other answer.
const MOST_ANSWER_BYTES: usize = 16 << 20;

/// The time limit of an upload or a download.
const TRANSFER: Duration = Duration::from_secs(15 * 60);

/// Calls to the Batch API of a server. [`Endpoint::batches`] returns it.
#[derive(Clone, Debug)]
pub struct BatchApi {
    address: Address,
    once: Once,
}

/// A batch, as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) input_file_id: String,
    #[serde(default)]
    pub(crate) output_file_id: Option<String>,
    #[serde(default)]
    pub(crate) error_file_id: Option<String>,
    #[serde(default)]
    pub(crate) errors: Option<BatchErrors>,
    #[serde(default)]
    pub(crate) request_counts: Option<RequestCounts>,
}

/// Why a batch failed its validation.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct BatchErrors {
    #[serde(default)]
    data: Vec<BatchError>,
}

#[derive(Clone, Debug, Deserialize)]
struct BatchError {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    line: Option<u64>,
}

/// The progress of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RequestCounts {
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) completed: u64,
    #[serde(default)]
    pub(crate) failed: u64,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
struct BatchList {
    data: Vec<Batch>,
    #[serde(default)]
    has_more: bool,
}

/// A line of an output file or an error file.
#[derive(Deserialize)]
struct OutputLine {
    custom_id: String,
    #[serde(default)]
    response: Option<OutputResponse>,
    #[serde(default)]
    error: Option<OutputError>,
}

#[derive(Deserialize)]
struct OutputResponse {
    status_code: u16,
    #[serde(default)]
    body: Value,
}

#[derive(Deserialize)]
struct OutputError {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// The outcomes of a batch, by the key of the request.
pub(crate) type Outcomes = BTreeMap<RequestKey, Result<Reply, Failure>>;

impl Batch {
    /// Whether the status is final.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "expired" | "cancelled" | "failed")
    }

    /// Why the validation failed, in one line.
    pub(crate) fn problem(&self) -> String {
        let errors = self.errors.as_ref().map_or(&[][..], |errors| &errors.data);
        let text = |error: &BatchError| {
            let line = error.line.map_or_else(String::new, |line| format!("line {line}: "));
            let code = error.code.as_deref().map_or_else(String::new, |code| format!(" ({code})"));
            format!("{line}{}{code}", error.message.as_deref().unwrap_or("no message"))
        };
        let shown: Vec<String> = errors.iter().take(3).map(text).collect();
        if shown.is_empty() { "the server gives no reason".to_owned() } else { shown.join("; ") }
    }
}

impl Endpoint {
    /// Returns the server's Batch API.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for Azure, whose batches have another protocol.
    pub fn batches(&self) -> Result<BatchApi, Error> {
        if matches!(self.kind(), EndpointKind::Azure { .. }) {
            let (given, wanted) =
                ("Azure's deployments".to_owned(), "the base URL of Azure's v1 API, which needs none");
            return Err(Error::Setting { what: "the endpoint of a batch", given, wanted });
        }
        let (address, once) = self.parts();
        Ok(BatchApi { address, once })
    }
}

/// Returns the line of `request` in an input file.
pub(crate) fn input_line(key: &RequestKey, request: &ChatRequest) -> String {
    let line = json!({
        "custom_id": key.as_str(), "method": "POST", "url": COMPLETIONS, "body": request.body(),
    });
    format!("{line}\n")
}

impl BatchApi {
    /// Uploads an input file and returns its id.
    pub(crate) async fn upload(&self, name: &str, lines: &str) -> Result<String, Failure> {
        // The digest of the lines is not among them.
        let boundary = format!("batch-{}", blake3::hash(lines.as_bytes()).to_hex());
        let body = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
             --{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             content-type: application/jsonl\r\n\r\n{lines}\r\n--{boundary}--\r\n"
        );
        let mut request = self.request(Method::POST, "/files")?;
        let kind = format!("multipart/form-data; boundary={boundary}");
        let kind = HeaderValue::from_str(&kind).expect("a digest is visible ASCII");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        *request.body_mut() = Some(body.into());
        *request.timeout_mut() = Some(TRANSFER);
        Ok(self.json::<Id>(request).await?.id)
    }

    /// Creates a batch of an uploaded file.
    pub(crate) async fn create(&self, file: &str) -> Result<Batch, Failure> {
        let mut request = self.request(Method::POST, "/batches")?;
        let body = json!({"input_file_id": file, "endpoint": COMPLETIONS, "completion_window": WINDOW});
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
        self.json(request).await
    }

    /// Finds the batch of an uploaded file among all batches of the account.
    pub(crate) async fn find(&self, file: &str) -> Result<Option<Batch>, Failure> {
        let mut after = String::new();
        loop {
            let path = format!("/batches?limit=100{after}");
            let BatchList { data, has_more } = self.json(self.request(Method::GET, &path)?).await?;
            let last = data.last().map(|batch| batch.id.clone());
            if let Some(batch) = data.into_iter().find(|batch| batch.input_file_id == file) {
                return Ok(Some(batch));
            }
            match last {
                Some(last) if has_more => after = format!("&after={last}"),
                _ => return Ok(None),
            }
        }
    }

    /// Returns a batch in its current state.
    pub(crate) async fn get(&self, id: &str) -> Result<Batch, Failure> {
        self.json(self.request(Method::GET, &format!("/batches/{id}"))?).await
    }

    /// Downloads the results of an ended batch: its output file and its error file, in any order of lines.
    ///
    /// A line that cannot be read is left out with a warning. The first line of a request counts.
    pub(crate) async fn results(&self, batch: &Batch) -> Result<Outcomes, Failure> {
        let mut outcomes = Outcomes::new();
        for file in [&batch.output_file_id, &batch.error_file_id].into_iter().flatten() {
            let mut request = self.request(Method::GET, &format!("/files/{file}/content"))?;
            *request.timeout_mut() = Some(TRANSFER);
            let bytes = self.once.send(request, MOST_RESULT_BYTES).await?;
            for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                match outcome(line) {
                    Some((key, outcome)) => {
                        outcomes.entry(key).or_insert(outcome);
                    }
                    None => tracing::warn!("line {number} of the results {file} is no result of a request"),
                }
            }
        }
        Ok(outcomes)
    }

    fn request(&self, method: Method, path: &str) -> Result<reqwest::Request, Failure> {
        let refused = |error: &dyn ToString| Failure::Refused { status: 0, message: error.to_string() };
        let url = self.address.url(path).parse().map_err(|error| refused(&error))?;
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = self.address.headers();
        Ok(request)
    }

    async fn json<T: DeserializeOwned>(&self, request: reqwest::Request) -> Result<T, Failure> {
        let bytes = self.once.send(request, MOST_ANSWER_BYTES).await?;
        serde_json::from_slice(&bytes).map_err(|error| match error.is_eof() {
            true => Failure::CutBody,
            false => Failure::Malformed { message: error.to_string() },
        })
    }
}

/// The request of a line of results, and its outcome; `None` for a line that names no request of ours.
fn outcome(line: &[u8]) -> Option<(RequestKey, Result<Reply, Failure>)> {
    let OutputLine { custom_id, response, error } = serde_json::from_slice(line).ok()?;
    let key = RequestKey::from_digits(&custom_id)?;
    let malformed = |message: &str| Failure::Malformed { message: message.to_owned() };
    let outcome = match (response, error) {
        (Some(OutputResponse { status_code: 200..=299, body }), _) => {
            WireReply::parse(body.to_string().as_bytes())
                .map_err(|error| malformed(&error.to_string()))
                .and_then(|reply| reply.into_reply().ok_or_else(|| malformed("it holds no choice")))
        }
        (Some(OutputResponse { status_code, body }), _) => {
            Err(Failure::of_response(status_code, &body.to_string(), None))
        }
        (None, error) => {
            let text = |text: Option<String>| text.unwrap_or_default();
            let (code, message) =
                error.map_or_else(Default::default, |error| (text(error.code), text(error.message)));
            Err(Failure::in_batch(&code, &message))
        }
    };
    Some((key, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_results_are_distinguished() {
        let key = "a".repeat(64);
        let read = |rest: &str| {
            outcome(format!(r#"{{"id": "r", "custom_id": "{key}"{rest}}}"#).as_bytes()).unwrap().1
        };
        let answered = r#", "response": {"status_code": 200, "body": {"choices": [{"message": {"content": "7"}}]}}, "error": null"#;
        assert_eq!(read(answered).unwrap().text, "7");
        for (rest, kind, is_transient) in [
            (
                r#", "response": {"status_code": 429, "body": {"error": {"message": "slow"}}}"#,
                "rate_limited",
                true,
            ),
            (
                r#", "response": {"status_code": 400, "body": {"error": {"message": "bad"}}}"#,
                "refused",
                false,
            ),
            (
                r#", "response": null, "error": {"code": "batch_expired", "message": "late"}"#,
                "not_in_batch",
                true,
            ),
            (r#", "response": {"status_code": 200, "body": {"choices": []}}"#, "malformed", true),
            ("", "not_in_batch", true),
        ] {
            let failure = read(rest).unwrap_err();
            assert_eq!((failure.kind(), failure.is_transient()), (kind, is_transient), "{rest}");
        }
        for other in ["", "{", "[]", r#"{"custom_id": "request-1"}"#] {
            assert!(outcome(other.as_bytes()).is_none(), "{other}");
        }
    }
}
