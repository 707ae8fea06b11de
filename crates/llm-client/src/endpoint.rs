//! Endpoints, and one attempt at a call.

use std::time::{Duration, SystemTime};

use async_openai::{Client, config::Config, error::OpenAIError, middleware::HttpRequestFactory};
use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};

use crate::chat::{ChatRequest, Reply, WireReply};
use crate::error::Error;
use crate::failure::Failure;
use crate::printable::{masked_url, one_line};
use crate::secret::Secret;
use crate::transfer::{Body, http_client, plain_http_host, read_body, same_host};

/// One attempt at a call. [`Endpoint`] makes it over HTTP; tests script theirs.
pub trait Transport: Send + Sync {
    /// Returns the server's address, which is part of a request's key.
    fn address(&self) -> &str;

    /// Makes one attempt.
    fn send<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<Reply, Failure>>;
}

/// A server that speaks OpenAI's chat completions: OpenAI, Azure, vLLM, llama.cpp, Ollama and others.
///
/// ```
/// use std::time::Duration;
///
/// use llm_client::{Endpoint, EndpointKind, Transport};
///
/// let local =
///     Endpoint::new("http://localhost:8000/v1/", EndpointKind::OpenAi, None, Duration::from_secs(120))?;
/// assert_eq!(local.address(), "http://localhost:8000/v1");
/// # Ok::<(), llm_client::Error>(())
/// ```
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    once: Once,
    client: Client<Address>,
}

/// The protocol of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// `BASE/chat/completions`, the key as a bearer token.
    OpenAi,
    /// `BASE/openai/deployments/DEPLOYMENT/chat/completions?api-version=VERSION`, the key in the header `api-key`.
    Azure {
        /// The deployment's name.
        deployment: String,
        /// Such as `2024-10-21`.
        api_version: String,
    },
}

impl Endpoint {
    /// The server at `base_url`. An attempt fails after `timeout`, which includes receiving the answer.
    ///
    /// Redirects are followed only within the host and never from https to http, since key and prompts go with them. A
    /// plain http address of another machine is warned of. The only environment variables read are the system's proxy
    /// settings.
    ///
    /// # Errors
    ///
    /// [`Error::BaseUrl`], [`Error::Setting`], [`Error::Setup`].
    pub fn new(
        base_url: &str,
        kind: EndpointKind,
        key: Option<Secret>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let bad_url = |problem: String| Error::BaseUrl { given: masked_url(base_url), problem };
        let url = reqwest::Url::parse(base_url.trim()).map_err(|error| bad_url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad_url("begin it with http:// or https://".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // The address goes into logs and files.
            return Err(bad_url("keys do not belong in an address".to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad_url("leave out what follows `?` or `#`".to_owned()));
        }
        if timeout.is_zero() {
            return Err(Error::Setting {
                what: "timeout",
                given: "0 s".to_owned(),
                wanted: "more than that",
            });
        }
        if let Some(host) = plain_http_host(&url) {
            tracing::warn!(
                "prompts and key travel to {host} without encryption: use https if the network is shared"
            );
        }
        let http = http_client(timeout, same_host())?;
        let key_text = key.as_ref().map_or_else(|| SecretString::from(""), |key| key.inner().clone());
        let address = Address { base: url.as_str().trim_end_matches('/').to_owned(), kind, key, key_text };
        // The library's own layer repeats calls silently and drops the headers with the wait; ours sends once.
        let once = Once { http, timeout, key: address.key.clone() };
        let client = Client::with_config(address.clone()).with_http_service(once.clone());
        Ok(Self { address, once, client })
    }

    pub(crate) fn kind(&self) -> &EndpointKind {
        &self.address.kind
    }

    /// Returns the address and the service, for requests other than chat completions.
    pub(crate) fn parts(&self) -> (Address, Once) {
        (self.address.clone(), self.once.clone())
    }
}

impl Transport for Endpoint {
    fn address(&self) -> &str {
        &self.address.base
    }

    fn send<'a>(&'a self, request: &'a ChatRequest) -> BoxFuture<'a, Result<Reply, Failure>> {
        Box::pin(async move {
            let body = serde_json::to_value(request.body())
                .map_err(|error| Failure::Refused { status: 0, message: error.to_string() })?;
            let reply: Result<WireReply, OpenAIError> = self.client.chat().create_byot(body).await;
            let malformed = |message: String| Failure::Malformed { message };
            match reply {
                Ok(reply) => reply.into_reply().ok_or_else(|| malformed("it holds no choice".to_owned())),
                Err(OpenAIError::Boxed(error)) => Err(match error.downcast::<Failure>() {
                    Ok(failure) => *failure,
                    Err(other) => malformed(other.to_string()),
                }),
                Err(OpenAIError::JSONDeserialize(error, _)) => Err(malformed(error.to_string())),
                Err(other) => Err(malformed(other.to_string())),
            }
        })
    }
}

/// An address in async-openai's form.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    base: String,
    kind: EndpointKind,
    key: Option<Secret>,
    key_text: SecretString,
}

impl Config for Address {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.key.is_some() {
            let key = self.key_text.expose_secret();
            let (name, value) = match self.kind {
                EndpointKind::OpenAi => (AUTHORIZATION, format!("Bearer {key}")),
                EndpointKind::Azure { .. } => (HeaderName::from_static("api-key"), key.to_owned()),
            };
            let mut value = HeaderValue::from_str(&value).expect("a secret is visible ASCII");
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers
    }

