//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The two models did not answer the same questions.
    #[error("question {question}: {problem}; compare files that answer the same questions")]
    NotComparable {
        /// The question.
        question: u64,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to compare.
    #[error("no question is answered by both files")]
    NothingToCompare,
    /// Raters' names that cannot be told apart, or cannot name a file.
    #[error("rater {name:?}: {problem}")]
    Rater {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}; check that the folder is writable and has space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file is no table.
    #[error("{}, line {line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The key is no key.
    #[error("{} is no key of a study: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A rater's file does not belong to the study.
    #[error("{}: {problem}", path.display())]
    Sheet {
        /// The file.
        path: PathBuf,
        /// What does not match.
        problem: String,
    },
    /// No ratings.
    #[error("there are no ratings")]
    NoRatings,
    /// A number could not be computed.
    #[error("cannot compute {what}")]
    Stats {
        /// What.
        what: &'static str,
        /// Why not.
        #[source]
        source: stats::Error,
    },
    /// The answers or questions could not be read.
    #[error(transparent)]
    Bench(#[from] mtbench::Error),
}

impl Error {
    /// Whether the input is to blame, rather than the system.
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}
