//! The error of this crate.

use std::path::PathBuf;

use files::json_lines::JsonLinesError;
use pref_data::DataError;

/// Why an audit is not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Preferences cannot be read or written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A benchmark's file cannot be read.
    #[error(transparent)]
    Bench(#[from] JsonLinesError),
    /// A line of a benchmark's file holds no question.
    #[error(
        "{}, line {line}: no question; give `turns` as a list of texts, or `prompt` or `question` as text",
        path.display()
    )]
    NoQuestion {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The file holds no pair with a preference.
    #[error(
        "{}: no pair has a preference of `{annotator}`; {unlabelled} without its label, {ties} ties, {unreadable} unreadable",
        path.display()
    )]
    NoPairs {
        /// The file.
        path: PathBuf,
        /// The annotator.
        annotator: String,
        /// Records without a label of it.
        unlabelled: usize,
        /// Records that it labeled a tie.
        ties: usize,
        /// Rows that cannot be read.
        unreadable: usize,
    },
    /// The file holds single responses, of which no pair can be made.
    #[error(
        "{}: has {responses} single responses and {unreadable} unreadable rows, but no prompt with a desirable and an \
         undesirable response; an audit needs pairs",
        path.display()
    )]
    NoCounterparts {
        /// The file.
        path: PathBuf,
        /// The number of responses.
        responses: usize,
        /// Rows that cannot be read.
        unreadable: usize,
    },
    /// Single responses would be written as pairs.
    #[error("{}: holds single responses, and a cleaned file would hold pairs; only files of pairs are cleaned", path.display())]
    SingleResponses {
        /// The file.
        path: PathBuf,
    },
    /// The file has no label of the annotator.
    #[error("{}: no label of `{annotator}`; the annotators are: {}", path.display(), known.join(", "))]
    UnknownAnnotator {
        /// The file.
        path: PathBuf,
        /// The annotator.
        annotator: String,
        /// The annotators of the file.
        known: Vec<String>,
    },
    /// No pair of a second set of labels is in the audited file.
    #[error(
        "{}: none of its pairs is in {}; a pair matches if prompt and both responses are the same",
        second.display(), path.display()
    )]
    NoMatch {
        /// The second labels.
        second: PathBuf,
        /// The audited file.
        path: PathBuf,
    },
    /// Margins of a training run cannot be read.
    #[error("{}: {problem}; give the pair_deltas.parquet of a run", path.display())]
    Deltas {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// No pair of a training run is in the audited file.
    #[error(
        "{}: no pair of the second half of its first epoch has an id of {}; audit the file that the run trained on",
        deltas.display(), path.display()
    )]
    NoDeltas {
        /// The margins.
        deltas: PathBuf,
        /// The audited file.
        path: PathBuf,
    },
    /// A statistic cannot be computed.
    #[error("cannot compute the {what}")]
    Statistics {
        /// The statistic.
        what: &'static str,
        /// The reason.
        #[source]
        source: stats::Error,
    },
    /// The cleaned file would replace the audited one.
    #[error("{}: is the audited file, whose other columns would be lost; give --out another name", path.display())]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// The log of changes cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: std::io::Error,
    },
}

impl AuditError {
    /// Returns whether the input is at fault, and not the file system on writing.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Data(DataError::Io { action, .. }) => *action != "write",
            Self::Write { .. } | Self::Statistics { .. } => false,
            _ => true,
        }
    }
}
