//! Downloads of public files.

use std::time::Duration;

use reqwest::redirect::Policy;

use crate::error::Error;
use crate::failure::Failure;
use crate::printable::masked_url;
use crate::transfer::{Body, http_client, never_to_plain_http, read_body};

/// The most bytes of a file.
const MOST_BYTES: usize = 256 << 20;

/// Downloads the text at `url`, in one attempt. Redirects are followed, but not from https to http.
///
/// # Errors
///
/// [`Error::Call`] if there is no such text, [`Error::Setup`].
pub fn download(url: &str, timeout: Duration) -> Result<String, Error> {
    let redirects: Policy = never_to_plain_http();
    let http = http_client(timeout, redirects)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Setup { source: source.into() })?;
    let fetched = runtime.block_on(async {
        // The address of an error may hold a password.
        let unreachable =
            |error: reqwest::Error| Failure::Unreachable { message: error.without_url().to_string() };
        let response = http.get(url).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = read_body(response, MOST_BYTES).await.map_err(|_| Failure::CutBody)?;
        if !status.is_success() {
            let said = String::from_utf8_lossy(body.bytes());
            return Err(Failure::of_response(status.as_u16(), &said, None));
        }
        let Body::Complete(bytes) = body else { return Err(Failure::TooLarge { limit: MOST_BYTES }) };
        String::from_utf8(bytes).map_err(|error| Failure::Malformed { message: error.to_string() })
    });
    fetched.map_err(|source| Error::Call { model: masked_url(url), attempts: 1, source })
}
