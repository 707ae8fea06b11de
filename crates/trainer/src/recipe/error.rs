//! Recipe errors and their origin.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// The origin of a key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file or an embedded text.
    File {
        /// Its path or name.
        name: Box<str>,
        /// The line, if known.
        line: Option<usize>,
    },
    /// An override, verbatim.
    Override(String),
    /// Code that built the recipe.
    Code,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line: Some(line) } => write!(f, "{name}:{line}"),
            Self::File { name, line: None } => f.write_str(name),
            Self::Override(text) => write!(f, "--set {text}"),
            Self::Code => f.write_str("recipe"),
        }
    }
}

/// Why a recipe is invalid.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read recipe {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        #[source]
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Its origin.
        origin: Origin,
        /// The parser's message.
        message: String,
    },
    /// An override is not of the form `section.key=value`.
    #[error("--set {text}: {reason}")]
    Override {
        /// The override, verbatim.
        text: String,
        /// Why it is malformed.
        reason: String,
    },
    /// An unknown key.
    #[error("{origin}: unknown key {key}{}; {} {}", suggest(*nearest, |name| sibling(key, name)), takes(key), known.join(", "))]
    UnknownKey {
        /// Its origin.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The most similar key of the same section, if similar enough.
        nearest: Option<&'static str>,
        /// The known keys of that section.
        known: &'static [&'static str],
    },
    /// A required key is missing.
    #[error("{origin}: {key} is missing; add it, or pass --set {key}=...")]
    MissingKey {
        /// The recipe.
        origin: Origin,
        /// The key with its sections.
        key: String,
    },
    /// A value has the wrong type.
    #[error("{origin}: {key} is {found}; expected {expected}")]
    WrongType {
        /// Its origin.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The value.
        found: String,
        /// The expected type.
        expected: String,
    },
    /// A value is not one of the key's variants.
    #[error("{origin}: {key} is {found:?}{}; it takes {}", suggest(*nearest, quoted), all_quoted(known))]
    UnknownValue {
        /// Its origin.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The value.
        found: String,
        /// The most similar variant, if similar enough.
        nearest: Option<&'static str>,
        /// All variants.
        known: &'static [&'static str],
    },
    /// A value is out of range, or conflicts with another key.
    #[error("{origin}: {key} {reason}")]
    Invalid {
        /// Its origin.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// Why it is invalid, and how to fix it.
        reason: String,
    },
    /// A value that this version does not support.
    #[error("{origin}: not supported by this version: {key} = {what}; {way_out}")]
    Unsupported {
        /// Its origin.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The unsupported value.
        what: String,
        /// What to do instead.
        way_out: String,
    },
}

fn suggest(nearest: Option<&str>, written: impl Fn(&str) -> String) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {}?)", written(name)))
}

/// Replaces the last part of `key` by `name`.
fn sibling(key: &str, name: &str) -> String {
    match key.rsplit_once('.') {
        Some((section, _)) => format!("{section}.{name}"),
        None => name.to_owned(),
    }
}

fn takes(key: &str) -> String {
    match key.rsplit_once('.') {
        Some((section, _)) => format!("[{section}] takes"),
        None => "a recipe takes".to_owned(),
    }
}

fn quoted(word: &str) -> String {
    format!("{word:?}")
}

fn all_quoted(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ")
}

/// An error that a check of a section or recipe returns before the key's origin is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub(super) key: Vec<String>,
    kind: ComplaintKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ComplaintKind {
    Invalid { reason: String },
    Unsupported { what: String, way_out: String },
}

impl Complaint {
    /// Creates an error about a value out of range or in conflict with another; `reason` continues after the key: "is
    /// 0; give at least 1".
    pub fn invalid(key: &str, reason: impl Into<String>) -> Self {
        let kind = ComplaintKind::Invalid { reason: reason.into() };
        Self { key: vec![key.to_owned()], kind }
    }

    /// Creates an error about the unsupported value `what`, with an alternative.
    pub fn unsupported(key: &str, what: impl fmt::Display, way_out: impl Into<String>) -> Self {
        let kind = ComplaintKind::Unsupported { what: what.to_string(), way_out: way_out.into() };
        Self { key: vec![key.to_owned()], kind }
    }

    /// Prefixes the key with `section`.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.key.insert(0, section.to_owned());
        self
    }

    /// Returns the key and the reason, without an origin.
    pub(super) fn in_words(&self) -> String {
        let key = self.key.join(".");
        match &self.kind {
            ComplaintKind::Invalid { reason } => format!("{key} {reason}"),
            ComplaintKind::Unsupported { what, way_out } => {
                format!("{key} = {what} is not supported; {way_out}")
            }
        }
    }

    /// Adds the origin.
    pub fn at(self, origin: Origin) -> RecipeError {
        let key = self.key.join(".");
        match self.kind {
            ComplaintKind::Invalid { reason } => RecipeError::Invalid { origin, key, reason },
            ComplaintKind::Unsupported { what, way_out } => {
                RecipeError::Unsupported { origin, key, what, way_out }
            }
        }
    }
}

/// Returns a complaint about `key` unless the condition holds.
pub(super) fn require(holds: bool, key: &str, otherwise: impl Into<String>) -> Result<(), Complaint> {
    if holds { Ok(()) } else { Err(Complaint::invalid(key, otherwise)) }
}

/// Returns a complaint about `key` unless its value is in a range. Infinities and NaN are out of range.
pub(super) fn in_range(
    key: &str,
    value: f64,
    is_in: impl Fn(f64) -> bool,
    range: &str,
) -> Result<(), Complaint> {
    require(value.is_finite() && is_in(value), key, format!("is {value:?}; it must be {range}"))
}