    fn url(&self, path: &str) -> String {
        match &self.kind {
            EndpointKind::OpenAi => format!("{}{path}", self.base),
            EndpointKind::Azure { deployment, .. } => {
                format!("{}/openai/deployments/{deployment}{path}", self.base)
            }
        }
    }

    fn query(&self) -> Vec<(&str, &str)> {
        match &self.kind {
            EndpointKind::OpenAi => Vec::new(),
            EndpointKind::Azure { api_version, .. } => vec![("api-version", api_version)],
        }
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    fn api_key(&self) -> &SecretString {
        &self.key_text
    }
}

/// Sends a request once and reads the complete answer. Anything but a success is a [`Failure`].
#[derive(Clone, Debug)]
pub(crate) struct Once {
    http: reqwest::Client,
    timeout: Duration,
    key: Option<Secret>,
}

impl tower::Service<HttpRequestFactory> for Once {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = BoxFuture<'static, Result<reqwest::Response, OpenAIError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), OpenAIError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let once = self.clone();
        Box::pin(async move {
            let request = request.build().await?;
            once.complete(request).await.map_err(|failure| OpenAIError::Boxed(Box::new(failure)))
        })
    }
}

impl Once {
    /// Sends a request and returns the body of its answer, which has at most `limit` bytes.
    pub(crate) async fn send(&self, request: reqwest::Request, limit: usize) -> Result<Vec<u8>, Failure> {
        let response = self.http.execute(request).await.map_err(|error| self.failure(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_redirection() {
            return Err(self.redirected(status.as_u16(), &headers));
        }
        let body = read_body(response, limit).await.map_err(|error| self.failure(&error))?;
        if !status.is_success() {
            let said = self.scrub(&String::from_utf8_lossy(body.bytes()));
            return Err(Failure::of_response(status.as_u16(), &said, retry_after(&headers)));
        }
        match body {
            Body::Complete(bytes) => Ok(bytes),
            Body::Start(_) => Err(Failure::TooLarge { limit }),
        }
    }

    /// Sends a request for a chat completion.
    async fn complete(&self, request: reqwest::Request) -> Result<reqwest::Response, Failure> {
        let bytes = self.send(request, MOST_BYTES).await?;
        // Without a stated length, only the text itself shows that its end is missing.
        let reply = WireReply::parse(&bytes).map_err(|error| match error.is_eof() {
            true => Failure::CutBody,
            false => Failure::Malformed { message: self.said(&error.to_string()) },
        })?;
        let body = serde_json::to_vec(&reply).expect("a reply has string keys and plain values");
        Ok(http::Response::new(body).into())
    }

    fn redirected(&self, status: u16, headers: &HeaderMap) -> Failure {
        let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("an unknown address");
        let to = masked_url(&self.said(to));
        let message =
            format!("redirected to {to}, which may be another server: key and prompts are not sent there");
        Failure::Refused { status, message }
    }

    /// Classifies an error of the HTTP client.
    fn failure(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::Timeout { limit: self.timeout };
        }
        if error.is_body() || error.is_decode() {
            return Failure::CutBody;
        }
        if error.is_builder() {
            return Failure::Refused { status: 0, message: self.said(&error.to_string()) };
        }
        if error.is_connect() {
            // The innermost cause names the problem.
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            let message = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
            return Failure::Unreachable { message: self.said(&message) };
        }
        // The request was sent, and no complete answer came back.
        Failure::CutBody
    }

    /// A message from outside: short, printable, without the key.
    fn said(&self, text: &str) -> String {
        one_line(&self.scrub(text), LONGEST_MESSAGE)
    }

    fn scrub(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| key.scrub(text))
    }
}

/// The most bytes of an answer.
const MOST_BYTES: usize = 16 << 20;

/// The most characters of a message from outside.
const LONGEST_MESSAGE: usize = 400;

/// The wait that the server requests: `retry-after-ms`, or `retry-after` in seconds or as a date, compared with the server's
/// own date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |value: f64| Duration::try_from_secs_f64(value).ok();
    let milliseconds = text(&HeaderName::from_static("retry-after-ms")).and_then(|ms| ms.parse::<f64>().ok());
    if let Some(wait) = milliseconds.and_then(|ms| seconds(ms / 1e3)) {
        return Some(wait);
    }
    let given = text(&RETRY_AFTER)?;
    if let Ok(value) = given.parse::<f64>() {
        return seconds(value);
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let (until, now): (SystemTime, SystemTime) = (date(given)?, date(text(&DATE)?)?);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(pairs: &[(&'static str, &str)]) -> Option<f64> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        retry_after(&headers).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn the_requested_wait_has_several_formats() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(wait(&[("retry-after", "0.5")]), Some(0.5));
        assert_eq!(wait(&[("retry-after-ms", "250"), ("retry-after", "1")]), Some(0.25));
        let date =
            [("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT"), ("date", "Wed, 21 Oct 2015 07:28:00 GMT")];
        assert_eq!(wait(&date), Some(30.0));
        assert_eq!(wait(&date[..1]), None, "a date is useless without the server's clock");
        for odd in ["", "soon", "-3", "inf", "NaN", "1e400"] {
            assert_eq!(wait(&[("retry-after", odd)]), None, "{odd:?}");
        }
    }

    #[test]
    fn addresses_are_checked_and_show_no_key() {
        let endpoint = |url: &str| {
            let key = Secret::new("sk-hidden").unwrap();
            Endpoint::new(url, EndpointKind::OpenAi, Some(key), Duration::from_secs(1))
        };
        for url in [
            "",
            "localhost:8000",
            "ftp://x",
            "ftp://me:sk-hidden@x",
            "http://sk-hidden@x/v1",
            "http://x/v1?key=sk-hidden",
        ] {
            let error = endpoint(url).unwrap_err();
            assert!(matches!(&error, Error::BaseUrl { .. }), "{url}: {error}");
            assert!(!error.to_string().contains("sk-hidden"), "{error}");
        }
        let shown = format!("{:?}", endpoint("https://api.example/v1").unwrap());
        assert!(!shown.contains("sk-hidden"), "{shown}");
    }

    #[test]
    fn azure_has_its_own_address_and_header() {
        let kind =
            EndpointKind::Azure { deployment: "judge".to_owned(), api_version: "2024-10-21".to_owned() };
        let key = Secret::new("k1").unwrap();
        let azure =
            Endpoint::new("https://me.example", kind, Some(key), Duration::from_secs(1)).unwrap().address;
        assert_eq!(
            azure.url("/chat/completions"),
            "https://me.example/openai/deployments/judge/chat/completions"
        );
        assert_eq!(azure.query(), [("api-version", "2024-10-21")]);
        assert_eq!(azure.headers()["api-key"], "k1");
        assert!(azure.headers()["api-key"].is_sensitive());
    }
}
