//! Places in files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A line of a text file or a row of a table, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// What is counted.
    pub unit: Unit,
    /// The number, from 1.
    pub number: usize,
}

/// What the rows of a file are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Lines of text.
    Line,
    /// Rows of a table.
    Row,
    /// Elements of a JSON array.
    Element {
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line => f.write_str("line"),
            Self::Row => f.write_str("row"),
            Self::Element { line } => write!(f, "line {line}, row"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} {}", self.path.display(), self.unit, self.number)
    }
}
