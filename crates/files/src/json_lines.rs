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
    /// A line differs from its checksum.
    #[error(
        "{}, line {line}: differs from its checksum; restore the file from a copy, or move it away to go on without its \
         rows",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
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

/// Reads the rows of the file `path`. Lines with a checksum are compared with it.
///
/// # Errors
///
/// [`JsonLinesError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, JsonLinesError> {
    let failed = |source| JsonLinesError::Read { path: path.to_owned(), source };
    crate::check_file(path).map_err(failed)?;
    if let Some(damage) =
        checks_of(path).exists().then(|| damage(path)).transpose().map_err(failed)?.flatten()
    {
        return Err(failed(crate::Damage { path: PathBuf::new(), ..damage }.error()));
    }
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

/// A file of JSON lines with the CRC-32C of each line in a second file, which is named as it with `.crc32c`.
///
/// A crash may leave one line without its checksum, never a checksum without its line.
#[derive(Debug)]
pub struct Log {
    lines: File,
    checks: File,
}

impl Log {
    /// Opens the file `path` for appending, and creates it if necessary. A last line without its end is removed, and
    /// lines without a checksum get one.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let lines = append(path)?;
        let text = fs::read(path)?;
        let checks = checks_of(path);
        let mut known = read_checks(&checks)?.unwrap_or_default();
        let all: Vec<&[u8]> = complete(&text).collect();
        known.truncate(all.len());
        let unknown = all.iter().skip(known.len()).map(|line| check(line)).collect::<Vec<_>>();
        known.extend(unknown);
        crate::write(&checks, known.concat().as_bytes())?;
        Ok(Self { lines, checks: OpenOptions::new().append(true).open(&checks)? })
    }

    /// Appends one row.
    ///
    /// # Errors
    ///
    /// Any error of the file system, and [`io::ErrorKind::InvalidData`] for a row that JSON cannot hold.
    pub fn append(&mut self, row: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        self.lines.write_all(&line)?;
        self.checks.write_all(check(&line).as_bytes())
    }

    /// Syncs the rows to disk.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    pub fn sync(&self) -> io::Result<()> {
        self.lines.sync_data()?;
        self.checks.sync_data()
    }

    /// Replaces the lines of the file `path`, given with their ends, and their checksums.
    ///
    /// # Errors
    ///
    /// Any error of the file system.
    pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
        crate::write(path, text)?;
        let checks: String = complete(text).map(check).collect();
        crate::write(&checks_of(path), checks.as_bytes())
    }
}

/// A row with its line, or why it is not one.
pub type CheckedRow<T> = Result<(T, String), JsonLinesError>;

/// Reads the rows of a file with their lines, each if it is intact: it matches its checksum, if it has one, and is a `T`.
/// A last line without its end is left out; a missing file has no rows.
///
/// # Errors
///
/// [`JsonLinesError::Read`]. Each row has [`JsonLinesError::Damaged`] or [`JsonLinesError::Line`].
pub fn checked<T: DeserializeOwned>(path: &Path) -> Result<Vec<CheckedRow<T>>, JsonLinesError> {
    let failed = |source| JsonLinesError::Read { path: path.to_owned(), source };
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(failed)?,
    };
    let checks = read_checks(&checks_of(path)).map_err(failed)?.unwrap_or_default();
    let row = |(index, bytes): (usize, &[u8])| {
        let damaged = || JsonLinesError::Damaged { path: path.to_owned(), line: index + 1 };
        if checks.get(index).is_some_and(|known| *known != check(bytes)) {
            return Err(damaged());
        }
        let line = std::str::from_utf8(bytes).map_err(|_| damaged())?.trim_end_matches('\n');
        Ok((value(path, index + 1, line)?, line.to_owned()))
    };
    Ok(complete(&bytes).enumerate().filter(|(_, line)| !line.trim_ascii().is_empty()).map(row).collect())
}

/// Returns the first damage of a file with checksums.
pub(crate) fn damage(path: &Path) -> io::Result<Option<crate::Damage>> {
    let bytes = fs::read(path)?;
    let checks = read_checks(&checks_of(path))?.unwrap_or_default();
    let lines: Vec<String> = complete(&bytes).map(check).collect();
    let at = lines.iter().zip(&checks).position(|(found, known)| found != known);
    let problem = match at {
        Some(index) => format!("differs from its checksum in line {}", index + 1),
        None if checks.len() > lines.len() => format!("has {} lines of {}", lines.len(), checks.len()),
        None => return Ok(None),
    };
    let remedy = "restore it from a copy, or move it away to go on without its rows".to_owned();
    Ok(Some(crate::Damage { path: path.to_owned(), problem, remedy }))
}

/// Returns the file with the checksums of the lines of `path`.
pub fn checks_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(CHECKS);
    name.into()
}

/// Returns the file whose lines have their checksums in `path`.
pub(crate) fn checked_by(path: &Path) -> Option<PathBuf> {
    path.to_str()?.strip_suffix(CHECKS).map(PathBuf::from)
}

/// The ending of files with the checksums of lines.
const CHECKS: &str = ".crc32c";

/// Returns the checksum of a line with its end, as a line.
fn check(line: &[u8]) -> String {
    format!("{:08x}\n", crc32c::crc32c(line))
}

/// Reads checksums; a last one without its end is left out.
fn read_checks(path: &Path) -> io::Result<Option<Vec<String>>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => {
            let lossy = |line| String::from_utf8_lossy(line).into_owned();
            Ok(Some(complete(&bytes?).map(lossy).collect()))
        }
    }
}

/// The lines of `text` with their ends.
fn complete(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"))
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
    fn a_flipped_bit_of_a_log_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut log = Log::open(&path).unwrap();
        (0..3).for_each(|row| log.append(&row).unwrap());
        assert_eq!(read::<i32>(&path).unwrap(), [0, 1, 2]);
        let intact = fs::read(&path).unwrap();
        for bit in 0..8 * intact.len() {
            let mut flipped = intact.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            let rows = checked::<i32>(&path).unwrap();
            let first = rows.iter().position(Result::is_err);
            // Without its end the last line is left out.
            assert!(first == Some(bit / 16) || (first.is_none() && rows.len() == 2), "bit {bit}: {rows:?}");
            let error = read::<i32>(&path).unwrap_err();
            assert!(error.to_string().contains("log.jsonl"), "{error}");
        }
    }

    #[test]
    fn a_log_goes_on_after_a_crash_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        for (lines, checks) in [("10\n11\n12", 18), ("10\n11\n", 9), ("10\n", 9), ("10\n11\n", 13), ("", 0)] {
            Log::replace(&path, b"10\n11\n").unwrap();
            let known = fs::read(checks_of(&path)).unwrap();
            fs::write(checks_of(&path), &known[..checks.min(known.len())]).unwrap();
            fs::write(&path, lines).unwrap();
            Log::open(&path).unwrap().append(&99).unwrap();
            let rows = read::<i32>(&path).unwrap();
            assert_eq!(rows.last(), Some(&99));
            assert_eq!(rows.len(), lines.matches('\n').count() + 1);
            assert_eq!(damage(&path).unwrap(), None);
        }
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
