//! Every score of a study in one parquet file, and what was measured of its policies in another.
//!
//! Each is written beside its name and renamed, so a reader sees the old one or the new one. The same rows give the same
//! bytes.

mod columns;
mod parquet_file;
mod policies;

use std::io;
use std::path::PathBuf;

use parquet::errors::ParquetError;

pub use parquet_file::{read_parquet, write_parquet};
pub use policies::{PolicyRow, write_policies};

/// One score of one turn, with everything that tells its cell from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The cell's address, a hash of everything that determines it.
    pub cell: String,
    /// Whose preferences the policy was trained on; empty for the SFT policy.
    pub annotator: String,
    /// The records that were kept: those on which two annotators agree (`A = B`) or differ (`A != B`); empty for all.
    pub slice: String,
    /// The loss: `sft`, `dpo`, `cdpo`, `ipo`, …
    pub loss: String,
    /// Strength of the pull towards the reference.
    pub beta: f64,
    /// Label smoothing of cDPO.
    pub label_smoothing: f64,
    /// Share of the preference data used, in (0, 1].
    pub fraction: f64,
    /// Share of the labels flipped, in [0, 1].
    pub flip_rate: f64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Passes over the pairs that its training takes in all; 0 for the SFT policy.
    pub epochs: u64,
    /// The cell's seed.
    pub seed: u64,
    /// Optimiser steps taken.
    pub step: u64,
    /// Share of training done, in [0, 1]; 0 for the SFT policy.
    pub progress: f64,
    /// Which questions were asked.
    pub question_set: String,
    /// The question within its set.
    pub question_id: u64,
    /// The question's category.
    pub category: String,
    /// The turn, from 1.
    pub turn: u8,
    /// Who scored: a judge's name, or `gold`.
    pub scorer: String,
    /// The score in [1, 10]; none where the scorer gave no readable one.
    pub score: Option<f64>,
    /// How long the answer is.
    pub characters: u64,
}

/// What can go wrong when a file of scores is written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultsError {
    /// The file system said no.
    #[error("cannot {action} {}; check that the folder exists, is writable and has space", path.display())]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A file that is no parquet file, or is damaged.
    #[error("cannot {action} {} as parquet; if it is damaged, delete it and run the study again", path.display())]
    Parquet {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The parquet library's answer.
        #[source]
        source: ParquetError,
    },
    /// A parquet file without a column that results have.
    #[error("{} has no column {column:?}; it was not written as results of a study", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A column of another kind than results have.
    #[error("column {column:?} of {} holds {found}, expected {expected}", path.display())]
    ColumnKind {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// What results have there.
        expected: String,
        /// What the file has there.
        found: String,
    },
    /// A null where results always have a value.
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
