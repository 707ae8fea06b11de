//! Comma- or tab-separated values: the first row names the columns, every cell is text.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use csv::{ByteRecord, Position, ReaderBuilder, StringRecord};
use serde_json::Value;

use super::fields::Row;
use super::rows::{LONGEST_ROW, Rows, Wanted};
use super::text_file::open_text;
use crate::error::DataError;
use crate::place::{Place, Unit};

/// Hands each row to `rows`. An empty cell is null, and a cell of a column of numbers is a number where it is one.
pub(super) fn read(
    path: &Path,
    separator: u8,
    wanted: &Wanted<'_>,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let shared: Arc<Path> = path.into();
    let left = Rc::new(Cell::new(LONGEST_ROW));
    let limited = Limited { inner: open_text(path)?, left: Rc::clone(&left) };
    let mut reader = ReaderBuilder::new().delimiter(separator).from_reader(limited);
    let place = |number: u64| Place {
        path: Arc::clone(&shared),
        unit: Unit::Line,
        number: usize::try_from(number).unwrap_or(usize::MAX),
    };
    let names = reader.headers().map_err(|error| failed(&place, 1, &error))?.clone();
    if !names.is_empty() {
        rows.columns(&names.iter().map(str::to_owned).collect::<Vec<_>>())?;
    }
    let mut cells = ByteRecord::new();
    loop {
        left.set(LONGEST_ROW);
        let line = reader.position().line();
        match reader.read_byte_record(&mut cells) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let place = place(cells.position().map_or(line, Position::line));
                let row = row(&place, &names, &cells, wanted);
                rows.row(&place, row)?;
            }
            Err(error) => {
                let line = error.position().map_or(line, Position::line);
                let is_uneven = matches!(error.kind(), csv::ErrorKind::UnequalLengths { .. });
                let error = failed(&place, line, &error);
                if !is_uneven {
                    return Err(error);
                }
                // The end of the row is known, so the next one can be read.
                rows.row(&place(line), Err(error))?;
            }
        }
    }
}

fn failed(place: &impl Fn(u64) -> Place, line: u64, error: &csv::Error) -> DataError {
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} cells, but the first row names {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8; save the file as UTF-8".to_owned(),
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    };
    DataError::Cells { place: place(line), problem }
}

fn row(
    place: &Place,
    names: &StringRecord,
    cells: &ByteRecord,
    wanted: &Wanted<'_>,
) -> Result<Row, DataError> {
    let mut row = Row::new();
    for (name, cell) in names.iter().zip(cells).filter(|(name, _)| wanted.column(name)) {
        let text = std::str::from_utf8(cell).map_err(|error| DataError::Encoding {
            place: place.clone(),
            field: name.to_owned(),
            byte: error.valid_up_to() + 1,
        })?;
        let number = || serde_json::from_str::<serde_json::Number>(text).ok();
        let value = match wanted.format.numbers().contains(&name).then(number).flatten() {
            _ if text.is_empty() => Value::Null,
            Some(number) => Value::Number(number),
            None => Value::String(text.to_owned()),
        };
        row.insert(name.to_owned(), value);
    }
    Ok(row)
}

/// Stops reading at the length limit of rows: an unclosed quote must not fill the memory.
struct Limited<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            let message = format!("a row is longer than {LONGEST_ROW} bytes; is a quote left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let read = self.inner.read(buffer)?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}
