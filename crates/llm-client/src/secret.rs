//! API keys that are never printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::error::Error;

/// An API key. It prints as `***`, has no serialization, and its memory is wiped on drop.
///
/// ```
/// use llm_client::Secret;
///
/// let key = Secret::new("sk-very-secret")?;
/// assert_eq!(format!("{key} {key:?}"), "*** Secret(***)");
/// assert_eq!(key.scrub("no such key: sk-very-secret"), "no such key: ***");
/// # Ok::<(), llm_client::Error>(())
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

/// The printed form of a key.
const MASK: &str = "***";

impl Secret {
    /// A key for a header: visible ASCII without spaces. Surrounding white space is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Secret`].
    pub fn new(key: &str) -> Result<Self, Error> {
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Secret { variable: None });
        }
        Ok(Self(SecretString::from(key)))
    }

    /// Reads the key from the environment variable `variable`.
    ///
    /// # Errors
    ///
    /// [`Error::Secret`] if the variable is not set or holds no key.
    pub fn from_env(variable: &str) -> Result<Self, Error> {
        let bad = || Error::Secret { variable: Some(variable.to_owned()) };
        let key = std::env::var(variable).map_err(|_| bad())?;
        Self::new(&key).map_err(|_| bad())
    }

    /// Masks every occurrence of the key in `text`: servers repeat what they received.
    pub fn scrub(&self, text: &str) -> String {
        text.replace(self.0.expose_secret(), MASK)
    }

    pub(crate) fn inner(&self) -> &SecretString {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({MASK})")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_valid_header() {
        for key in ["", "  ", "two words", "line\nbreak", "ключ"] {
            let error = Secret::new(key).unwrap_err().to_string();
            assert!(key.trim().is_empty() || !error.contains(key), "{error}");
        }
        assert!(Secret::new(" sk-1\n").is_ok(), "the last line break of a file is dropped");
        let unset = Secret::from_env("LLM_CLIENT_NO_SUCH_VARIABLE").unwrap_err().to_string();
        assert!(unset.contains("LLM_CLIENT_NO_SUCH_VARIABLE"), "{unset}");
    }
}
