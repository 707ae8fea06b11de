//! Readers: files of preferences to records.

mod arrow_lengths;
mod batches;
mod column_roles;
mod columnar;
mod delimited;
mod fields;
mod folder;
mod gair;
mod hh_rlhf;
mod json;
mod notes;
mod options;
mod pairs;
mod parquet_lengths;
mod records;
mod rows;
mod seen;
mod shp;
mod text_file;
mod ultrafeedback;
mod unpaired;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use batches::read_record_batches;
pub use column_roles::{ColumnRole, PairColumns};
pub use notes::Note;
pub use options::{Format, ReadOptions, ReadReport, Sample};
pub use shp::ScoreRatio;

use crate::error::DataError;
use crate::file_kind::{FileKind, kind};
use crate::place::Place;
use crate::problem::{FieldProblem, FileProblem};
use crate::record::{PreferenceRecord, UnpairedRecord};
use fields::Row;
use notes::Notes;
use pairs::RowLayout;
use rows::{Rows, Wanted};
use seen::{Either, Item, Seen};

/// Reads the preferences of a file, of all files of a folder, or of the files of a folder that fit a pattern
/// (`data/train-*.parquet`), in the order of their names. Of a `DatasetDict` on disk it reads the split `train`.
///
/// A file of pairs gives records of two responses, chosen first, with the label of [`DEFAULT_ANNOTATOR`](crate::DEFAULT_ANNOTATOR). A record
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
/// another type, a label that names no response. The message names file, line and field.
pub fn read_records(path: impl AsRef<Path>, format: Format) -> Result<Vec<PreferenceRecord>, DataError> {
    Ok(records(path.as_ref(), &ReadOptions::new(format))?.0)
}

/// Reads preferences as [`read_records`] does, with options, and returns a report of what was recognized and left out.
///
/// ```
/// use pref_data::{Format, ReadOptions, read_records_with};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pairs.jsonl");
/// let good = r#"{"question": "2 + 2 =", "chosen": " 4", "rejected": " 5"}"#;
/// std::fs::write(&path, format!("{good}\n{{\"question\": \"3\"}}\n"))?;
/// let options = ReadOptions { skip_bad: 1, ..ReadOptions::new(Format::Pairs) };
/// let (records, report) = read_records_with(&path, &options)?;
/// assert_eq!((records.len(), report.skipped.len()), (1, 1));
/// assert!(report.skipped[0].to_string().contains("line 2: field `chosen` is missing; the columns are `question`"));
/// assert_eq!(report.notes[0].to_string(), "reads `question` as the prompt");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`read_records`], and one bad row more than may be skipped. A file that is cut off, damaged or of another kind is
/// an error even where rows may be skipped: the number of lost rows is unknown.
pub fn read_records_with(
    path: impl AsRef<Path>,
    options: &ReadOptions,
) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
    records(path.as_ref(), options)
}

/// Not generic, as [`preferences`]: otherwise each dependent crate would compile the readers of all file kinds again.
fn records(path: &Path, options: &ReadOptions) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
    read(path, options, record)
}

/// The preferences of a file, in one of two layouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preferences {
    /// Two or more responses a record.
    Paired(Vec<PreferenceRecord>),
    /// One response a record, labeled desirable or undesirable. KTO trains on it. Demonstrations are all desirable.
    Unpaired(Vec<UnpairedRecord>),
}

/// Reads preferences as [`read_records_with`] does, and also unpaired ones: rows of `prompt`, `completion` and `label`.
/// The first good row decides which of the two layouts a file of [`Format::Pairs`] has.
///
/// ```
/// use pref_data::{Format, Preferences, ReadOptions, read_preferences};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("unpaired.jsonl");
/// std::fs::write(&path, r#"{"prompt": "The sky is", "completion": " blue.", "label": true}"#)?;
/// let (preferences, report) = read_preferences(&path, &ReadOptions::new(Format::Pairs))?;
/// let Preferences::Unpaired(records) = preferences else { panic!("the row has a completion and a label") };
/// assert!(records[0].is_desirable);
/// assert_eq!(report.notes[0].to_string(), "reads unpaired preferences: 1 desirable, 0 undesirable");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`read_records_with`], and for a row of the other layout.
pub fn read_preferences(
    path: impl AsRef<Path>,
    options: &ReadOptions,
) -> Result<(Preferences, ReadReport), DataError> {
    preferences(path.as_ref(), options)
}

