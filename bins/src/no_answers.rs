//! The error of a benchmark without answers.

use std::path::PathBuf;

/// No model has answered.
#[derive(Debug)]
pub(crate) struct NoAnswers {
    pub(crate) folder: PathBuf,
}

impl std::fmt::Display for NoAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has no answers; run `mtbench answer` first", self.folder.display())
    }
}

impl std::error::Error for NoAnswers {}
