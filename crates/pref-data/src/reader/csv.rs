//! Comma-separated values: the first row names the columns, every cell is text.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder, StringRecord};
use serde_json::Value;

use super::fields::Row;
use super::{Each, LONGEST_ROW, open};
use crate::error::{DataError, Place, Unit};

/// Hands each row to `each`, its cells of the columns `numbers` as numbers where they are, empty cells left out.
pub(super) fn read(path: &Path, numbers: &[&str], each: &mut Each<'_>) -> Result<(), DataError> {
    let shared: Arc<Path> = path.into();
    let left = Rc::new(Cell::new(LONGEST_ROW));
    let mut reader = ReaderBuilder::new().from_reader(Limited { inner: open(path)?, left: Rc::clone(&left) });
    let place = |number: u64| Place {
        path: Arc::clone(&shared),
        unit: Unit::Line,
        number: usize::try_from(number).unwrap_or(usize::MAX),
    };
    let names = reader.headers().map_err(|source| DataError::Csv { place: place(1), source })?.clone();
    let mut cells = ByteRecord::new();
    loop {
        left.set(LONGEST_ROW);
        let line = reader.position().line();
        match reader.read_byte_record(&mut cells) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let place = place(cells.position().map_or(line, csv::Position::line));
                let row = row(&place, &names, &cells, numbers);
                each(&place, row)?;
            }
            Err(source) => {
                let place = place(source.position().map_or(line, csv::Position::line));
                match source.kind() {
                    // A row of another length ends where it ends: the next one can be read.
                    csv::ErrorKind::UnequalLengths { .. } => {
                        each(&place, Err(DataError::Csv { place: place.clone(), source }))?;
                    }
                    _ => return Err(DataError::Csv { place, source }),
                }
            }
        }
    }
}

fn row(place: &Place, names: &StringRecord, cells: &ByteRecord, numbers: &[&str]) -> Result<Row, DataError> {
    let mut row = Row::new();
    for (name, cell) in names.iter().zip(cells) {
        if cell.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(cell).map_err(|source| DataError::Encoding {
            place: place.clone(),
            field: name.to_owned(),
            source,
        })?;
        let number = if numbers.contains(&name) {
            serde_json::from_str::<serde_json::Number>(text).ok()
        } else {
            None
        };
        row.insert(name.to_owned(), number.map_or_else(|| Value::String(text.to_owned()), Value::Number));
    }
    Ok(row)
}

/// Stops reading where a row is longer than any: a quote that is never closed must not fill the memory.
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
