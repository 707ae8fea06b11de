//! What can go wrong while training.

use std::path::PathBuf;

use distributed::DistributedError;
use policy_model::PolicyError;
use pref_data::DataError;
use torch_ext::TorchExtError;

use crate::recipe::RecipeError;

/// Why a training run could not start, continue or be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe cannot be read.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The data cannot be read or tokenised.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model cannot be read, run or saved.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A loss was handed tensors that do not fit together.
    #[error(transparent)]
    Loss(#[from] pref_loss::PrefLossError),
    /// The LM head was handed tensors that do not fit together.
    #[error(transparent)]
    Head(#[from] pref_loss::HeadError),
    /// The ranks cannot work together.
    #[error(transparent)]
    Distributed(#[from] DistributedError),
    /// An operation of libtorch that tch lacks failed.
    #[error(transparent)]
    TorchExt(#[from] TorchExtError),
    /// libtorch refused an operation.
    #[error("libtorch failed while {what}")]
    Torch {
        /// What was being done.
        what: &'static str,
        /// libtorch's own words.
        source: tch::TchError,
    },
    /// A file of the run cannot be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done, such as `cannot write`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Somebody asked to stop while pairs were scored.
    #[error("stopped before all pairs were scored")]
    Stopped,
    /// Nothing is left to train on.
    #[error("no training example is left: {0}")]
    NoExamples(String),
    /// The loss is not a number any more.
    #[error(
        "the loss is {loss} at step {step} (epoch {epoch:.2}); the batch held {examples}. \
         Nothing of this step was applied: lower train.learning_rate or look at these examples"
    )]
    NotFinite {
        /// The loss, NaN or infinite.
        loss: f64,
        /// The optimiser step, counted from 1.
        step: u64,
        /// Passes over the data so far.
        epoch: f64,
        /// The identifiers of the batch's examples.
        examples: String,
    },
    /// The output folder holds another run.
    #[error("{} holds a run of another recipe ({difference}); choose another output.dir or delete it", path.display())]
    OtherRun {
        /// The output folder.
        path: PathBuf,
        /// The first line that differs.
        difference: String,
    },
    /// Ranks that share the state out do not write into the same folder.
    #[error(
        "rank {rank} does not see {}; output.dir must be a folder that all ranks share, unless distributed.zero = 0", path.display()
    )]
    NotShared {
        /// The folder.
        path: PathBuf,
        /// The rank.
        rank: usize,
    },
    /// `--resume` was asked for, but there is nothing to resume.
    #[error("nothing to resume in {}: {why}", path.display())]
    NothingToResume {
        /// The output folder.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A checkpoint cannot be used.
    #[error("the checkpoint {} is damaged: {why}", path.display())]
    DamagedCheckpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl TrainError {
    /// An input/output error with what was being done and where.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Whether another rank failed first, as far as this rank can see.
    pub fn is_from_another_rank(&self) -> bool {
        matches!(self, Self::Distributed(error) if error.is_from_another_rank())
    }

    /// Whether the cause is bad input (as opposed to a failing machine): exit status 2 in the programs.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Recipe(_)
            | Self::Data(_)
            | Self::NoExamples(_)
            | Self::OtherRun { .. }
            | Self::NothingToResume { .. }
            | Self::NotShared { .. }
            | Self::DamagedCheckpoint { .. } => true,
            Self::Policy(error) => is_bad_model(error),
            Self::Distributed(error) => error.is_bad_input(),
            Self::Loss(_)
            | Self::Head(_)
            | Self::TorchExt(_)
            | Self::Torch { .. }
            | Self::Io { .. }
            | Self::NotFinite { .. }
            | Self::Stopped => false,
        }
    }
}

/// Whether a model's error lies in its files, as opposed to the machine that reads or runs it.
pub fn is_bad_model(error: &PolicyError) -> bool {
    match error {
        PolicyError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        PolicyError::WriteSafetensors { .. } | PolicyError::Torch { .. } | PolicyError::NotANumber { .. } => {
            false
        }
        _ => true,
    }
}
