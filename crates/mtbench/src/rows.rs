//! JSON Lines, read with the place of every mistake and written in one piece.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    io::{self, Write},
    path::Path,
};

use atomic_write_file::AtomicWriteFile;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, python_json};

/// The rows of a JSON Lines file, one object a line. Blank lines are skipped.
///
/// # Errors
///
/// [`Error::Read`] if the file cannot be read; [`Error::Line`] with line and field if a line is not a `T`.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    parse_lines(path, &read(path)?)
}

/// As [`read_lines`], and no two rows have the same `key`, which is their field `field`.
pub(crate) fn read_unique<T: DeserializeOwned, K: Ord + Debug>(
    path: &Path,
    field: &'static str,
    key: impl Fn(&T) -> K,
) -> Result<Vec<T>, Error> {
    let mut seen = BTreeMap::new();
    let rows = numbered_lines(path, &read(path)?)?;
    for (line, row) in &rows {
        if let Some(first) = seen.insert(key(row), line) {
            return Err(Error::Inconsistent {
                path: path.to_owned(),
                line: *line,
                field,
                problem: format!("{:?} stands in line {first} already: keep one of the two", key(row)),
            });
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The rows of `text`, which was read from `path`.
pub(crate) fn parse_lines<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, Error> {
    Ok(numbered_lines(path, text)?.into_iter().map(|(_, row)| row).collect())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn numbered_lines<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<(usize, T)>, Error> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| Ok((number, parse_line(line).map_err(|problem| problem.at(path, number))?)))
        .collect()
}

/// What keeps a line from being a row.
struct LineProblem {
    field: String,
    error: serde_json::Error,
}

impl LineProblem {
    fn at(self, path: &Path, line: usize) -> Error {
        // The parser sees one line only: its own "at line 1" would contradict the file's line.
        let (said, column) = (self.error.to_string(), self.error.column());
        let place = format!(" at line {} column {column}", self.error.line());
        let problem = said.strip_suffix(&place).unwrap_or(&said).to_owned();
        Error::Line { path: path.to_owned(), line, column, field: self.field, problem }
    }
}

fn parse_line<T: DeserializeOwned>(line: &str) -> Result<T, LineProblem> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let row = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| LineProblem { field: error.path().to_string(), error: error.into_inner() })?;
    deserializer.end().map_err(|error| LineProblem { field: ".".to_owned(), error })?;
    Ok(row)
}

/// Writes `rows` as Python's `json.dumps` would, one a line. The file appears whole or not at all; missing folders are
/// made.
///
/// # Errors
///
/// [`Error::Unwritable`] for a row that JSON cannot hold, [`Error::Write`] if the system refuses.
pub fn write_lines<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), Error> {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text += &python_json::to_string(row).map_err(|source| Error::Unwritable {
            path: path.to_owned(),
            row: index + 1,
            source,
        })?;
        text.push('\n');
    }
    replace(path, &text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = AtomicWriteFile::open(path)?;
    file.write_all(text.as_bytes())?;
    file.commit()
}
