//! Keys that never show.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::Error;

/// An API key. It shows as `***` however it is printed, has no serialisation, and its memory is wiped when it is dropped.
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

/// What stands in a secret's place.
const MASK: &str = "***";

impl Secret {
    /// A key as it is sent in a header: visible ASCII without spaces. White space around it is dropped.
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

    /// The key in environment variable `variable`.
    ///
    /// # Errors
    ///
    /// [`Error::Secret`] where the variable is not set or holds no key.
    pub fn from_env(variable: &str) -> Result<Self, Error> {
        let bad = || Error::Secret { variable: Some(variable.to_owned()) };
        let key = std::env::var(variable).map_err(|_| bad())?;
        Self::new(&key).map_err(|_| bad())
    }

    /// `text` with every occurrence of the key masked: servers like to repeat what they were sent.
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
    fn what_cannot_be_a_header_is_no_key() {
        for key in ["", "  ", "two words", "line\nbreak", "ключ"] {
            let error = Secret::new(key).unwrap_err().to_string();
            assert!(key.trim().is_empty() || !error.contains(key), "{error}");
        }
        assert!(Secret::new(" sk-1\n").is_ok(), "a file's last line break is forgiven");
        let unset = Secret::from_env("LLM_CLIENT_NO_SUCH_VARIABLE").unwrap_err().to_string();
        assert!(unset.contains("LLM_CLIENT_NO_SUCH_VARIABLE"), "{unset}");
    }
}
