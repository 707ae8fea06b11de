//! What a file of preferences holds, and how it is read.

use std::num::NonZeroUsize;

use seeds::Seeds;
use serde::{Deserialize, Serialize};

use super::{FileKind, ScoreRatio, gair, pairs, shp, ultrafeedback};
use crate::error::DataError;

/// The annotator whose label a file of chosen and rejected responses carries.
pub const DEFAULT_ANNOTATOR: &str = "human";

/// What a file of preferences holds. Its name says how it is written: `.jsonl`, `.jsonl.gz`, `.parquet`, `.arrow`,
/// `.feather` or `.csv`.
///
/// Parquet is read with snappy, zstd or gzip compression or none, Arrow as file or stream (as `datasets` saves it) with LZ4,
/// zstd or none.
/// In CSV the first row names the columns, and an empty cell is a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Files of any kind with `chosen`, `rejected` and, if the responses do not begin with it, `prompt`: each a text or
    /// (but for CSV) a list of `{role, content}`. `id` and `domain` are read where they are there; other fields are left
    /// alone.
    ///
    /// Without a `prompt` it is the longest beginning that the responses share: whole messages, or characters of
    /// text, less a space at its end, which belongs to the word that follows. With messages as responses and a text
    /// as `prompt`, as in the binarised UltraFeedback, the responses are full conversations and the prompt is taken
    /// from them too; so it is where `prompt` is messages that both responses repeat.
    Pairs,
    /// Anthropic's hh-rlhf, in files of any kind: `chosen` and `rejected`, each a whole dialogue. The prompt
    /// goes to the last `\n\nAssistant:`. A few dialogues part earlier; their prompt goes to the last
    /// `\n\nAssistant:` that both share, and the responses are all that follows in each, later turns included, so
    /// that none is shown after a prompt that it does not belong to. These are counted in a warning.
    HhRlhf,
    /// GAIR's preference-dissection, in files of any kind but CSV: `query`, `response_1` and `response_2`
    /// (`content`), and `preference_labels`, whose 33 fields say `response_1` or `response_2`. Their names are the
    /// annotators' (`human`, `gpt-4-1106-preview`, …); a null is no label. The domain is `scenario_auto-j`. Rows have
    /// no id, so it is the row's number.
    Gair,
    /// UltraFeedback as it was published, with ratings instead of pairs, in files of any kind but CSV:
    /// `instruction` and `completions`. Each respect that completions are scored in is an annotator: `overall_score`,
    /// `fine-grained_score`, `instruction_following`, `honesty`, `truthfulness`, `helpfulness`. It prefers the
    /// completion with the highest score; two highest are a tie; one that is missing or "N/A" leaves the record
    /// without this annotator's label. The domain is `source`. (The binarised set is read as [`Format::Pairs`].)
    Ultrafeedback,
    /// SHP, the preferences of Reddit, in files of any kind: `history`, `human_ref_A`, `human_ref_B`, `labels` (1 where A
    /// is preferred) and `score_ratio`, by which pairs are kept. Others are never held in memory.
    /// Ids are post and comments; the domain is the subreddit.
    Shp(ScoreRatio),
    /// This crate's own `.jsonl` or `.jsonl.gz` of [`PreferenceRecord`](crate::PreferenceRecord)s, as
    /// [`write_records`](crate::write_records) writes it.
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
    /// Keeps a random sample of the records that pass the format's filter; all where it is not given.
    pub sample: Option<Sample>,
}

/// A random sample of records that is drawn while a file is read, so that the others are never held in memory.
///
/// Samples nest: with the same seeds and file a smaller one is a part of a larger one. Draws from the stream `sample`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How many records; all where there are fewer.
    pub records: NonZeroUsize,
    /// What they are drawn with.
    pub seeds: Seeds,
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
    /// Records that the sample leaves out.
    pub unsampled: usize,
    /// What was wrong with the rows that were skipped.
    pub skipped: Vec<DataError>,
}

impl ReadOptions {
    /// With the usual names of columns, all records, and no bad row.
    pub fn new(format: Format) -> Self {
        Self { format, columns: None, skip_bad: 0, sample: None }
    }
}

/// Fields of a completion of UltraFeedback that mean something here; critiques and rationales are most of the file.
const SCORED: [&str; 4] = ["response", "overall_score", "fine-grained_score", "Rating"];

impl Format {
    /// The columns that mean something here; none where the format is lines only.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Pairs => &pairs::COLUMNS,
            Self::Gair => &gair::COLUMNS,
            Self::Ultrafeedback => &ultrafeedback::COLUMNS,
            Self::Shp(_) => &shp::COLUMNS,
            Self::HhRlhf => &["id", "chosen", "rejected", "domain"],
            Self::Records => &[],
        }
    }

    /// Whether the innermost field `leaf` of one of the [`columns`](Self::columns) means something here.
    pub(super) fn reads_leaf(self, column: &str, leaf: &str) -> bool {
        self != Self::Ultrafeedback || column != "completions" || SCORED.contains(&leaf)
    }

    /// Columns that hold numbers, for files in which every cell is text.
    pub(super) fn numbers(self) -> &'static [&'static str] {
        match self {
            Self::Shp(_) => &["score_ratio", "labels"],
            _ => &[],
        }
    }

    /// Whether rows of this format can stand in a file of this kind.
    pub(super) fn fits(self, kind: FileKind) -> bool {
        match kind {
            FileKind::Lines(_) => true,
            FileKind::Parquet | FileKind::Arrow => self != Self::Records,
            FileKind::Csv => !matches!(self, Self::Records | Self::Gair | Self::Ultrafeedback),
        }
    }

    /// The names that files of this format have.
    pub(super) fn extensions(self) -> &'static str {
        match self {
            Self::Records => ".jsonl or .jsonl.gz",
            Self::Gair | Self::Ultrafeedback => ".jsonl, .jsonl.gz, .parquet, .arrow or .feather",
            _ => ".jsonl, .jsonl.gz, .parquet, .arrow, .feather or .csv",
        }
    }
}
