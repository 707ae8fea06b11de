//! Errors, with their remedies.

use std::io;
use std::path::PathBuf;

use crate::place::Place;

/// Why scores cannot be read or compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// A file is no parquet file.
    #[error("cannot read {} as parquet", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The error of the parquet library.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A file has no scores in a known form.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The mistake and its remedy.
        problem: String,
    },
    /// A row is invalid.
    #[error("{}, {place}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line or row.
        place: Place,
        /// The mistake and its remedy.
        problem: String,
    },
    /// An argument is invalid.
    #[error("{0}")]
    Argument(String),
    /// The arms cannot be compared.
    #[error("cannot compare the arms: {0}")]
    Incomparable(String),
    /// A statistic is not defined.
    #[error("cannot compute {what}")]
    Stats {
        /// The statistic.
        what: &'static str,
        /// The error of the computation.
        #[source]
        source: stats::Error,
    },
}

impl Error {
    /// Returns a conversion of statistics' errors.
    pub(crate) fn stats(what: &'static str) -> impl FnOnce(stats::Error) -> Self {
        move |source| Self::Stats { what, source }
    }
}
