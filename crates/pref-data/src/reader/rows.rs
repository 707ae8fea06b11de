//! Rows of a file, as each kind of file hands them on.

use super::fields::Row;
use super::options::Format;
use crate::error::DataError;
use crate::place::Place;

/// The length limit of a row in bytes. No row of text is longer.
pub(super) const LONGEST_ROW: u64 = 64 << 20;

/// Takes the rows of a file.
pub(super) trait Rows {
    /// Takes the columns of a table, before its rows.
    fn columns(&mut self, _columns: &[String]) -> Result<(), DataError> {
        Ok(())
    }

    /// Takes a row, or the error in its place.
    fn row(&mut self, place: &Place, row: Result<Row, DataError>) -> Result<(), DataError>;
}

/// The columns that are read of a file.
pub(super) struct Wanted<'a> {
    pub(super) format: Format,
    /// All columns where it is `None`.
    pub(super) columns: Option<&'a [&'a str]>,
}

impl Wanted<'_> {
    pub(super) fn column(&self, name: &str) -> bool {
        self.columns.is_none_or(|columns| columns.contains(&name))
    }

    pub(super) fn leaf(&self, parts: &[String]) -> bool {
        match (parts.first(), parts.last()) {
            (Some(column), Some(leaf)) => self.column(column) && self.format.reads_leaf(column, leaf),
            _ => false,
        }
    }
}
