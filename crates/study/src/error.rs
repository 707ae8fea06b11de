//! The error of this crate.

use std::path::PathBuf;

use experiment::ExperimentError;

/// Why a study cannot start, continue or be reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] trainer::recipe::RecipeError),
    /// The experiment failed.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// The preferences cannot be read.
    #[error(transparent)]
    Data(#[from] pref_data::DataError),
    /// The raters' choices cannot be analyzed.
    #[error(transparent)]
    Raters(#[from] human_study::Error),
    /// The ratings of answers cannot be read.
    #[error(transparent)]
    Ratings(#[from] compare::Error),
    /// The paper's tables cannot be read.
    #[error(transparent)]
    Paper(#[from] crate::paper::Error),
    /// A table, figure or page cannot be written.
    #[error(transparent)]
    Report(#[from] report::ReportError),
    /// A file of results cannot be written.
    #[error(transparent)]
    Results(#[from] experiment::results::ResultsError),
    /// The results of an earlier study do not show how much scores vary.
    #[error("{} {reason}; name a study with two seeds", path.display())]
    Pilot {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A file of ratings by judge and people cannot be used.
    #[error("{}: {reason}", path.display())]
    Votes {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder has no study.
    #[error("{} has no study; name the folder of --out or output.dir", folder.display())]
    NoStudy {
        /// The folder.
        folder: PathBuf,
    },
}

impl StudyError {
    pub(crate) fn stats(what: impl Into<String>) -> impl FnOnce(stats::Error) -> Self {
        let of_experiment = ExperimentError::stats(what);
        |source| of_experiment(source).into()
    }

    /// Returns whether the caller asked to stop.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Experiment(ExperimentError::Stopped))
    }

    /// Returns whether another rank failed first, as far as this rank can see.
    pub fn is_from_another_rank(&self) -> bool {
        matches!(self, Self::Experiment(error) if error.is_from_another_rank())
    }

    /// Returns whether the cause is bad input, as opposed to a failing machine.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Recipe(_)
            | Self::NoStudy { .. }
            | Self::Data(_)
            | Self::Ratings(_)
            | Self::Pilot { .. }
            | Self::Votes { .. } => true,
            Self::Experiment(error) => error.is_bad_input(),
            _ => false,
        }
    }
}
