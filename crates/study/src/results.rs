//! What a study leaves on disk: every score in one parquet file, tables, figures, a report.
//!
//! Every file is written beside its name and renamed, so a reader sees the old one or the new one. The same rows give
//! the same bytes.

mod parquet_file;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use parquet::errors::ParquetError;

use crate::figure::Svg;
use crate::report::Report;
use crate::table::{Format, Table};

pub use parquet_file::{read_parquet, write_parquet};

/// One score of one turn, with everything that tells its cell from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The cell's address, a hash of everything that determines it.
    pub cell: String,
    /// Whose preferences the policy was trained on; empty for the SFT policy.
    pub annotator: String,
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
}

/// What can go wrong when results are rendered, written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// A format that no table has.
    #[error("unknown format {given:?}; use one of text, md, csv, tex, json")]
    UnknownFormat {
        /// The name as it was given.
        given: String,
    },
    /// An id or a name that cannot be a file's name.
    #[error("{name:?} cannot name a file; use letters, digits, `-`, `_` and `.`, not starting with `.`")]
    FileName {
        /// The id or name.
        name: String,
    },
    /// Two tables or figures that would be written to one file.
    #[error("{name:?} names two files of one kind; give each its own")]
    SameName {
        /// The id or name.
        name: String,
    },
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

/// Writes `tables/ID.md`, `tables/ID.csv` and `tables/ID.tex` below `dir` for every table.
///
/// # Errors
/// [`RenderError::FileName`] or [`RenderError::SameName`] before anything is written, [`RenderError::Io`] afterwards.
pub fn write_tables(dir: &Path, tables: &[Table]) -> Result<(), RenderError> {
    check_names(tables.iter().map(|table| table.id.as_str()))?;
    let dir = create_dir(dir.join("tables"))?;
    for table in tables {
        for format in [Format::Markdown, Format::Csv, Format::Latex] {
            let path = dir.join(format!("{}.{format}", table.id));
            write_file(&path, table.render(format).as_bytes())?;
        }
    }
    Ok(())
}

/// Writes `figures/NAME.svg` below `dir` for every figure.
///
/// # Errors
/// [`RenderError::FileName`] or [`RenderError::SameName`] before anything is written, [`RenderError::Io`] afterwards.
pub fn write_figures(dir: &Path, figures: &[(String, Svg)]) -> Result<(), RenderError> {
    check_names(figures.iter().map(|(name, _)| name.as_str()))?;
    let dir = create_dir(dir.join("figures"))?;
    for (name, svg) in figures {
        write_file(&dir.join(format!("{name}.svg")), svg.as_str().as_bytes())?;
    }
    Ok(())
}

/// Writes `report.html` into `dir` and returns its path.
///
/// # Errors
/// [`RenderError::Io`].
pub fn write_report(dir: &Path, report: &Report) -> Result<PathBuf, RenderError> {
    let path = create_dir(dir.to_owned())?.join("report.html");
    write_file(&path, report.to_html().as_bytes())?;
    Ok(path)
}

/// Writes a whole file or leaves the old one.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RenderError> {
    let write = || {
        let mut file = AtomicWriteFile::open(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    write().map_err(|source| RenderError::Io { action: "write", path: path.to_owned(), source })
}

fn create_dir(dir: PathBuf) -> Result<PathBuf, RenderError> {
    match std::fs::create_dir_all(&dir) {
        Ok(()) => Ok(dir),
        Err(source) => Err(RenderError::Io { action: "create", path: dir, source }),
    }
}

/// Names become files on systems that tell `a` from `A` and on those that do not, so they differ in more than case.
fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), RenderError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(RenderError::FileName { name: name.to_owned() });
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(RenderError::SameName { name: name.to_owned() });
        }
    }
    Ok(())
}
