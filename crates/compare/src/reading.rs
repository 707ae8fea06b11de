//! Rows of CSV, JSON and parquet files as JSON objects, with their positions.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::place::{NOT_FINITE, Place, Row};
use crate::{Error, parquet_rows};

/// Calls `visit` with each row of a file, in order.
pub(crate) fn for_each(
    path: &Path,
    mut visit: impl FnMut(Place, Row) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "parquet" => {
            let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
            parquet_rows::for_each(path, file, &mut visit)
        }
        "csv" => delimited(path, &read(path)?, b',', &mut visit),
        "tsv" => delimited(path, &read(path)?, b'\t', &mut visit),
        "json" | "jsonl" | "ndjson" => json(path, &read(path)?, &mut visit),
        _ => Err(Error::File {
            path: path.to_owned(),
            problem: "scores are read from .csv, .tsv, .jsonl, .json and .parquet".to_owned(),
        }),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}

type Visit<'a> = &'a mut dyn FnMut(Place, Row) -> Result<(), Error>;

fn delimited(path: &Path, text: &str, comma: u8, visit: Visit<'_>) -> Result<(), Error> {
    let first = text.lines().next().unwrap_or_default();
    // In locales with a decimal comma, spreadsheets write semicolons.
    let delimiter = if comma == b',' && !first.contains(',') && first.contains(';') { b';' } else { comma };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).from_reader(text.as_bytes());
    let at =
        |line: u64, problem: String| Error::Row { path: path.to_owned(), place: Place::Line(line), problem };
    let header = reader.headers().map_err(|error| at(1, error.to_string()))?.clone();
    for (index, name) in header.iter().enumerate() {
        if header.iter().take(index).any(|earlier| earlier == name) {
            return Err(at(1, format!("two columns have the name {name:?}")));
        }
    }
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    at(line, format!("has {len} cells, the header has {expected_len}"))
                }
                _ => at(line, "is no row of a CSV file".to_owned()),
            }
        })?;
        let line = record.position().map_or(0, |at| files::line_of_record(text, at.byte(), at.line()));
        if record.iter().all(str::is_empty) {
            continue;
        }
        let cells = header.iter().zip(&record).map(|(name, cell)| (name.to_owned(), cell.into()));
        visit(Place::Line(line), cells.collect())?;
    }
    Ok(())
}

/// Reads a JSON array, or one object a line.
fn json(path: &Path, text: &str, visit: Visit<'_>) -> Result<(), Error> {
    let failed = |before: u64, error: serde_json::Error| {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
        Error::Row {
            path: path.to_owned(),
            place: Place::Line(before + error.line() as u64),
            problem: format!("is no JSON object: {what}, in column {}", error.column()),
        }
    };
    if text.trim_start().starts_with('[') {
        let rows: Vec<Unambiguous> =
            serde_json::from_str(&quote_not_finite(text)).map_err(|error| failed(0, error))?;
        for (place, Unambiguous(row)) in (1..).map(Place::Row).zip(rows) {
            visit(place, row)?;
        }
        return Ok(());
    }
    for (before, text) in (0..).zip(text.split('\n')).filter(|(_, text)| !text.trim().is_empty()) {
        let Unambiguous(row) =
            serde_json::from_str(&quote_not_finite(text)).map_err(|error| failed(before, error))?;
        visit(Place::Line(before + 1), row)?;
    }
    Ok(())
}

/// A row whose keys occur once: the library would take the last value of a repeated key.
struct Unambiguous(Row);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor).map(Self)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if row.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} occurs twice")));
            }
            row.insert(key, value);
        }
        Ok(row)
    }
}

/// Replaces `NaN` and `Infinity`, which Python writes into JSON, by the text [`NOT_FINITE`].
fn quote_not_finite(text: &str) -> String {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let (mut rest, mut is_inside) = (text, false);
    while let Some(letter) = rest.chars().next() {
        let token = ["-Infinity", "Infinity", "NaN"].into_iter().find(|token| rest.starts_with(token));
        let length = match (is_inside, letter, token) {
            (false, _, Some(token)) => {
                out += &format!("\"{NOT_FINITE}\"");
                rest = &rest[token.len()..];
                continue;
            }
            (true, '\\', _) => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            (_, '"', _) => {
                is_inside = !is_inside;
                1
            }
            _ => letter.len_utf8(),
        };
        out += &rest[..length];
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_are_not_finite_become_text() {
        let text = r#"{"a": NaN, "b": "NaN \" NaN", "c": [-Infinity, 1]}"#;
        assert_eq!(quote_not_finite(text), r#"{"a": "NaN", "b": "NaN \" NaN", "c": ["NaN", 1]}"#);
    }
}
