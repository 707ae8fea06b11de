//! Parquet files of scores and of policies.
//!
//! Writes are atomic, and the same rows give the same bytes.

mod columns;
mod parquet_file;
mod policies;

use std::io;
use std::path::PathBuf;

use parquet::errors::ParquetError;

pub use parquet_file::{read_parquet, write_parquet};
pub use policies::{PolicyRow, write_policies};

/// One score of one turn, with the properties of its cell.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The cell's address.
    pub cell: String,
    /// The source of the labels; empty for the SFT policy.
    pub annotator: String,
    /// The records on which two annotators agree (`A = B`) or differ (`A != B`); empty for all.
    pub slice: String,
    /// The loss: `sft`, `dpo`, `cdpo`, `ipo`, …
    pub loss: String,
    /// The loss's β.
    pub beta: f64,
    /// Label smoothing of cDPO.
    pub label_smoothing: f64,
    /// IPO's reduction of log-probabilities, `sum` or `mean`; empty for other losses.
    pub logp_reduction: String,
    /// Share of the preference data used, in (0, 1].
    pub fraction: f64,
    /// Share of flipped labels, in [0, 1].
    pub flip_rate: f64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Epochs of the whole training; 0 for the SFT policy.
    pub epochs: u64,
    /// The cell's seed.
    pub seed: u64,
    /// Optimizer steps so far.
    pub step: u64,
    /// Share of training so far, in [0, 1]; 0 for the SFT policy.
    pub progress: f64,
    /// The index of the sampled answer.
    pub sample: u64,
    /// The question set.
    pub question_set: String,
    /// The question's id in its set.
    pub question_id: u64,
    /// The question's category.
    pub category: String,
    /// The turn, from 1.
    pub turn: u8,
    /// The scorer: a judge's name, or `gold`.
    pub scorer: String,
    /// The score in [1, 10]; `None` without a rating.
    pub score: Option<f64>,
    /// Length of the answer, in characters.
    pub characters: u64,
}

/// Why a file of results cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// An error of the file system.
    #[error("cannot {action} {}; check that the folder exists, is writable and has space", path.display())]
    Io {
        /// The operation: `read` or `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The file is not a parquet file, or is damaged.
    #[error("cannot {action} {} as parquet; if it is damaged, delete it and run the study again", path.display())]
    Parquet {
        /// The operation: `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the parquet library.
        #[source]
        source: ParquetError,
    },
    /// A column is missing.
    #[error("{} has no column {column:?}; it was not written as results of a study", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A column has another type.
    #[error("column {column:?} of {} holds {found}, expected {expected}", path.display())]
    ColumnKind {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The expected type.
        expected: String,
        /// The type in the file.
        found: String,
    },
    /// A required value is null.
    #[error("row {row} of {} has no {column}", path.display())]
    NullValue {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The row, from 0.
        row: usize,
    },
}
