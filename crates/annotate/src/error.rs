//! What can go wrong for a whole set; what goes wrong with single records is listed in the report.

use std::io;
use std::path::PathBuf;

use pref_data::DataError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotateError {
    /// The records cannot be read or written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The endpoint cannot be asked, or not any longer.
    #[error(transparent)]
    Client(#[from] llm_client::Error),
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A line of a log is no annotation.
    #[error("{}, line {line}: {source}; give a file that `annotate llm` wrote", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A template lacks something.
    #[error(
        "the prompt's template lacks {missing:?}; it needs {{prompt}}, {{response_a}}, {{response_b}}, [[A]] and [[B]]"
    )]
    Template {
        /// What is missing.
        missing: &'static str,
    },
    /// A record is asked for that is not there.
    #[error("no record has the id `{id}`; check it, or name the record by its number")]
    UnknownRecord {
        /// The identifier.
        id: String,
    },
}

impl AnnotateError {
    /// Whether the user can mend it by saying something else (exit status 2), not by trying again.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Data(error) => !matches!(error, DataError::Io { action: "write", .. }),
            Self::Client(error) => error.is_bad_input(),
            Self::Io { action, .. } => *action == "read",
            Self::Log { .. } | Self::Template { .. } | Self::UnknownRecord { .. } => true,
        }
    }
}
