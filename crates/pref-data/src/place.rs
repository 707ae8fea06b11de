//! Places in files.

use std::collections::BTreeMap;
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

/// The places of records, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Places(pub(crate) BTreeMap<String, Place>);

impl Places {
    /// Returns the place of a record, or of the record of a pair: `ID` or `ID#INDEX`.
    pub fn of(&self, id: &str) -> Option<&Place> {
        let record = || id.rsplit_once('#').and_then(|(record, _)| self.0.get(record));
        self.0.get(id).or_else(record)
    }
}
