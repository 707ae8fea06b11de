//! Errors, with their remedies.

use std::io;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The two models answered different questions.
    #[error("question {question}: {problem}; compare files that answer the same questions")]
    NotComparable {
        /// The question's id.
        question: String,
        /// The mistake.
        problem: String,
    },
    /// There is nothing to compare.
    #[error("no question is answered by both files")]
    NothingToCompare,
    /// Raters' names that are too similar, or cannot name a file.
    #[error("rater {name:?}: {problem}")]
    Rater {
        /// The name.
        name: String,
        /// The mistake.
        problem: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}; check that the folder is writable and has space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A row of a CSV file is invalid.
    #[error("{}, line {line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// The mistake and its remedy.
        problem: String,
    },
    /// A key file is invalid.
    #[error("{} is not the key of a study: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The mistake.
        problem: String,
    },
    /// A rater's file does not belong to the study.
    #[error("{}: {problem}", path.display())]
    Sheet {
        /// The file.
        path: PathBuf,
        /// The mismatch.
        problem: String,
    },
    /// No ratings.
    #[error("there are no ratings")]
    NoRatings,
    /// A statistic cannot be computed.
    #[error("cannot compute {what}")]
    Stats {
        /// The statistic.
        what: &'static str,
        /// The error of the computation.
        #[source]
        source: stats::Error,
    },
    /// Answers or questions cannot be read.
    #[error(transparent)]
    Bench(#[from] mtbench::Error),
}

impl Error {
    /// Returns whether the error is in the input (exit status 2).
    pub fn is_bad_input(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}
