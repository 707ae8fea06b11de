//! JSON Lines as FastChat reads and writes them. Rows that are not replaced keep their bytes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use files::json_lines;
use files::{Lock, LockError};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Error;
use crate::python_json;

/// What happens to a line that is no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadLines {
    /// It is an error.
    #[default]
    Refuse,
    /// It is left out with a warning. A file that is written again keeps it.
    Skip,
}

/// Reads the rows of a JSON Lines file, one object a line. Blank lines and a byte order mark are skipped; Python's `NaN`
/// and `Infinity` are null.
///
/// # Errors
///
/// [`Error::Read`] if the file cannot be read, [`Error::Line`] if a line is not a `T`.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    parse_lines(path, &read(path)?)
}

/// As [`read_lines`], of the text of the file `path`.
pub(crate) fn parse_lines<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>, Error> {
    Ok(json_lines::parse(path, &python_json::without_nan(text))?)
}

/// As [`read_lines`], for a file in which no two rows have the same `key`, the field `field`.
pub(crate) fn read_unique<T: DeserializeOwned, K: Ord>(
    path: &Path,
    bad: BadLines,
    field: &'static str,
    key: impl Fn(&T) -> K,
    label: impl Fn(&T) -> String,
) -> Result<Vec<T>, Error> {
    let mut seen = BTreeMap::new();
    let mut rows = Vec::new();
    for Line { number, row, .. } in lines(path, &read(path)?, bad)? {
        let Some(row) = row else { continue };
        if let Some(first) = seen.insert(key(&row), number) {
            let problem = format!("{} is already in line {first}: keep one of the two", label(&row));
            return Err(Error::Inconsistent { path: path.to_owned(), line: number, field, problem });
        }
        rows.push(row);
    }
    Ok(rows)
}

/// As [`read_lines`], where `bad` says what happens to a line that is no row.
pub(crate) fn read_rows<T: DeserializeOwned>(path: &Path, bad: BadLines) -> Result<Vec<T>, Error> {
    Ok(lines(path, &read(path)?, bad)?.into_iter().filter_map(|line| line.row).collect())
}

/// Adds `rows` to the file `path` and returns all rows of the result.
///
/// A row replaces the last one with its `key`, in place, or else is appended. All other lines keep their bytes. A lock
/// covers reading and writing, so that several processes may add rows at the same time. `arrange` may reorder the lines
/// and drop some.
pub(crate) fn add_rows<T: Serialize + DeserializeOwned, K: Ord>(
    path: &Path,
    bad: BadLines,
    rows: Vec<T>,
    key: impl Fn(&T) -> K,
    arrange: impl FnOnce(&mut Vec<Line<T>>),
) -> Result<Vec<T>, Error> {
    let lock = if rows.is_empty() { None } else { Some(lock(path)?) };
    let text = if_present(read(path))?;
    let mut lines = lines(path, &text, bad)?;
    let keyed = lines.iter().enumerate().filter_map(|(place, line)| Some((key(line.row.as_ref()?), place)));
    let mut places: BTreeMap<K, usize> = keyed.collect();
    for (index, row) in rows.into_iter().enumerate() {
        let text = written(path, index + 1, &row)?;
        let place = *places.entry(key(&row)).or_insert(lines.len());
        let line = Line { number: place + 1, text, row: Some(row) };
        if place == lines.len() {
            lines.push(line);
        } else {
            lines[place] = line;
        }
    }
    if lock.is_some() {
        arrange(&mut lines);
        let text: String = lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        replace(path, &text)?;
    }
    Ok(lines.into_iter().filter_map(|line| line.row).collect())
}

/// A line of a file.
pub(crate) struct Line<T> {
    number: usize,
    text: String,
    /// Its row; none for a bad line that is skipped.
    pub(crate) row: Option<T>,
}

/// The lines of `text` that are not blank.
fn lines<T: DeserializeOwned>(path: &Path, text: &str, bad: BadLines) -> Result<Vec<Line<T>>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsable = python_json::without_nan(text);
    let mut rows = json_lines::numbered(path, &parsable);
    let mut lines = Vec::new();
    let mut problems: Vec<Error> = Vec::new();
    for (number, text) in (1..).zip(text.split('\n')).filter(|(_, text)| !text.trim().is_empty()) {
        let row = match rows.next().expect("both skip the same blank lines") {
            Ok((_, row)) => Some(row),
            Err(error) if bad == BadLines::Skip => {
                problems.push(error.into());
                None
            }
            Err(error) => return Err(error.into()),
        };
        lines.push(Line { number, text: text.strip_suffix('\r').unwrap_or(text).to_owned(), row });
    }
    if let Some(first) = problems.first() {
        tracing::warn!("{first}; bad lines skipped in this file: {}", problems.len());
    }
    Ok(lines)
}

/// Writes `rows` as Python's `json.dumps` does, one a line. The write is atomic and creates missing folders.
///
/// # Errors
///
/// [`Error::Unwritable`] for a row that JSON cannot hold, [`Error::Write`] if the system refuses.
pub fn write_lines<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), Error> {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        text += &written(path, index + 1, row)?;
        text.push('\n');
    }
    replace(path, &text)
}

fn written<T: Serialize>(path: &Path, row: usize, value: &T) -> Result<String, Error> {
    let unwritable = |source| Error::Unwritable { path: path.to_owned(), row, source };
    python_json::to_string(value).map_err(unwritable)
}

/// Replaces the file `path` atomically.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    files::write(path, text.as_bytes()).map_err(|source| Error::Write { path: path.to_owned(), source })
}

pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// What was read, or the default if the file does not exist.
pub(crate) fn if_present<T: Default>(read: Result<T, Error>) -> Result<T, Error> {
    match read {
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        read => read,
    }
}

/// The lock of the file `path`, a hidden file next to it.
fn lock(path: &Path) -> Result<Lock, Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let cannot_write = |source| Error::Write { path: path.to_owned(), source };
    fs::create_dir_all(folder).map_err(cannot_write)?;
    let lock: PathBuf = folder.join(format!(".{}.lock", path.file_name().unwrap_or_default().display()));
    let waiting = || tracing::info!("waiting for another process that writes {}", path.display());
    Lock::exclusive(&lock, waiting).map_err(|error| match error {
        LockError::Io { source, .. } => cannot_write(source),
        held => cannot_write(io::Error::other(held)),
    })
}
