//! The error of this crate.

use std::path::{Path, PathBuf};

use crate::results::ResultsError;

/// Why an experiment cannot start, continue or be analyzed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// The setup is well-formed but cannot be run.
    #[error("{0}")]
    Unsupported(String),
    /// The recipe of a stored run cannot be read.
    #[error(transparent)]
    Recipe(#[from] trainer::recipe::RecipeError),
    /// A training run failed.
    #[error(transparent)]
    Train(#[from] trainer::TrainError),
    /// A policy cannot answer.
    #[error(transparent)]
    Inference(#[from] inference::InferenceError),
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
    /// A statistic is not defined for these data.
    #[error("{what}")]
    Stats {
        /// What was being estimated.
        what: String,
        /// Why it is not defined.
        source: stats::Error,
    },
    /// The file of all scores cannot be read or written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Nothing more can be written.
    #[error("the disk is full; progress saved. Free some space and run the same command to resume")]
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
    /// A group of worker processes failed.
    #[error("group {shard} of {of} failed; its messages are above. Progress saved")]
    Worker {
        /// The group, from 1.
        shard: usize,
        /// The number of groups.
        of: usize,
        /// Why it ended.
        source: distributed::LaunchError,
    },
    /// The ranks of a group cannot work together.
    #[error(transparent)]
    Ranks(#[from] distributed::DistributedError),
    /// Another rank of the group failed.
    #[error("another rank failed: {reason}")]
    AnotherRank {
        /// Its error.
        reason: String,
    },
    /// An endpoint cannot be called.
    #[error(transparent)]
    Call(llm_client::Error),
    /// A judge's calls are estimated to exceed its budget.
    #[error(
        "{calls} calls of {judge} cost about {usd:.2} USD, which exceeds judge.pace.max_cost = {max_cost}; raise it, or take fewer \
         study.seeds, study.questions or tables"
    )]
    Budget {
        /// The judge.
        judge: String,
        /// The number of its calls.
        calls: u64,
        /// Their estimated price.
        usd: f64,
        /// Its budget.
        max_cost: f64,
    },
    /// Judging ended early.
    #[error("judging by {judge} ended early; its replies are saved. Run the same command to resume")]
    Judge {
        /// The judge.
        judge: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Some calls to a judge failed.
    #[error(
        "{failed} calls to {judge} for the answers of {model} failed (see above); the other replies are saved. Run the same \
         command to repeat the failed calls"
    )]
    Unjudged {
        /// The judge.
        judge: String,
        /// The model that answered.
        model: String,
        /// The number of failed calls.
        failed: usize,
    },
    /// A policy could not answer.
    #[error("the policy cannot answer")]
    Responder(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The name of no cell, or of several.
    #[error("{}", unknown_cell(id, folder, matches))]
    UnknownCell {
        /// The name, or its beginning.
        id: String,
        /// The experiment's folder.
        folder: PathBuf,
        /// The cells whose names begin with it.
        matches: Vec<String>,
    },
    /// Two checkpoints of a run have the same step.
    #[error(
        "train.batch_size = {batch_size} gives two of the {wanted} checkpoints of {cell} the same step ({steps} steps in all); {}",
        enough_steps(*serves)
    )]
    Checkpoints {
        /// The run.
        cell: String,
        /// The batch size.
        batch_size: usize,
        /// Optimizer steps of the run.
        steps: u64,
        /// Checkpoints of a run.
        wanted: usize,
        /// The largest batch size that gives every checkpoint of every run its own step.
        serves: Option<usize>,
    },
    /// A finished run has fewer checkpoints than `train.checkpoints`, because some pairs were left out.
    #[error(
        "{cell} has {found} checkpoints instead of {wanted}: the run is too short; take more pairs, a smaller train.batch_size, \
         or fewer train.checkpoints"
    )]
    TooShort {
        /// The run.
        cell: String,
        /// Its checkpoints.
        found: usize,
        /// Checkpoints of a run.
        wanted: usize,
    },
    /// The store has another layout.
    #[error(
        "{} holds results of layout {found}, and this version reads layout {expected} only; name another folder with --out or \
         output.dir (copy the store's folder judge-calls there to keep paid replies), or remove the store",
        store.display()
    )]
    StoreLayout {
        /// The folder of the store.
        store: PathBuf,
        /// Its layout.
        found: String,
        /// The layout of this version.
        expected: u32,
    },
    /// All policies failed.
    #[error("all {policies} trained policies failed; the first: {what}: {reason}")]
    AllFailed {
        /// The number of policies.
        policies: usize,
        /// The first failed policy.
        what: String,
        /// The reason.
        reason: String,
    },
    /// Some policies failed.
    #[error(
        "{failed} of {policies} trained policies failed; the report gives the reasons. Run the same command to retry them"
    )]
    SomeFailed {
        /// The number of failed policies.
        failed: usize,
        /// The number of policies.
        policies: usize,
    },
    /// The caller asked to stop.
    #[error("interrupted; progress saved. Run the same command to resume")]
    Stopped,
}

