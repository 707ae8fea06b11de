//! What can go wrong in a study.

use std::path::{Path, PathBuf};

use report::ReportError;

use crate::results::ResultsError;

/// Why a study could not start, go on or be reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The recipe cannot be read or asks for something impossible.
    #[error(transparent)]
    Recipe(#[from] trainer::recipe::RecipeError),
    /// The recipe is well-formed but cannot be run.
    #[error("{0}")]
    Unsupported(String),
    /// A training run failed.
    #[error(transparent)]
    Train(#[from] trainer::TrainError),
    /// A model cannot be read or run.
    #[error(transparent)]
    Policy(#[from] policy_model::PolicyError),
    /// Records cannot be read or written.
    #[error(transparent)]
    Data(#[from] pref_data::DataError),
    /// The benchmark failed.
    #[error(transparent)]
    Bench(#[from] mtbench::Error),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    /// The raters' choices make no table.
    #[error(transparent)]
    Raters(#[from] human_study::Error),
    /// A statistic is not defined for these data.
    #[error("{what}")]
    Stats {
        /// What was being estimated.
        what: String,
        /// Why it is not defined.
        source: stats::Error,
    },
    /// The paper's own tables cannot be read.
    #[error(transparent)]
    Paper(#[from] paper::Error),
    /// A table, figure or page cannot be written.
    #[error(transparent)]
    Render(#[from] ReportError),
    /// The file of all scores cannot be read or written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// There is no room for what comes next.
    #[error(
        "the disk is full; what is done is kept, and once there is room the same command goes on from here"
    )]
    DiskFull(#[source] Box<Self>),
    /// A file of the store cannot be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done, such as `cannot write`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A worker process failed.
    #[error(
        "worker {shard} of {of} ended with {status}; its messages are above, and what was computed is kept"
    )]
    Worker {
        /// Which worker, from 1.
        shard: usize,
        /// How many there are.
        of: usize,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// An endpoint cannot be asked, or no longer.
    #[error(transparent)]
    Call(llm_client::Error),
    /// Judging ended early.
    #[error(
        "judging by {judge} ended early: {source}; what was said is kept, and the same command goes on from here"
    )]
    Judge {
        /// The judge.
        judge: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Some verdicts could not be had.
    #[error(
        "{failed} calls to {judge} about the answers of {model} failed for good (see above); what was said is kept: run the \
         same command to ask for the rest"
    )]
    Unjudged {
        /// The judge.
        judge: String,
        /// Whose answers.
        model: String,
        /// How many calls.
        failed: usize,
    },
    /// A policy could not answer.
    #[error("the policy cannot answer: {0}")]
    Responder(Box<dyn std::error::Error + Send + Sync>),
    /// A folder in which no question was asked.
    #[error("{} is no folder of a study: no question was asked in it; name the folder that --out or output.dir named", folder.display())]
    NoStudy {
        /// The folder.
        folder: PathBuf,
    },
    /// A name of no cell, or of several.
    #[error("{}", unknown_cell(id, folder, matches))]
    UnknownCell {
        /// The name, or its beginning.
        id: String,
        /// The study's folder.
        folder: PathBuf,
        /// The cells whose names begin so.
        matches: Vec<String>,
    },
    /// A training run of fewer steps than checkpoints.
    #[error(
        "{cell} has {there} checkpoints, not {wanted}: its training is too short; take more pairs, a smaller train.batch_size, or \
         fewer train.checkpoints"
    )]
    TooShort {
        /// The run, in words.
        cell: String,
        /// Checkpoints that it comes to.
        there: usize,
        /// Checkpoints that are asked for.
        wanted: usize,
    },
    /// No policy of a study could be trained and evaluated.
    #[error("none of the {policies} trained policies could be had; the first: {what}: {reason}")]
    AllFailed {
        /// How many there should be.
        policies: usize,
        /// The first of them, in words.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// Some policies of a study are missing.
    #[error(
        "{failed} of {policies} trained policies are missing, and the report says why; the same command tries them again"
    )]
    SomeFailed {
        /// How many are missing.
        failed: usize,
        /// How many there should be.
        policies: usize,
    },
    /// Somebody asked to stop.
    #[error("stopped; what is done is kept, and the same command goes on from here")]
    Stopped,
}

