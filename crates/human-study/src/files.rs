//! CSV tables, with the position of every mistake, and atomic writes.

use std::fs;
use std::path::Path;

use crate::Error;

/// Parses a CSV text into rows: the line, and the values of `columns`. A missing column gives empty values; one of the
/// first `needed` is an error.
pub(crate) fn rows<const N: usize>(
    path: &Path,
    text: &str,
    columns: [&str; N],
    needed: usize,
) -> Result<Vec<(u64, [String; N])>, Error> {
    let at = |line: u64, problem: String| Error::Row { path: path.to_owned(), line, problem };
    // Spreadsheets on some systems write a byte order mark.
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let first = text.lines().next().unwrap_or_default();
    // In locales with a decimal comma, spreadsheets write semicolons.
    let delimiter = if !first.contains(',') && first.contains(';') { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .flexible(true)
        .from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| at(1, error.to_string()))?.clone();
    let place = |name: &str| header.iter().position(|found| found.eq_ignore_ascii_case(name));
    let places = columns.map(place);
    if let Some(missing) = (0..needed).find(|&index| places[index].is_none()) {
        let problem =
            format!("there is no column `{}`; the first line must name the columns", columns[missing]);
        return Err(at(1, problem));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            at(error.position().map_or(0, csv::Position::line), "is not a CSV row".to_owned())
        })?;
        let line = record.position().map_or(0, |at| files::line_of_record(text, at.byte(), at.line()));
        if record.iter().all(str::is_empty) {
            continue;
        }
        let value = |place: Option<usize>| place.and_then(|place| record.get(place)).unwrap_or_default();
        rows.push((line, places.map(|place| value(place).to_owned())));
    }
    Ok(rows)
}

/// Returns a CSV text of `header` and `rows`.
pub(crate) fn csv_text<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writes to memory do not fail, and all rows have the same length.
    let _ = writer.write_record(header);
    for row in rows {
        let _ = writer.write_record(row);
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Replaces a file atomically.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Error> {
    files::write(path, text.as_bytes()).map_err(|source| Error::Write { path: path.to_owned(), source })
}
