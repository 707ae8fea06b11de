//! Formats, and options and reports of reading.

use std::num::NonZeroUsize;

use seeds::Seeds;
use serde::{Deserialize, Serialize};

use super::column_roles::PairColumns;
use super::notes::Note;
use super::shp::{self, ScoreRatio};
use super::{gair, pairs, ultrafeedback};
use crate::error::DataError;
use crate::file_kind::{self, FileKind};
use crate::place::Places;

/// The layout of a file of preferences. The end of its name gives the kind of file: `.jsonl`, `.ndjson`, `.json`, `.csv`
/// and `.tsv`, gzipped or not, `.parquet`, `.arrow` or `.feather`.
///
/// JSON is one object a line or an array of objects, under any of its names. In CSV and TSV the first row names the
/// columns, and an empty cell is a missing value. Parquet is read with snappy, zstd or gzip compression or none. Arrow
/// is read as a file or a stream, with LZ4, zstd or no compression.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `chosen`, `rejected` and `prompt`, each as text or messages. Columns that people use for these are recognized;
    /// [`PairColumns`] names others.
    ///
    /// Text that goes with messages becomes a message. Where the responses are whole conversations, the prompt is the
    /// turns that both share. Without a prompt, text is split after the characters that both responses share, less a
    /// space at the end, which belongs to the next token. A [`Note`](crate::Note) reports each of these.
    ///
    /// `tools`, `chat_template_kwargs` and `documents` reach the chat template; other columns are ignored.
    Pairs,
    /// Anthropic's hh-rlhf: `chosen` and `rejected`, each a whole dialogue. The prompt ends at the last
    /// `\n\nAssistant:` of both.
    ///
    /// Dialogues that differ earlier are split at the last `\n\nAssistant:` that both share. Their responses hold all
    /// turns from there.
    HhRlhf,
    /// GAIR's preference-dissection, not as CSV: `query`, `response_1` and `response_2` (`content`), and
    /// `preference_labels`, whose 33 fields are `response_1` or `response_2`.
    ///
    /// The fields' names are the annotators' (`human`, `gpt-4-1106-preview`, …); a null is no label. The domain is
    /// `scenario_auto-j`.
    Gair,
    /// UltraFeedback as published, with ratings, not as CSV: `instruction` and `completions`. The binarized set is read
    /// as [`Format::Pairs`].
    ///
    /// Each score of a completion is an annotator: `overall_score`, `fine-grained_score`, `instruction_following`,
    /// `honesty`, `truthfulness`, `helpfulness`. It prefers the completion with the highest score, and two highest are
    /// a tie. A record with a score that is missing or "N/A" has no label of that annotator. The domain is `source`.
    Ultrafeedback,
    /// SHP, the preferences of Reddit: `history`, `human_ref_A`, `human_ref_B`, `labels` (1 where A is preferred) and
    /// `score_ratio`, which selects pairs. Pairs that are not selected are never held in memory.
    ///
    /// Ids are post and comments; the domain is the subreddit.
    Shp(ScoreRatio),
    /// [`PreferenceRecord`](crate::PreferenceRecord)s as JSON, as [`write_records`](crate::write_records) writes them.
    Records,
}

/// How preferences are read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadOptions {
    /// The layout of the file.
    pub format: Format,
    /// Columns of a file of pairs that have other names than those that are recognized.
    pub columns: Option<PairColumns>,
    /// Up to this many bad rows are skipped and reported; one more is an error.
    pub skip_bad: usize,
    /// A random sample of the records that pass the format's filter; all records without it.
    pub sample: Option<Sample>,
}

/// A random sample of records, drawn while a file is read, so that the others are never held in memory.
///
/// Samples nest: with the same seeds and file a smaller one is a part of a larger one. Draws from the stream `sample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How many records; all where there are fewer.
    pub records: NonZeroUsize,
    /// The seeds of the draw.
    pub seeds: Seeds,
}

/// What reading found.
#[derive(Debug, Default)]
pub struct ReadReport {
    /// Records that were read.
    pub records: usize,
    /// Rows that the format's filter leaves out: SHP's score ratio.
    pub filtered: usize,
    /// Records that the sample leaves out.
    pub unsampled: usize,
    /// Records with a response that equals the first one. Training cannot learn from such a pair.
    pub identical: usize,
    /// Records in which all responses begin with the same turns.
    pub shared_turns: usize,
    /// The errors of the rows that were skipped, each with file and line.
    pub skipped: Vec<DataError>,
    /// What was recognized, changed or left aside. Each is also logged once.
    pub notes: Vec<Note>,
    /// The place of each record.
    pub places: Places,
}

impl ReadOptions {
    /// Returns options without columns of other names, with all records, and without skipping.
    pub fn new(format: Format) -> Self {
        Self { format, columns: None, skip_bad: 0, sample: None }
    }
}

/// The fields of UltraFeedback's completions that are read. Critiques and rationales are most of the file.
const SCORED: [&str; 4] = ["response", "overall_score", "fine-grained_score", "Rating"];

impl Format {
    /// Returns the columns that mean something in this format; `None` where all do.
    pub(super) fn columns(self, named: &PairColumns) -> Option<Vec<&str>> {
        Some(match self {
            Self::Pairs => pairs::columns(named),
            Self::Gair => gair::COLUMNS.to_vec(),
            Self::Ultrafeedback => ultrafeedback::COLUMNS.to_vec(),
            Self::Shp(_) => shp::COLUMNS.to_vec(),
            Self::HhRlhf => vec!["id", "chosen", "rejected", "domain"],
            Self::Records => return None,
        })
    }

    /// Whether the innermost field `leaf` of one of the [`columns`](Self::columns) means something in this format.
    pub(super) fn reads_leaf(self, column: &str, leaf: &str) -> bool {
        self != Self::Ultrafeedback || column != "completions" || SCORED.contains(&leaf)
    }

    /// Returns the columns that hold numbers, for files in which every cell is text.
    pub(super) fn numbers(self) -> &'static [&'static str] {
        match self {
            Self::Shp(_) => &["score_ratio", "labels"],
            _ => &[],
        }
    }

    /// Whether a file of this kind can have this format.
    pub(super) fn fits(self, kind: FileKind) -> bool {
        match kind {
            FileKind::Json => true,
            FileKind::Parquet | FileKind::Arrow => self != Self::Records,
            FileKind::Delimited(_) => !matches!(self, Self::Records | Self::Gair | Self::Ultrafeedback),
        }
    }

    /// Returns the endings of files of this format.
    pub(super) fn extensions(self) -> &'static str {
        match self {
            Self::Records => ".jsonl, .ndjson or .json (each also with .gz)",
            Self::Gair | Self::Ultrafeedback => {
                ".jsonl, .ndjson or .json (each also with .gz), .parquet, .arrow or .feather"
            }
            _ => file_kind::READ,
        }
    }
}
