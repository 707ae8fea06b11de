//! Files of preferences, read into records.

mod columns;
mod fields;
mod gair;
mod hh_rlhf;
mod lines;
mod pairs;
mod records;
mod shp;
mod ultrafeedback;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use serde::{Deserialize, Serialize};

pub use shp::ScoreRatio;

use crate::error::{DataError, Place};
use crate::record::{PreferenceRecord, Text};

/// The annotator whose label a file of chosen and rejected responses carries.
pub const DEFAULT_ANNOTATOR: &str = "human";

/// What a file of preferences holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `.jsonl`, `.jsonl.gz` or `.parquet` with `chosen`, `rejected` and, if the responses do not begin with it,
    /// `prompt`: each a text or a list of `{role, content}`. `id` and `domain` are read where they are there; other
    /// fields are left alone. Parquet is read with snappy compression or none.
    ///
    /// Without a `prompt` it is the longest beginning that the responses share: whole messages, or characters of
    /// text, less a space at its end, which belongs to the word that follows. With messages as responses and a text
    /// as `prompt`, as in the binarised UltraFeedback, the responses are full conversations and the prompt is taken
    /// from them too; so it is where `prompt` is messages that both responses repeat.
    Pairs,
    /// Anthropic's hh-rlhf: `.jsonl` or `.jsonl.gz` with `chosen` and `rejected`, each a whole dialogue. The prompt
    /// goes to the last `\n\nAssistant:`. A few dialogues part earlier; their prompt goes to the last
    /// `\n\nAssistant:` that both share, and the responses are all that follows in each, later turns included, so
    /// that none is shown after a prompt that it does not belong to. These are counted in a warning.
    HhRlhf,
    /// GAIR's preference-dissection: `.parquet`, `.jsonl` or `.jsonl.gz` with `query`, `response_1` and `response_2`
    /// (`content`), and `preference_labels`, whose 33 fields say `response_1` or `response_2`. Their names are the
    /// annotators' (`human`, `gpt-4-1106-preview`, …); a null is no label. The domain is `scenario_auto-j`. Rows have
    /// no id, so it is the row's number.
    Gair,
    /// UltraFeedback as it was published, with ratings instead of pairs: `.parquet`, `.jsonl` or `.jsonl.gz` with
    /// `instruction` and `completions`. Each respect that completions are scored in is an annotator: `overall_score`,
    /// `fine-grained_score`, `instruction_following`, `honesty`, `truthfulness`, `helpfulness`. It prefers the
    /// completion with the highest score; two highest are a tie; one that is missing or "N/A" leaves the record
    /// without this annotator's label. The domain is `source`. (The binarised set is read as [`Format::Pairs`].)
    Ultrafeedback,
    /// SHP, the preferences of Reddit: `.parquet`, `.jsonl` or `.jsonl.gz` with `history`, `human_ref_A`, `human_ref_B`,
    /// `labels` (1 where A is preferred) and `score_ratio`, by which pairs are kept. Others are never held in memory.
    /// Ids are post and comments; the domain is the subreddit.
    Shp(ScoreRatio),
    /// This crate's own `.jsonl` or `.jsonl.gz` of [`PreferenceRecord`]s, as [`write_records`] writes it.
    Records,
}

/// How preferences are read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// What the file holds.
    pub format: Format,
    /// Names of the columns or fields of a file of pairs, where they are not `prompt`, `chosen` and `rejected`.
    pub columns: Option<PairColumns>,
    /// Up to so many rows at fault are left out and listed; one more is an error.
    pub skip_bad: usize,
}

/// Which columns or fields of a file of pairs hold what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairColumns {
    /// The prompt's.
    pub prompt: String,
    /// The preferred response's.
    pub chosen: String,
    /// The other response's.
    pub rejected: String,
}

/// What became of the rows of a file.
#[derive(Debug, Default)]
pub struct ReadReport {
    /// Records that came out.
    pub records: usize,
    /// Rows that the format's filter leaves out: SHP's score ratio.
    pub filtered: usize,
    /// What was wrong with the rows that were skipped.
    pub skipped: Vec<DataError>,
}

impl ReadOptions {
    /// With the usual names of columns, and no bad row.
    pub fn new(format: Format) -> Self {
        Self { format, columns: None, skip_bad: 0 }
    }
}

/// Reads the preferences in the file at `path`, or in all files of the folder at `path`, in the order of their names.
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
    let mut seen = Seen::new(options.skip_bad);
    if path.is_dir() {
        for file in files(path)? {
            read_file(&file, options, &mut seen, Ids::OfFolder)?;
        }
    } else {
        read_file(path, options, &mut seen, Ids::OfFile)?;
    }
    seen.finish(path)
}

