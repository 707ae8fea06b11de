//! The error of this module.

/// Why the paper's tables cannot be read or tested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not a table.
    #[error("table {number}: its file under docs/paper is not a table")]
    File {
        /// The table.
        number: usize,
        /// The parser's error.
        #[source]
        source: toml::de::Error,
    },
    /// A row has the wrong number of cells.
    #[error("table {number}, row {row}: {cells} cells for {columns} columns")]
    Ragged {
        /// The table.
        number: usize,
        /// The row, counted from 1.
        row: usize,
        /// The number of its cells.
        cells: usize,
        /// The number of columns.
        columns: usize,
    },
    /// A column is missing.
    #[error("table {number} has no column {column:?}")]
    NoColumn {
        /// The table.
        number: usize,
        /// Its name.
        column: String,
    },
    /// A cell is not a number.
    #[error("table {number}, row {row}, column {column:?}: {cell:?} is not a number")]
    NoNumber {
        /// The table.
        number: usize,
        /// The row, counted from 1.
        row: usize,
        /// The column.
        column: String,
        /// The cell.
        cell: String,
    },
    /// A test is not defined.
    #[error("cannot test the printed numbers")]
    Stats(#[from] stats::Error),
}
