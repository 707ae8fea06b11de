//! JSON lines, plain or gzipped.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::{Compression, Each, LONGEST_ROW, open};
use crate::error::{DataError, Place, Unit};

/// Hands each line that is not blank to `each`.
pub(super) fn read(path: &Path, compression: Compression, each: &mut Each<'_>) -> Result<(), DataError> {
    let file = BufReader::new(open(path)?);
    match compression {
        Compression::None => read_lines(path, file, LONGEST_ROW, each),
        Compression::Gzip => read_lines(path, BufReader::new(MultiGzDecoder::new(file)), LONGEST_ROW, each),
    }
}

fn read_lines(
    path: &Path,
    mut lines: impl BufRead,
    longest: u64,
    each: &mut Each<'_>,
) -> Result<(), DataError> {
    let shared: Arc<Path> = path.into();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let place = || Place { path: Arc::clone(&shared), unit: Unit::Line, number };
        let read = (&mut lines).take(longest).read_until(b'\n', &mut line);
        let length = read.map_err(|source| DataError::Broken { place: place(), source })?;
        if length == 0 {
            break;
        }
        if length as u64 == longest && !line.ends_with(b"\n") {
            let place = place();
            each(&place, Err(DataError::LongLine { place: place.clone(), most: longest }))?;
            // Who may leave it out goes on behind it, without holding it.
            lines.skip_until(b'\n').map_err(|source| DataError::Broken { place, source })?;
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = place();
        let row = serde_json::from_slice(line.trim_ascii_end());
        each(&place, row.map_err(|source| DataError::Json { place: place.clone(), source }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory_and_may_be_left_out() {
        let line = b"{\"a\": 1}\n{\"a\": 123456789012345678901234567890}\n{\"a\": 2}\n";
        let said = "x.jsonl, line 2: is longer than 12 bytes; a file of JSON lines has one record a line";
        let mut heard = Vec::new();
        let mut each = |_: &Place, row: Result<_, DataError>| {
            heard.push(row.map_err(|error| error.to_string()));
            Ok(())
        };
        read_lines(Path::new("x.jsonl"), &line[..], 12, &mut each).expect("its rows may all be at fault");
        assert_eq!(heard.len(), 3);
        assert!(heard[0].is_ok() && heard[2].is_ok(), "{heard:?}");
        assert_eq!(heard[1].as_ref().expect_err("45 bytes"), said);
        let mut strict = |_: &Place, row: Result<_, DataError>| row.map(drop);
        let error = read_lines(Path::new("x.jsonl"), &line[..], 12, &mut strict).expect_err("too long");
        assert_eq!(error.to_string(), said);
    }
}
