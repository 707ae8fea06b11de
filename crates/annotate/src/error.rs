//! Errors that concern a whole set. The report lists those of single records.

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
    /// A call to the endpoint fails.
    #[error(transparent)]
    Client(#[from] llm_client::Error),
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action: "read" or "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// A log cannot be read.
    #[error("not a log of `annotate llm`")]
    Log(#[from] files::json_lines::JsonLinesError),
    /// A template is incomplete.
    #[error(
        "the prompt template has no {missing:?}; it needs {{prompt}}, {{response_a}}, {{response_b}}, [[A]] and [[B]]"
    )]
    Template {
        /// The missing part.
        missing: &'static str,
    },
    /// No record has the identifier.
    #[error("no record has the id `{id}`; check it, or name the record by its number")]
    UnknownRecord {
        /// The identifier.
        id: String,
    },
}

impl AnnotateError {
    /// Returns whether other input would help (exit status 2), and not another try.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Data(error) => !matches!(error, DataError::Io { action: "write", .. }),
            Self::Client(error) => error.is_bad_input(),
            Self::Io { action, .. } => *action == "read",
            Self::Log(_) | Self::Template { .. } | Self::UnknownRecord { .. } => true,
        }
    }
}
