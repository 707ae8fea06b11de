//! JSON lines, plain or gzipped.

use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::{Compression, Each, open};
use crate::error::{DataError, Place, Unit};

/// Hands each line that is not blank to `each`.
pub(super) fn read(path: &Path, compression: Compression, each: &mut Each<'_>) -> Result<(), DataError> {
    let file = BufReader::new(open(path)?);
    match compression {
        Compression::None => read_lines(path, file, each),
        Compression::Gzip => read_lines(path, BufReader::new(MultiGzDecoder::new(file)), each),
    }
}

fn read_lines(path: &Path, mut lines: impl BufRead, each: &mut Each<'_>) -> Result<(), DataError> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).map_err(|source| DataError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        if length == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = Place { path: path.to_owned(), unit: Unit::Line, number };
        match serde_json::from_slice(line.trim_ascii_end()) {
            Ok(row) => each(&place, row)?,
            Err(source) => return Err(DataError::Json { place, source }),
        }
    }
    Ok(())
}
