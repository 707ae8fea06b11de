//! Files of preferences, read into records.

mod arrow_lengths;
mod columns;
mod csv;
mod fields;
mod gair;
mod hh_rlhf;
mod lines;
mod options;
mod pairs;
mod records;
mod seen;
mod shp;
mod ultrafeedback;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use options::{DEFAULT_ANNOTATOR, Format, PairColumns, ReadOptions, ReadReport, Sample};
pub use shp::ScoreRatio;

use crate::error::{DataError, Place};
use crate::files::{Compression, FileKind, kind};
use crate::record::PreferenceRecord;
use seen::Seen;

/// More bytes than any row has: a file without line ends must not fill the memory.
const LONGEST_ROW: u64 = 256 << 20;

/// Reads the preferences in the file at `path`, in all files of the folder at `path`, or in those files of a folder that
/// fit a pattern (`data/train-*.parquet`), in the order of their names.
///
/// A file of pairs gives records of two responses, chosen first, with the label of [`DEFAULT_ANNOTATOR`]. A record
/// without an `id` gets the number of its line or row, in a folder after the file's name and a colon.
///
/// ```
/// use pref_data::{DataError, Format, read_records};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pairs.jsonl");
/// std::fs::write(&path, r#"{"prompt": "2 + 2 =", "chosen": " 4", "rejected": ""}"#)?;
/// let error = read_records(&path, Format::Pairs).expect_err("the rejected response is empty");
/// assert!(error.to_string().ends_with("pairs.jsonl, line 1: field `rejected` is empty; fill it or remove the record"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A file that cannot be read, is of an unknown kind or empty, malformed JSON, a missing or empty field or one of
/// another type, a label that names no response, an id that comes twice. The message names file, line and field.
pub fn read_records(path: impl AsRef<Path>, format: Format) -> Result<Vec<PreferenceRecord>, DataError> {
    Ok(read_records_with(path, &ReadOptions::new(format))?.0)
}

/// As [`read_records`], with options, and a report of what was left out.
///
/// ```
/// use pref_data::{Format, ReadOptions, read_records_with};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pairs.jsonl");
/// let good = r#"{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}"#;
/// std::fs::write(&path, format!("{good}\n{{\"prompt\": 3}}\n"))?;
/// let options = ReadOptions { skip_bad: 1, ..ReadOptions::new(Format::Pairs) };
/// let (records, report) = read_records_with(&path, &options)?;
/// assert_eq!((records.len(), report.skipped.len()), (1, 1));
/// assert!(report.skipped[0].to_string().ends_with("line 2: field `chosen` is missing; add it"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`read_records`], with one bad row more than may be skipped. A file that breaks off, is damaged or is of another
/// kind is an error whatever may be skipped: nobody knows how many rows that would be.
pub fn read_records_with(
    path: impl AsRef<Path>,
    options: &ReadOptions,
) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
    let path = path.as_ref();
    let mut seen = Seen::new(options);
    let files = record_files(path)?;
    let ids = if files == [path] { Ids::OfFile } else { Ids::OfFolder };
    for file in files {
        read_file(&file, options, &mut seen, ids)?;
    }
    seen.finish(path)
}

/// The files that [`read_records`] reads for `path`, in its order.
///
/// # Errors
///
/// [`DataError::Io`] where a folder cannot be listed.
pub fn record_files(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, DataError> {
    let path = path.as_ref();
    let pattern = path.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*'));
    if path.is_dir() {
        return files(path, "*");
    }
    match pattern.filter(|_| !path.exists()) {
        Some(pattern) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            files(folder.unwrap_or(Path::new(".")), pattern)
        }
        None => Ok(vec![path.to_owned()]),
    }
}

/// What takes a row of a file, or what is wrong with it.
type Each<'a> = dyn FnMut(&Place, Result<fields::Row, DataError>) -> Result<(), DataError> + 'a;

/// What a row of a file comes to.
enum Read {
    Record(PreferenceRecord),
    Filtered,
}

/// What ids are made of where rows have none.
#[derive(Clone, Copy)]
enum Ids {
    OfFile,
    OfFolder,
}

fn read_file(path: &Path, options: &ReadOptions, seen: &mut Seen, ids: Ids) -> Result<(), DataError> {
    let format = options.format;
    let mut parted = 0;
    let mut each = |place: &Place, row: Result<fields::Row, DataError>| {
        let read = row.and_then(|mut row| {
            if let Some(columns) = &options.columns {
                pairs::rename(&mut row, columns);
            }
            record(place, &row, format, ids, &mut parted)
        });
        seen.add(place, read)
    };
    let unknown = || DataError::UnknownExtension { path: path.to_owned(), expected: format.extensions() };
    let kind = kind(path).filter(|&kind| format.fits(kind)).ok_or_else(unknown)?;
    let named = options.columns.iter().flat_map(|c| [&*c.prompt, &*c.chosen, &*c.rejected]);
    let columns: Vec<&str> = format.columns().iter().copied().chain(named).collect();
    let wanted = columns::Wanted { format, columns: &columns };
    match kind {
        FileKind::Lines(compression) => lines::read(path, compression, &mut each)?,
        FileKind::Parquet => columns::read_parquet(path, &wanted, &mut each)?,
        FileKind::Arrow => columns::read_arrow(path, &wanted, &mut each)?,
        FileKind::Csv => csv::read(path, format.numbers(), &mut each)?,
    }
    if parted > 0 {
        tracing::warn!(
            path = %path.display(),
            pairs = parted,
            "the two dialogues of some pairs part before the last answer; each response holds all that follows"
        );
    }
    Ok(())
}

/// A row as a record; `parted` counts dialogues of hh-rlhf that part early.
fn record(
    place: &Place,
    row: &fields::Row,
    format: Format,
    ids: Ids,
    parted: &mut usize,
) -> Result<Read, DataError> {
    let mut record = match format {
        Format::Pairs => pairs::record(place, row)?,
        Format::HhRlhf => {
            let (record, prefixes) = hh_rlhf::record(place, row)?;
            *parted += usize::from(prefixes == hh_rlhf::Prefixes::Part);
            record
        }
        Format::Gair => gair::record(place, row)?,
        Format::Ultrafeedback => ultrafeedback::record(place, row)?,
        Format::Shp(ratio) => match shp::record(place, row, ratio)? {
            Some(record) => record,
            None => return Ok(Read::Filtered),
        },
        Format::Records => records::record(place, row)?,
    };
    let is_numbered = fields::optional(row, "id").is_none() && record.id == place.number.to_string();
    if let (Ids::OfFolder, true, Some(name)) = (ids, is_numbered, place.path.file_name()) {
        record.id = format!("{}:{}", name.to_string_lossy(), record.id);
    }
    record.check().map_err(|(field, problem)| fields::fault(place, field, problem))?;
    Ok(Read::Record(record))
}

/// The files of a folder whose kind is known and whose name fits, by name.
fn files(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io { action: "read", path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let fits = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| fits(name, pattern));
        if fits && path.is_file() && kind(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a name is what a pattern says, in which `*` stands for any text.
fn fits(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| fits(&name[at..], rest))
        }),
    }
}

fn open(path: &Path) -> Result<File, DataError> {
    File::open(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
