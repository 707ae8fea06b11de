//! JSON Lines: one JSON value a line. Blank lines and a byte order mark are skipped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// Why a file is not a list of `T`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonLinesError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// A line is not a `T`.
    #[error("{}, line {line}: {}{problem}", path.display(), in_field(field))]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The path of the field, such as `choices[0].turns`; empty for the whole value.
        field: String,
        /// What is wrong, without a position.
        problem: String,
    },
}

/// Reads the rows of the file `path`.
///
/// # Errors
///
/// [`JsonLinesError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, JsonLinesError> {
    let text = fs::read_to_string(path);
    parse(path, &text.map_err(|source| JsonLinesError::Read { path: path.to_owned(), source })?)
}

/// Parses the rows of `text`, which was read from `path`.
///
/// # Errors
///
/// [`JsonLinesError::Line`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, JsonLinesError> {
    numbered(path, text).map(|row| row.map(|(_, value)| value)).collect()
}

/// The rows of `text`, each with its line number, from 1.
pub fn numbered<T: DeserializeOwned>(
    path: &Path,
    text: &str,
) -> impl Iterator<Item = Result<(usize, T), JsonLinesError>> {
    let lines = (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).split('\n'));
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(move |(number, line)| Ok((number, value(path, number, line)?)))
}

fn value<T: DeserializeOwned>(path: &Path, line: usize, text: &str) -> Result<T, JsonLinesError> {
    let failed = |field: String, error: &serde_json::Error| {
        // serde_json sees one line only: its own "at line 1" would contradict the file's line.
        let (said, column) = (error.to_string(), error.column());
        let position = format!(" at line {} column {column}", error.line());
        let problem = said.strip_suffix(&position).unwrap_or(&said).to_owned();
        JsonLinesError::Line { path: path.to_owned(), line, column, field, problem }
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| failed(error.path().to_string(), error.inner()))?;
    deserializer.end().map_err(|error| failed(String::new(), &error))?;
    Ok(value)
}

fn in_field(field: &str) -> String {
    if field.is_empty() || field == "." { String::new() } else { format!("field `{field}`: ") }
}

/// Replaces the file `path` with `rows`.
///
/// # Errors
///
/// Any error of the file system, and [`io::ErrorKind::InvalidData`] for a row that JSON cannot hold.
pub fn write<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> io::Result<()> {
    crate::write_with(path, |out| rows.into_iter().try_for_each(|row| write_row(out, &row)))
}

/// Opens the file `path` for appending, and creates it if necessary. A last line without its end, left by a killed
/// process, is removed.
///
/// # Errors
///
/// Any error of the file system.
pub fn append(path: &Path) -> io::Result<File> {
    let complete = match fs::read(path) {
        Ok(bytes) => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    file.set_len(complete as u64)?;
    Ok(file)
}

/// Writes one row and the end of its line with a single call of `out`.
///
/// # Errors
///
/// Any error of `out`, and [`io::ErrorKind::InvalidData`] for a row that JSON cannot hold.
pub fn write_row(out: &mut impl Write, row: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    out.write_all(&line)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Row {
        #[expect(dead_code, reason = "only its position matters")]
        scores: Vec<u8>,
    }

    fn problem(text: &str) -> String {
        parse::<Row>(Path::new("rows.jsonl"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_line_and_field_once() {
        assert_eq!(
            problem("\u{feff}{\"scores\": []}\n\n{\"scores\": [1, 300]}\n"),
            "rows.jsonl, line 3: field `scores[1]`: invalid value: integer `300`, expected u8"
        );
        assert_eq!(problem("{\"scores\": []} x"), "rows.jsonl, line 1: trailing characters");
        assert_eq!(problem("{}"), "rows.jsonl, line 1: missing field `scores`");
    }

    #[test]
    fn a_line_separator_inside_a_string_does_not_end_the_line() {
        let rows: Vec<String> = parse(Path::new("x"), "\"a\u{2028}b\"\n\"c\"\r\n").unwrap();
        assert_eq!(rows, ["a\u{2028}b", "c"]);
    }

    #[test]
    fn appending_drops_a_line_without_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        write(&path, [1, 2]).unwrap();
        fs::write(&path, [fs::read(&path).unwrap(), b"{\"half".to_vec()].concat()).unwrap();
        write_row(&mut append(&path).unwrap(), &3).unwrap();
        assert_eq!(read::<i32>(&path).unwrap(), [1, 2, 3]);
    }
}
