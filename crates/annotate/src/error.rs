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
    /// A file of prompts cannot be read.
    #[error("not a file of prompts, which has lines with a field `prompt`")]
    Prompts(#[source] files::json_lines::JsonLinesError),
    /// An identifier occurs twice.
    #[error("two {what} have the id `{id}`; give each its own")]
    RepeatedId {
        /// The identifier.
        id: String,
        /// The things with ids.
        what: &'static str,
    },
    /// Two files do not belong together.
    #[error("record `{id}` {problem}; use the files of one run")]
    Misaligned {
        /// The record's identifier.
        id: String,
        /// The problem.
        problem: &'static str,
    },
    /// A prompt is no dialogue that ends with the user's turn.
    #[error(
        "prompt `{id}`: user and assistant do not alternate up to a last message of the user; correct its messages"
    )]
    NotADialogue {
        /// The prompt's identifier.
        id: String,
    },
    /// A part of a prompt would not reach the policies.
    #[error("prompt `{id}` has {part}, which no policy would see; put it into the text, or remove it")]
    PartOfPrompt {
        /// The prompt's identifier.
        id: String,
        /// The part.
        part: String,
    },
    /// The policies make no candidates.
    #[error("{problem}; give two policies with names of their own, or several samples of one")]
    Policies {
        /// The mistake.
        problem: String,
    },
    /// A log has verdicts on pairs instead of ratings.
    #[error("the log has no ratings; label the candidates with `annotate llm --aspects`")]
    NotRated,
    /// A template is incomplete.
    #[error(
        "the prompt template has no {missing:?}; it needs {{prompt}}, {{response_a}}, {{response_b}}, [[A]] and [[B]]"
    )]
    Template {
        /// The missing part.
        missing: &'static str,
    },
    /// No built-in aspect has the name.
    #[error("no aspect is built in as `{name}`; give one of {known}, or a file of aspects")]
    UnknownAspect {
        /// The name.
        name: String,
        /// The built-in names.
        known: String,
    },
    /// A file of aspects is invalid.
    #[error("{}: {problem}; a file of aspects has tables [[aspects]] with name and rubric", path.display())]
    AspectFile {
        /// The file.
        path: PathBuf,
        /// The mistake.
        problem: String,
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
            Self::Log(_)
            | Self::Prompts(_)
            | Self::RepeatedId { .. }
            | Self::Misaligned { .. }
            | Self::NotADialogue { .. }
            | Self::PartOfPrompt { .. }
            | Self::Policies { .. }
            | Self::NotRated
            | Self::Template { .. }
            | Self::UnknownAspect { .. }
            | Self::AspectFile { .. }
            | Self::UnknownRecord { .. } => true,
        }
    }
}
