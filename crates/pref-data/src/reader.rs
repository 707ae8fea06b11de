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
use std::path::Path;

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

/// Reads the preferences in the file at `path`.
///
/// A file of pairs gives records of two responses, chosen first, with the label of [`DEFAULT_ANNOTATOR`]. A record
/// without an `id` gets the number of its line or row.
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
    let path = path.as_ref();
    let mut seen = Seen::default();
    let mut parted = 0;
    let mut each = |place: &Place, row: fields::Row| {
        let record = match format {
            Format::Pairs => pairs::record(place, &row)?,
            Format::HhRlhf => {
                let (record, prefixes) = hh_rlhf::record(place, &row)?;
                parted += usize::from(prefixes == hh_rlhf::Prefixes::Part);
                record
            }
            Format::Gair => gair::record(place, &row)?,
            Format::Ultrafeedback => ultrafeedback::record(place, &row)?,
            Format::Shp(ratio) => match shp::record(place, &row, ratio)? {
                Some(record) => record,
                None => return Ok(()),
            },
            Format::Records => records::record(place, &row)?,
        };
        seen.add(place, record)
    };
    match (kind(path), format) {
        (Some(FileKind::Lines(compression)), _) => lines::read(path, compression, &mut each)?,
        (Some(FileKind::Parquet), format) if !format.columns().is_empty() => {
            columns::read(path, format.columns(), &mut each)?;
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
    seen.finish(path, parted)
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

/// What takes a row of a file.
type Each<'a> = dyn FnMut(&Place, fields::Row) -> Result<(), DataError> + 'a;

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
#[derive(Default)]
struct Seen {
    records: Vec<PreferenceRecord>,
    places: BTreeMap<String, usize>,
}

impl Seen {
    fn add(&mut self, place: &Place, record: PreferenceRecord) -> Result<(), DataError> {
        record.check().map_err(|(field, problem)| DataError::Field {
            place: place.clone(),
            field,
            problem,
        })?;
        if let Some(first) = self.places.insert(record.id.clone(), place.number) {
            return Err(DataError::DuplicateId { place: place.clone(), id: record.id, first });
        }
        self.records.push(record);
        Ok(())
    }

    fn finish(self, path: &Path, parted: usize) -> Result<Vec<PreferenceRecord>, DataError> {
        if self.records.is_empty() {
            return Err(DataError::NoRecords { path: path.to_owned() });
        }
        if parted > 0 {
            tracing::warn!(
                path = %path.display(),
                pairs = parted,
                "the two dialogues of some pairs part before the last answer; each response holds all that follows"
            );
        }
        let blank = self.records.iter().filter(|record| record.responses.iter().any(is_blank)).count();
        if blank > 0 {
            tracing::warn!(path = %path.display(), records = blank, "some records have a response of nothing but spaces");
        }
        Ok(self.records)
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
