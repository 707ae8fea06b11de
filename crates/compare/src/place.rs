//! The position of a row, and its cells.

use std::fmt;

use serde_json::{Map, Value};

/// The cells of a row by column.
pub(crate) type Row = Map<String, Value>;

/// The position of a row in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// A row of a file without lines, from 1.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// The text in place of a number that is not finite, which JSON values cannot hold.
pub(crate) const NOT_FINITE: &str = "NaN";