fn preferences(path: &Path, options: &ReadOptions) -> Result<(Preferences, ReadReport), DataError> {
    Ok(by_layout(read(path, options, either)?))
}

/// Reads examples of supervised training: preferences as [`read_preferences`] does, and also demonstrations, which have one
/// response and no label. These are rows of `messages` that end with the assistant's turn, or of `prompt` and
/// `completion`.
///
/// ```
/// use pref_data::{Format, Preferences, ReadOptions, read_demonstrations};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("chats.jsonl");
/// let turns = r#"[{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]"#;
/// std::fs::write(&path, format!(r#"{{"messages": {turns}}}"#))?;
/// let (examples, report) = read_demonstrations(&path, &ReadOptions::new(Format::Pairs))?;
/// let Preferences::Unpaired(records) = examples else { panic!("the row has one response") };
/// assert!(records[0].is_desirable);
/// assert_eq!(report.notes[0].to_string(), "reads demonstrations, which have no label: 1 record");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`read_preferences`].
pub fn read_demonstrations(
    path: impl AsRef<Path>,
    options: &ReadOptions,
) -> Result<(Preferences, ReadReport), DataError> {
    demonstrations(path.as_ref(), options)
}

fn demonstrations(path: &Path, options: &ReadOptions) -> Result<(Preferences, ReadReport), DataError> {
    Ok(by_layout(read(path, options, |source, place, row| {
        let is_demonstration = source.format == Format::Pairs
            && source.unpaired != Some(false)
            && source.pair_row(place, row).layout() == Some(RowLayout::Demonstration);
        if !is_demonstration {
            let error = unpaired::unanswered(&source.pair_row(place, row));
            return match error.filter(|_| source.format == Format::Pairs) {
                Some(error) => Err(error),
                None => either(source, place, row),
            };
        }
        let mut record = unpaired::demonstration(source.pair_row(place, row))?;
        source.name(place, row, &mut record.id);
        Ok(Some(Either::Unpaired(record)))
    })?))
}

/// Makes a record of a row in the layout that the row has.
fn either(source: &mut Source<'_>, place: &Place, row: &Row) -> Result<Option<Either>, DataError> {
    if source.is_unpaired(place, row)? {
        let mut record = unpaired::record(source.pair_row(place, row))?;
        source.name(place, row, &mut record.id);
        Ok(Some(Either::Unpaired(record)))
    } else {
        Ok(record(source, place, row)?.map(Either::Paired))
    }
}

fn by_layout((records, report): (Vec<Either>, ReadReport)) -> (Preferences, ReadReport) {
    let (mut paired, mut unpaired) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Either::Paired(record) => paired.push(record),
            Either::Unpaired(record) => unpaired.push(record),
        }
    }
    let preferences =
        if unpaired.is_empty() { Preferences::Paired(paired) } else { Preferences::Unpaired(unpaired) };
    (preferences, report)
}

/// Returns the files that [`read_records`] reads for `path`, in its order.
///
/// # Errors
///
/// [`DataError::Io`] where a folder cannot be listed, [`DataError::File`] for a `DatasetDict` without a split to read.
pub fn record_files(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, DataError> {
    Ok(folder::files(path.as_ref())?.files)
}

/// How ids are made where rows have none.
#[derive(Clone, Copy)]
enum Ids {
    OfFile,
    OfFolder,
}

/// What is known of the files while their rows are read.
struct Source<'a> {
    format: Format,
    named: &'a PairColumns,
    ids: Ids,
    /// The columns of a table; none for JSON.
    header: Vec<String>,
    /// The columns that the user names and no row has had so far.
    missing: BTreeSet<String>,
    /// The columns of the first row.
    first: Vec<String>,
    /// Whether the rows are unpaired preferences; `None` before the first good row.
    unpaired: Option<bool>,
    notes: Notes,
}