fn unknown_cell(id: &str, folder: &Path, matches: &[String]) -> String {
    match matches {
        [] => format!(
            "no cell in {} has a name that begins with `{id}`; `study ls` lists them",
            folder.display()
        ),
        _ => format!(
            "several cells have names that begin with `{id}`: {}; give more digits",
            matches.join(", ")
        ),
    }
}

/// Advice for a run with too few steps for its checkpoints.
fn enough_steps(batch_size: Option<usize>) -> String {
    match batch_size {
        Some(serves) => format!("train.batch_size = {serves} serves"),
        None => "take more pairs, more epochs, or fewer train.checkpoints".to_owned(),
    }
}

impl From<llm_client::Error> for ExperimentError {
    fn from(error: llm_client::Error) -> Self {
        match error {
            llm_client::Error::Stopped => Self::Stopped,
            error => Self::Call(error),
        }
    }
}

impl ExperimentError {
    /// Returns the error of a failed file operation, such as `cannot write`.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Returns the error of an undefined statistic.
    pub fn stats(what: impl Into<String>) -> impl FnOnce(stats::Error) -> Self {
        let what = what.into();
        move |source| Self::Stats { what, source }
    }

    /// Wraps an error of a full disk, and returns other errors unchanged.
    pub(crate) fn or_full_disk(self) -> Self {
        match is_disk_full(&self) {
            true => Self::DiskFull(Box::new(self)),
            false => self,
        }
    }

    /// Returns whether another rank failed first, as far as this rank can see.
    pub fn is_from_another_rank(&self) -> bool {
        match self {
            Self::AnotherRank { .. } => true,
            _ => {
                self.is_lost_rank()
                    || self.ranks().is_some_and(distributed::DistributedError::is_from_another_rank)
            }
        }
    }

    /// Returns whether a rank of the group is gone, so that the others cannot continue.
    pub(crate) fn is_lost_rank(&self) -> bool {
        self.ranks().is_some_and(distributed::DistributedError::is_lost_rank)
    }

    fn ranks(&self) -> Option<&distributed::DistributedError> {
        match self {
            Self::Ranks(error) | Self::Train(trainer::TrainError::Distributed(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns whether only one trained policy is affected.
    pub(crate) fn is_of_one_policy(&self) -> bool {
        use trainer::TrainError;
        if is_disk_full(self) {
            return false;
        }
        match self {
            Self::TooShort { .. } | Self::Unjudged { .. } | Self::Responder(_) | Self::Policy(_) => true,
            Self::Inference(_) => true,
            Self::Bench(error) => matches!(error, mtbench::Error::Respond { .. }),
            Self::Train(error) => {
                !matches!(error, TrainError::Io { .. } | TrainError::Recipe(_) | TrainError::Distributed(_))
            }
            _ => false,
        }
    }

    /// Returns whether the cause is bad input, as opposed to a failing machine.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Recipe(_) | Self::Unsupported(_) | Self::Data(_) | Self::UnknownCell { .. } => true,
            Self::TooShort { .. } | Self::Checkpoints { .. } | Self::StoreLayout { .. } => true,
            Self::Budget { .. } => true,
            Self::Inference(error) => error.is_bad_input(),
            Self::Train(error) => error.is_bad_input(),
            Self::Bench(error) => error.is_bad_input(),
            Self::Call(error) => error.is_bad_input(),
            Self::Policy(error) => trainer::is_bad_model(error),
            Self::Ranks(error) => error.is_bad_input(),
            _ => false,
        }
    }
}

/// Returns whether nothing more can be written, so that every other policy would fail too.
fn is_disk_full(error: &ExperimentError) -> bool {
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
    fn a_full_disk_affects_all_policies_and_a_damaged_file_one() {
        let writing = |kind: ErrorKind| {
            let (action, path) = ("write", PathBuf::from("model.safetensors"));
            ExperimentError::from(TrainError::Policy(PolicyError::Io {
                action,
                path,
                source: io::Error::from(kind),
            }))
        };
        assert!(writing(ErrorKind::UnexpectedEof).is_of_one_policy());
        assert!(matches!(writing(ErrorKind::UnexpectedEof).or_full_disk(), ExperimentError::Train(_)));
        let full = writing(ErrorKind::StorageFull);
        assert!(!full.is_of_one_policy() && !full.is_bad_input());
        let wrapped = full.or_full_disk();
        assert!(wrapped.to_string().contains("run the same command to resume"), "{wrapped}");
        assert!(wrapped.source().unwrap().to_string().contains("model.safetensors"));
    }
}
