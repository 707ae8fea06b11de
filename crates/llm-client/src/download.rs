//! A file over HTTP, for programs that have this client anyway.

use std::time::Duration;

use crate::endpoint::http_client;
use crate::{Error, Failure};

/// The text at `url`. Redirects are followed; there is one attempt.
///
/// # Errors
///
/// [`Error::Call`] where there is no such text, [`Error::Setup`].
pub fn download(url: &str, timeout: Duration) -> Result<String, Error> {
    let http = http_client(timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Setup { source: source.into() })?;
    let fetched = runtime.block_on(async {
        let unreachable = |error: reqwest::Error| Failure::Unreachable { message: error.to_string() };
        let response = http.get(url).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(|_| Failure::CutBody)?;
        let text = String::from_utf8(body.to_vec())
            .map_err(|error| Failure::Malformed { message: error.to_string() })?;
        if status.is_success() { Ok(text) } else { Err(Failure::of_response(status.as_u16(), &text, None)) }
    });
    fetched.map_err(|source| Error::Call { model: url.to_owned(), attempts: 1, source })
}
