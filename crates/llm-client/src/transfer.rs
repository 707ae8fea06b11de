//! HTTP with limits: redirects, sizes, time.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Response, Url};

use crate::error::Error;

/// The most redirects of one request.
const MOST_REDIRECTS: usize = 5;

/// A client whose requests fail after `timeout`, which includes receiving the body.
pub(crate) fn http_client(timeout: Duration, redirects: Policy) -> Result<reqwest::Client, Error> {
    // It fails if a provider is already installed, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(timeout).redirect(redirects).build();
    client.map_err(|source| Error::Setup { source: source.into() })
}

/// Follows redirects within one host, for requests that carry a key or a prompt. The response to any other redirect is
/// returned as it is.
pub(crate) fn same_host() -> Policy {
    Policy::custom(|attempt| match attempt.previous().last() {
        Some(from) if may_follow(from, attempt.url()) && attempt.previous().len() <= MOST_REDIRECTS => {
            attempt.follow()
        }
        _ => attempt.stop(),
    })
}

/// Follows redirects to any host, for public files, but none from https to http.
pub(crate) fn never_to_plain_http() -> Policy {
    Policy::custom(|attempt| {
        let downgrade = attempt.previous().iter().any(|from| from.scheme() == "https")
            && attempt.url().scheme() != "https";
        if downgrade || attempt.previous().len() > MOST_REDIRECTS { attempt.stop() } else { attempt.follow() }
    })
}

/// Whether `to` is the same server as `from`, or its https address.
fn may_follow(from: &Url, to: &Url) -> bool {
    let port = |url: &Url| url.port_or_known_default();
    let upgrade = from.scheme() == "http" && to.scheme() == "https";
    from.host_str() == to.host_str() && (upgrade || (from.scheme() == to.scheme() && port(from) == port(to)))
}

/// The host of a plain http address, unless it is this machine.
pub(crate) fn plain_http_host(url: &Url) -> Option<&str> {
    let host = url.host_str().filter(|_| url.scheme() == "http")?;
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_local =
        host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|ip| ip.is_loopback());
    (!is_local).then_some(host)
}

/// A body of limited size.
pub(crate) enum Body {
    Complete(Vec<u8>),
    /// The start of a body that exceeds the limit. The rest is not received.
    Start(Vec<u8>),
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        let (Self::Complete(bytes) | Self::Start(bytes)) = self;
        bytes
    }
}

/// Receives at most `limit` bytes of a body.
pub(crate) async fn read_body(mut response: Response, limit: usize) -> Result<Body, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok(Body::Start(bytes));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body::Complete(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_stay_on_the_host_and_keep_encryption() {
        let follows = |from: &str, to: &str| may_follow(&url(from), &url(to));
        assert!(follows("https://a/v1", "https://a/v2"));
        assert!(follows("http://a/v1", "https://a/v1"));
        for (from, to) in [
            ("https://a/v1", "http://a/v1"),
            ("https://a/v1", "https://b/v1"),
            ("https://a/v1", "https://a.b/v1"),
            ("http://a:8000/v1", "http://a:8001/v1"),
        ] {
            assert!(!follows(from, to), "{from} to {to}");
        }
    }

    #[test]
    fn plain_http_is_fine_on_this_machine_only() {
        for local in ["http://localhost:1", "http://127.0.0.1/v1", "http://[::1]:8", "https://x"] {
            assert_eq!(plain_http_host(&url(local)), None, "{local}");
        }
        assert_eq!(plain_http_host(&url("http://10.0.0.7:8000/v1")), Some("10.0.0.7"));
        assert_eq!(plain_http_host(&url("http://localhost.evil/v1")), Some("localhost.evil"));
    }
}