/// Writes records as JSONL, one a line, such as [`Format::Records`] reads. The file appears whole or not at all.
///
/// # Errors
///
/// [`DataError::Record`] for a record that could not be read back, [`DataError::UnknownExtension`] for a name that
/// does not end in `.jsonl`, [`DataError::Io`] where writing fails.
pub fn write_records(path: impl AsRef<Path>, records: &[PreferenceRecord]) -> Result<(), DataError> {
    let path = path.as_ref();
    if kind(path) != Some(FileKind::Lines(Compression::None)) {
        return Err(DataError::UnknownExtension { path: path.to_owned(), expected: ".jsonl" });
    }
    for record in records {
        record.check().map_err(|(field, problem)| DataError::Record {
            id: record.id.clone(),
            field,
            problem,
        })?;
    }
    let write = || {
        let mut file = AtomicWriteFile::open(path)?;
        let mut buffer = std::io::BufWriter::new(&mut file);
        for record in records {
            serde_json::to_writer(&mut buffer, record)?;
            buffer.write_all(b"\n")?;
        }
        buffer.flush()?;
        drop(buffer);
        file.commit()
    };
    write().map_err(|source| DataError::Io { action: "write", path: path.to_owned(), source })
}

impl Format {
    /// The columns of a parquet file that mean something here; none where the format is lines only.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Pairs => &pairs::COLUMNS,
            Self::Gair => &gair::COLUMNS,
            Self::Ultrafeedback => &ultrafeedback::COLUMNS,
            Self::Shp(_) => &shp::COLUMNS,
            Self::HhRlhf | Self::Records => &[],
        }
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

/// What the name of a file says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    Lines(Compression),
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
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
    match (kind(path), format) {
        (Some(FileKind::Lines(compression)), _) => lines::read(path, compression, &mut each)?,
        (Some(FileKind::Parquet), format) if !format.columns().is_empty() => {
            let named = options.columns.iter().flat_map(|c| [&*c.prompt, &*c.chosen, &*c.rejected]);
            let columns: Vec<&str> = format.columns().iter().copied().chain(named).collect();
            columns::read(path, &columns, &mut each)?;
        }
        _ => {
            return Err(DataError::UnknownExtension {
                path: path.to_owned(),
                expected: match format {
                    Format::HhRlhf | Format::Records => ".jsonl or .jsonl.gz",
                    _ => ".jsonl, .jsonl.gz or .parquet",
                },
            });
        }
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

/// The files of a folder whose kind is known, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let failed = |source| DataError::Io { action: "read", path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && kind(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn kind(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    if name.ends_with(".jsonl") {
        Some(FileKind::Lines(Compression::None))
    } else if name.ends_with(".jsonl.gz") {
        Some(FileKind::Lines(Compression::Gzip))
    } else if name.ends_with(".parquet") {
        Some(FileKind::Parquet)
    } else {
        None
    }
}

fn open(path: &Path) -> Result<File, DataError> {
    File::open(path).map_err(|source| DataError::Io { action: "read", path: path.to_owned(), source })
}

/// The records read so far.
struct Seen {
    records: Vec<PreferenceRecord>,
    places: BTreeMap<String, Place>,
    report: ReadReport,
    skip_bad: usize,
}

impl Seen {
    fn new(skip_bad: usize) -> Self {
        Self { records: Vec::new(), places: BTreeMap::new(), report: ReadReport::default(), skip_bad }
    }

    /// Takes a row's record, or skips what is wrong with the row while that is allowed.
    fn add(&mut self, place: &Place, read: Result<Read, DataError>) -> Result<(), DataError> {
        let error = match read {
            Ok(Read::Filtered) => {
                self.report.filtered += 1;
                return Ok(());
            }
            Ok(Read::Record(record)) => match self.places.get(&record.id) {
                None => {
                    self.places.insert(record.id.clone(), place.clone());
                    self.records.push(record);
                    return Ok(());
                }
                Some(first) => {
                    DataError::DuplicateId { place: place.clone(), id: record.id, first: first.clone() }
                }
            },
            Err(error) => error,
        };
        if self.report.skipped.len() == self.skip_bad {
            return Err(error);
        }
        self.report.skipped.push(error);
        Ok(())
    }

    fn finish(mut self, path: &Path) -> Result<(Vec<PreferenceRecord>, ReadReport), DataError> {
        if self.records.is_empty() {
            return Err(DataError::NoRecords { path: path.to_owned() });
        }
        let blank = self.records.iter().filter(|record| record.responses.iter().any(is_blank)).count();
        if blank > 0 {
            tracing::warn!(path = %path.display(), records = blank, "some records have a response of nothing but spaces");
        }
        self.report.records = self.records.len();
        Ok((self.records, self.report))
    }
}

fn is_blank(response: &Text) -> bool {
    match response {
        Text::Plain(text) => text.trim().is_empty(),
        Text::Chat(messages) => messages.last().is_some_and(|message| message.content.trim().is_empty()),
    }
}

#[cfg(test)]
mod tests;
