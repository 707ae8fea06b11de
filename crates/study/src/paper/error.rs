//! What can go wrong: the tables are data, and data can be wrong.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is no table.
    #[error("table {number}: its file under docs/paper is no table")]
    File {
        /// The table.
        number: usize,
        /// What the parser says.
        #[source]
        source: toml::de::Error,
    },
    /// A row has another number of cells than there are columns.
    #[error("table {number}, row {row}: {cells} cells for {columns} columns")]
    Ragged {
        /// The table.
        number: usize,
        /// The row, counted from 1.
        row: usize,
        /// Its cells.
        cells: usize,
        /// The table's columns.
        columns: usize,
    },
    /// There is no such column.
    #[error("table {number} has no column {column:?}")]
    NoColumn {
        /// The table.
        number: usize,
        /// The name.
        column: String,
    },
    /// A cell that should be a number is none.
    #[error("table {number}, row {row}, column {column:?}: {cell:?} is no number")]
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
    /// A test could not be made.
    #[error("cannot test the printed numbers")]
    Stats(#[from] stats::Error),
}
