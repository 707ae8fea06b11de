//! JSON: one object a line, or an array of objects. Rows are read one at a time.

mod array;
mod parse;

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::rows::{LONGEST_ROW, Rows, Wanted};
use super::text_file::open_text;
use crate::error::DataError;
use crate::place::{Place, Unit};
use crate::problem::FileProblem;
use array::Elements;
use parse::parse;

/// Hands each row to `rows`.
pub(super) fn read(path: &Path, wanted: &Wanted<'_>, rows: &mut dyn Rows) -> Result<(), DataError> {
    read_text(path, open_text(path)?, LONGEST_ROW, wanted, rows)
}

fn read_text(
    path: &Path,
    mut text: impl BufRead,
    longest: u64,
    wanted: &Wanted<'_>,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let broken = |number, error: std::io::Error| DataError::Broken {
        place: Place { path: path.into(), unit: Unit::Line, number },
        problem: error.to_string(),
    };
    let (line, first) = skip_blank(&mut text).map_err(|error| broken(1, error))?;
    if first == Some(b'[') {
        text.consume(1);
        read_array(path, Elements::new(text, line, longest), longest, wanted, rows)
    } else {
        read_lines(path, text, line, longest, wanted, rows)
    }
}

/// Skips white space, and returns the line and the first byte of what follows.
fn skip_blank(text: &mut impl BufRead) -> std::io::Result<(usize, Option<u8>)> {
    let mut line = 1;
    loop {
        let Some(&byte) = text.fill_buf()?.first() else { return Ok((line, None)) };
        if !byte.is_ascii_whitespace() {
            return Ok((line, Some(byte)));
        }
        line += usize::from(byte == b'\n');
        text.consume(1);
    }
}

fn read_array(
    path: &Path,
    mut elements: Elements<impl BufRead>,
    longest: u64,
    wanted: &Wanted<'_>,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let path: Arc<Path> = path.into();
    let mut number = 0;
    loop {
        let place = |number, line| Place { path: Arc::clone(&path), unit: Unit::Element { line }, number };
        let line = elements.advance().map_err(|error| DataError::Broken {
            place: place(number + 1, elements.line()),
            problem: error.to_string(),
        })?;
        let Some(line) = line else { return Ok(()) };
        number += 1;
        let row = match elements.element() {
            Some(text) => {
                parse(text, wanted).map_err(|error| error.at(place(number, line + error.lines_down)))
            }
            None => Err(DataError::LongRow { place: place(number, line), most: longest }),
        };
        rows.row(&place(number, line), row)?;
    }
}

fn read_lines(
    path: &Path,
    mut lines: impl BufRead,
    first: usize,
    longest: u64,
    wanted: &Wanted<'_>,
    rows: &mut dyn Rows,
) -> Result<(), DataError> {
    let shared: Arc<Path> = path.into();
    let mut line = Vec::new();
    for number in first.. {
        line.clear();
        let place = || Place { path: Arc::clone(&shared), unit: Unit::Line, number };
        let broken = |error: std::io::Error| DataError::Broken { place: place(), problem: error.to_string() };
        let length = (&mut lines).take(longest).read_until(b'\n', &mut line).map_err(broken)?;
        if length == 0 {
            break;
        }
        if length as u64 == longest && !line.ends_with(b"\n") {
            rows.row(&place(), Err(DataError::LongRow { place: place(), most: longest }))?;
            // The rest of the line is skipped without keeping it, in case the row may be skipped.
            lines.skip_until(b'\n').map_err(broken)?;
            continue;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if number == first && text == b"{" {
            return Err(DataError::File { path: path.to_owned(), problem: FileProblem::OneObject });
        }
        rows.row(&place(), parse(text, wanted).map_err(|error| error.at(place())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Format;

    struct Heard(Vec<Result<usize, String>>);

    impl Rows for Heard {
        fn row(
            &mut self,
            _: &Place,
            row: Result<crate::reader::fields::Row, DataError>,
        ) -> Result<(), DataError> {
            self.0.push(row.map(|row| row.len()).map_err(|error| error.to_string()));
            Ok(())
        }
    }

    fn heard(text: &str, longest: u64) -> Vec<Result<usize, String>> {
        let mut heard = Heard(Vec::new());
        let wanted = Wanted { format: Format::Records, columns: None };
        read_text(Path::new("x.json"), text.as_bytes(), longest, &wanted, &mut heard).expect("a whole file");
        heard.0
    }

    #[test]
    fn a_row_beyond_the_limit_is_an_error_and_the_next_row_is_read() {
        let long = "{\"a\": 123456789012345678901234567890}";
        let lines = heard(&format!("{{\"a\": 1}}\n{long}\n{{\"a\": 2}}\n"), 12);
        assert_eq!(
            lines,
            [Ok(1), Err("x.json, line 2: is longer than 12 bytes; write one record a row".to_owned()), Ok(1)]
        );
        let array = heard(&format!("[{{\"a\": 1}},\n{long},\n{{\"a\": 2}}]"), 12);
        assert_eq!(
            array,
            [
                Ok(1),
                Err("x.json, line 2, row 2: is longer than 12 bytes; write one record a row".to_owned()),
                Ok(1)
            ]
        );
    }

    #[test]
    fn an_array_is_split_at_its_own_commas_only() {
        let rows = heard(r#" [ {"a": "],[{\"", "b": [1, {"c": 2}]} , {"a": NaN}, 3, {"a" 1} ]"#, 1000);
        assert_eq!(rows.len(), 4);
        assert_eq!((&rows[0], &rows[1]), (&Ok(2), &Ok(1)));
        let errors: Vec<&str> =
            rows[2..].iter().map(|row| row.as_ref().expect_err("no object").as_str()).collect();
        assert!(errors[0].starts_with("x.json, line 1, row 3: "), "{errors:?}");
        assert!(errors[1].starts_with("x.json, line 1, row 4: "), "{errors:?}");
        assert_eq!(heard("[]", 1000), []);
        assert_eq!(heard("[\n]\n", 1000), []);
    }
}