impl<'a> Source<'a> {
    fn new(format: Format, named: &'a PairColumns, ids: Ids, of_folder: Vec<Note>) -> Self {
        Self {
            format,
            named,
            ids,
            header: Vec::new(),
            missing: named.chosen_names().map(str::to_owned).collect(),
            first: Vec::new(),
            unpaired: None,
            notes: Notes::new(of_folder),
        }
    }

    fn pair_row<'r>(&'r mut self, place: &'r Place, row: &'r Row) -> pairs::PairRow<'r> {
        pairs::PairRow { place, row, named: self.named, header: &self.header, notes: &mut self.notes }
    }

    /// Puts the file's name before an id that is the number of the row, in a folder.
    fn name(&self, place: &Place, row: &Row, id: &mut String) {
        let is_numbered = fields::optional(row, "id").is_none() && *id == place.number.to_string();
        if let (Ids::OfFolder, true, Some(name)) = (self.ids, is_numbered, place.path.file_name()) {
            *id = format!("{}:{id}", name.to_string_lossy());
        }
    }

    /// Returns whether a row is an unpaired preference.
    ///
    /// # Errors
    ///
    /// If earlier rows have the other layout.
    fn is_unpaired(&mut self, place: &Place, row: &Row) -> Result<bool, DataError> {
        if self.format != Format::Pairs {
            return Ok(false);
        }
        let layout = self.pair_row(place, row).layout();
        let other = match (self.unpaired, layout) {
            (Some(true), Some(RowLayout::Paired)) => ("chosen", "pairs", "unpaired preferences"),
            (Some(false), Some(RowLayout::Unpaired)) => ("completion", "unpaired preferences", "pairs"),
            (known, _) => return Ok(known.unwrap_or(layout == Some(RowLayout::Unpaired))),
        };
        let (field, found, earlier) = other;
        Err(fields::fault(place, field, FieldProblem::OtherLayout { found, earlier }))
    }

    fn check_header(&self, columns: &[String]) -> Option<FileProblem> {
        let is_there = |name: &str| columns.iter().any(|column| column == name);
        if let Some(column) = self.named.chosen_names().find(|name| !is_there(name)) {
            let column = column.to_owned();
            return Some(FileProblem::MissingColumn { column, columns: columns.to_vec() });
        }
        let media = pairs::MEDIA.iter().find(|name| self.format == Format::Pairs && is_there(name))?;
        Some(FileProblem::Media { column: (*media).to_owned() })
    }
}

/// Makes a record of a row; `None` for a row that the format's filter leaves out.
type Make<T> = fn(&mut Source<'_>, &Place, &Row) -> Result<Option<T>, DataError>;

fn read<T: Item>(
    path: &Path,
    options: &ReadOptions,
    make: Make<T>,
) -> Result<(Vec<T>, ReadReport), DataError> {
    check_columns(options)?;
    let mut found = folder::files(path)?;
    let ids = if found.files == [path] { Ids::OfFile } else { Ids::OfFolder };
    if matches!(ids, Ids::OfFolder) {
        note_files(&mut found, options.format);
    }
    let unnamed = PairColumns::default();
    let named = options.columns.as_ref().unwrap_or(&unnamed);
    let source = Source::new(options.format, named, ids, found.notes);
    let mut sink = Sink { path: PathBuf::new(), source, seen: Seen::new(options), make };
    for file in &found.files {
        sink.path.clone_from(file);
        read_file(file, options.format, named, &mut sink)?;
    }
    sink.finish(path, &found.left)
}

/// Checks that columns are named for a format that has them.
fn check_columns(options: &ReadOptions) -> Result<(), DataError> {
    let is_named = options.columns.as_ref().is_some_and(|columns| *columns != PairColumns::default());
    if is_named && options.format != Format::Pairs { Err(DataError::UnusedColumns) } else { Ok(()) }
}

/// Leaves out the files of a folder that the format cannot have, and notes what is read and what is left.
fn note_files(found: &mut folder::Files, format: Format) {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let fits = |path: &PathBuf| kind(path).is_some_and(|kind| format.fits(kind));
    if found.files.iter().any(fits) {
        let (read, left): (Vec<_>, Vec<_>) = std::mem::take(&mut found.files).into_iter().partition(fits);
        found.left.extend(left.iter().map(name));
        found.files = read;
    }
    if found.files.len() > 1 {
        found.notes.push(Note::Files { read: found.files.iter().map(name).collect() });
    }
    if !found.left.is_empty() && !found.files.is_empty() {
        found.notes.push(Note::FilesLeft { left: found.left.clone() });
    }
}

/// Logs each note once in a process: a study reads the same file for every run.
fn log(path: &Path, notes: &[Note]) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    for note in notes {
        if !logged.insert(format!("{}: {note}", path.display())) {
            continue;
        }
        if note.is_warning() {
            tracing::warn!("{}: {note}", path.display());
        } else {
            tracing::info!("{}: {note}", path.display());
        }
    }
}