fn unknown_cell(id: &str, folder: &Path, matches: &[String]) -> String {
    match matches {
        [] => format!(
            "no cell in {} has a name that begins with `{id}`; `study ls` names them",
            folder.display()
        ),
        _ => format!(
            "several cells have names that begin with `{id}`: {}; give more of it",
            matches.join(", ")
        ),
    }
}

impl From<llm_client::Error> for StudyError {
    fn from(error: llm_client::Error) -> Self {
        match error {
            llm_client::Error::Stopped => Self::Stopped,
            error => Self::Call(error),
        }
    }
}

impl StudyError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn stats(what: impl Into<String>) -> impl FnOnce(stats::Error) -> Self {
        let what = what.into();
        move |source| Self::Stats { what, source }
    }

    pub(crate) fn responder(source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self::Responder(source)
    }

    /// Says of an error behind which nothing can be written any more how to go on, and leaves others as they are.
    pub(crate) fn or_full_disk(self) -> Self {
        match takes_nothing_more(&self) {
            true => Self::DiskFull(Box::new(self)),
            false => self,
        }
    }

    /// Whether it speaks of one trained policy, so that the others of a study can still be had.
    pub(crate) fn is_of_one_policy(&self) -> bool {
        use trainer::TrainError;
        if takes_nothing_more(self) {
            return false;
        }
        match self {
            Self::TooShort { .. } | Self::Unjudged { .. } | Self::Responder(_) | Self::Policy(_) => true,
            Self::Bench(error) => matches!(error, mtbench::Error::Respond { .. }),
            Self::Train(error) => {
                !matches!(error, TrainError::Io { .. } | TrainError::Recipe(_) | TrainError::Distributed(_))
            }
            _ => false,
        }
    }

    /// Whether the cause is bad input (as opposed to a failing machine): exit status 2 in the programs.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Recipe(_) | Self::Unsupported(_) | Self::Data(_) => true,
            Self::NoStudy { .. } | Self::UnknownCell { .. } | Self::TooShort { .. } => true,
            Self::Train(error) => error.is_bad_input(),
            Self::Bench(error) => error.is_bad_input(),
            Self::Call(error) => error.is_bad_input(),
            Self::Policy(error) => trainer::is_bad_model(error),
            _ => false,
        }
    }
}

/// Whether the disk takes nothing more, whatever was to be written: then every other policy would fail the same way.
fn takes_nothing_more(error: &StudyError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let system = error.downcast_ref::<std::io::Error>();
        if system
            .is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io::{self, ErrorKind};

    use policy_model::PolicyError;
    use trainer::TrainError;

    use super::*;

    #[test]
    fn a_full_disk_is_of_all_policies_and_a_damaged_file_of_one() {
        let writing = |kind: ErrorKind| {
            let (action, path) = ("write", PathBuf::from("model.safetensors"));
            StudyError::from(TrainError::Policy(PolicyError::Io {
                action,
                path,
                source: io::Error::from(kind),
            }))
        };
        assert!(writing(ErrorKind::UnexpectedEof).is_of_one_policy());
        assert!(matches!(writing(ErrorKind::UnexpectedEof).or_full_disk(), StudyError::Train(_)));
        let full = writing(ErrorKind::StorageFull);
        assert!(!full.is_of_one_policy() && !full.is_bad_input());
        let told = full.or_full_disk();
        assert!(told.to_string().contains("once there is room the same command goes on"), "{told}");
        assert!(told.source().unwrap().to_string().contains("model.safetensors"));
    }
}
