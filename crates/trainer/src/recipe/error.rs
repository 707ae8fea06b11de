//! What can be wrong with a recipe, and where.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a key of a recipe was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file or an embedded text.
    File {
        /// Its path or name.
        name: Box<str>,
        /// The line, where there is one to point at.
        line: Option<usize>,
    },
    /// In an override, as it was given.
    Override(String),
    /// In code, by whoever built the recipe.
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

/// What can be wrong with a recipe.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read recipe {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The text is no TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// The parser's words.
        message: String,
    },
    /// An override is not of the form `section.key=value`.
    #[error("--set {text}: {reason}")]
    Override {
        /// The override as it was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such key.
    #[error("{origin}: unknown key {key}{}; {} {}", suggest(*nearest, |name| beside(key, name)), takes(key), known.join(", "))]
    UnknownKey {
        /// Where it was set.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// The key of the same section that is spelt most alike, if any is.
        nearest: Option<&'static str>,
        /// The keys of that section.
        known: &'static [&'static str],
    },
    /// A key without a default is not set.
    #[error("{origin}: {key} is missing; add it, or pass --set {key}=...")]
    MissingKey {
        /// The recipe.
        origin: Origin,
        /// The key with its sections.
        key: String,
    },
    /// A value is of another type.
    #[error("{origin}: {key} is {found}; expected {expected}")]
    WrongType {
        /// Where it was set.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// What was given.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A value is none of the words that its key takes.
    #[error("{origin}: {key} is {found:?}{}; it takes {}", suggest(*nearest, quoted), all_quoted(known))]
    UnknownValue {
        /// Where it was set.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// What was given.
        found: String,
        /// The known word that is spelt most alike, if any is.
        nearest: Option<&'static str>,
        /// All words.
        known: &'static [&'static str],
    },
    /// A value is out of range, or contradicts another.
    #[error("{origin}: {key} {reason}")]
    Invalid {
        /// Where it was set.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// What is wrong and what would do.
        reason: String,
    },
    /// A value asks for something that this version cannot do.
    #[error("{origin}: not supported by this version: {key} = {what}; {way_out}")]
    Unsupported {
        /// Where it was set.
        origin: Origin,
        /// The key with its sections.
        key: String,
        /// What was asked for.
        what: String,
        /// What to do instead.
        way_out: String,
    },
}

fn suggest(nearest: Option<&str>, written: impl Fn(&str) -> String) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {}?)", written(name)))
}

/// `name` in the section of `key`.
fn beside(key: &str, name: &str) -> String {
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

/// What a check of a section or of a whole recipe found, before it is known where the key was set.
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
    /// A value that is out of range or contradicts another; `reason` goes on from the key: "is 0; give at least 1".
    pub fn invalid(key: &str, reason: impl Into<String>) -> Self {
        let kind = ComplaintKind::Invalid { reason: reason.into() };
        Self { key: vec![key.to_owned()], kind }
    }

    /// A value that asks for `what`, which this version cannot do, and what to do instead.
    pub fn unsupported(key: &str, what: impl fmt::Display, way_out: impl Into<String>) -> Self {
        let kind = ComplaintKind::Unsupported { what: what.to_string(), way_out: way_out.into() };
        Self { key: vec![key.to_owned()], kind }
    }

    /// The same about a key of `section`.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.key.insert(0, section.to_owned());
        self
    }

    /// The error, now that the origin is known.
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