fn read_file(path: &Path, format: Format, named: &PairColumns, rows: &mut dyn Rows) -> Result<(), DataError> {
    let unknown = || DataError::UnknownExtension { path: path.to_owned(), expected: format.extensions() };
    let kind = kind(path).filter(|&kind| format.fits(kind)).ok_or_else(unknown)?;
    let columns = format.columns(named);
    let wanted = Wanted { format, columns: columns.as_deref() };
    match kind {
        FileKind::Json => json::read(path, &wanted, rows),
        FileKind::Parquet => columnar::read_parquet(path, &wanted, rows),
        FileKind::Arrow => columnar::read_arrow(path, &wanted, rows),
        FileKind::Delimited(separator) => delimited::read(path, separator, &wanted, rows),
    }
}

/// Makes records of rows and collects them.
struct Sink<'a, T> {
    path: PathBuf,
    source: Source<'a>,
    seen: Seen<T>,
    make: Make<T>,
}

impl<T: Item> Sink<'_, T> {
    /// Returns the records of all files in `path`, of which these files are left aside.
    fn finish(self, path: &Path, left: &[String]) -> Result<(Vec<T>, ReadReport), DataError> {
        let Self { mut source, seen, .. } = self;
        let (records, mut report) = seen.finish(path, left, &mut source.notes)?;
        if let Some(column) = source.missing.pop_first() {
            let problem = FileProblem::MissingColumn { column, columns: source.first };
            return Err(DataError::File { path: path.to_owned(), problem });
        }
        report.notes = source.notes.finish();
        log(path, &report.notes);
        Ok((records, report))
    }
}

impl<T: Item> Rows for Sink<'_, T> {
    fn columns(&mut self, columns: &[String]) -> Result<(), DataError> {
        if let Some(problem) = self.source.check_header(columns) {
            return Err(DataError::File { path: self.path.clone(), problem });
        }
        self.source.missing.clear();
        self.source.header = columns.to_vec();
        Ok(())
    }

    fn row(&mut self, place: &Place, row: Result<Row, DataError>) -> Result<(), DataError> {
        let read = row.and_then(|row| {
            if self.source.first.is_empty() {
                self.source.first = row.keys().cloned().collect();
            }
            self.source.missing.retain(|column| !row.contains_key(column));
            let record = (self.make)(&mut self.source, place, &row)?;
            if let Some(record) = &record {
                self.source.unpaired = Some(record.label().is_some());
            }
            Ok(record)
        });
        self.seen.add(place, read, &mut self.source.notes)
    }
}

/// Makes a record of a row in the source's format.
fn record(source: &mut Source<'_>, place: &Place, row: &Row) -> Result<Option<PreferenceRecord>, DataError> {
    let mut record = match source.format {
        Format::Pairs => pairs::record(source.pair_row(place, row))?,
        Format::HhRlhf => {
            let (record, prefixes) = hh_rlhf::record(place, row)?;
            source.notes.early_difference += usize::from(prefixes == hh_rlhf::Prefixes::Differ);
            record
        }
        Format::Gair => gair::record(place, row)?,
        Format::Ultrafeedback => ultrafeedback::record(place, row)?,
        Format::Shp(ratio) => match shp::record(place, row, ratio)? {
            Some(record) => record,
            None => return Ok(None),
        },
        Format::Records => records::record(place, row)?,
    };
    source.name(place, row, &mut record.id);
    record.check().map_err(|(field, problem)| fields::fault(place, field, problem))?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests;
