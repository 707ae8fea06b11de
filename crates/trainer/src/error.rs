//! Errors of training.

use std::io::ErrorKind;
use std::path::PathBuf;

use distributed::DistributedError;
use policy_model::PolicyError;
use pref_data::DataError;
use torch_ext::TorchExtError;

use crate::recipe::error::RecipeError;

/// Why a training run cannot start, continue or be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The recipe cannot be read.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The data cannot be read or tokenized.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model cannot be read, run or saved.
    #[error(transparent)]
    Policy(PolicyError),
    /// Tensors passed to a loss do not match.
    #[error(transparent)]
    Loss(#[from] pref_loss::PrefLossError),
    /// Tensors passed to the LM head do not match.
    #[error(transparent)]
    Head(#[from] pref_loss::HeadError),
    /// The ranks cannot work together.
    #[error(transparent)]
    Distributed(#[from] DistributedError),
    /// Adapters are trained over weights that are divided among ranks.
    #[error(
        "distributed.zero = 3 divides trained weights, and low-rank adapters leave the others whole; set it to 2 or less"
    )]
    AdaptersOverShards,
    /// The backward pass would keep the weights of all layers in memory.
    #[error(
        "layers that ranks share are gathered again in the backward pass, which needs Activations::Recomputed"
    )]
    KeepsSharedLayers,
    /// A libtorch operation outside of tch failed.
    #[error(transparent)]
    TorchExt(#[from] TorchExtError),
    /// A libtorch operation failed.
    #[error("libtorch failed while {what}")]
    Torch {
        /// The operation.
        what: &'static str,
        /// libtorch's message.
        source: tch::TchError,
    },
    /// A file of the run cannot be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// The operation, such as `cannot write`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A file of JSON lines cannot be read.
    #[error(transparent)]
    Lines(#[from] files::json_lines::JsonLinesError),
    /// The folder of a run cannot be locked.
    #[error(transparent)]
    Lock(#[from] files::LockError),
    /// A stop was requested while pairs were scored.
    #[error("stopped before all pairs were scored")]
    Stopped,
    /// Nothing is left to train on.
    #[error("no training example is left: {0}")]
    NoExamples(String),
    /// A key has a meaning for pairs only.
    #[error("{key} applies to pairs, but {path} holds single responses; remove the key")]
    PairsOnly {
        /// The key.
        key: &'static str,
        /// The data.
        path: String,
    },
    /// The loss is not a number.
    #[error(
        "the loss is {loss} at step {step} (epoch {epoch:.2}); the batch held {examples}. \
         Nothing of this step was applied: lower train.learning_rate or look at these examples"
    )]
    NotFinite {
        /// The loss, NaN or infinite.
        loss: f64,
        /// The optimizer step, counted from 1.
        step: u64,
        /// The number of epochs so far.
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
    /// Ranks with a sharded state write to different folders.
    #[error(
        "rank {rank} does not see {}; output.dir must be a folder that all ranks share, unless distributed.zero = 0", path.display()
    )]
    NotShared {
        /// The folder.
        path: PathBuf,
        /// The rank.
        rank: usize,
    },
    /// The folder does not hold a finished run.
    #[error("{} holds no finished model", path.display())]
    NotFinished {
        /// The folder of the run.
        path: PathBuf,
    },
    /// The inputs of a run have changed since its last checkpoint.
    #[error(
        "{} was trained with another {changed} up to step {step}; restore it, choose another output.dir, or pass \
         --accept-changes to continue with the new one", path.display()
    )]
    InputsChanged {
        /// The output folder.
        path: PathBuf,
        /// The step of the newest checkpoint.
        step: u64,
        /// The names of the changed inputs.
        changed: String,
    },
    /// A token id without a row in an embedding.
    #[error(
        "token {token:?} has the id {id}, but the embedding of {} has {embedding} rows; the tokenizer of {} has {tokenizer} \
         tokens: resize the embedding, or take the tokenizer that the model was trained with",
        model.display(), folder.display()
    )]
    TokenBeyondEmbedding {
        /// The text of the token.
        token: String,
        /// The id of the token.
        id: u32,
        /// The folder of the model whose embedding is too small.
        model: PathBuf,
        /// The number of rows of its embedding.
        embedding: usize,
        /// The folder of the tokenizer.
        folder: PathBuf,
        /// The number of tokens of the tokenizer.
        tokenizer: usize,
    },
    /// Metrics end before the checkpoint from which a run resumes.
    #[error(
        "{} ends at step {last}, before the checkpoint of step {step}; restore it from a copy, or move it away to go on \
         without its rows", path.display()
    )]
    LostMetrics {
        /// The file.
        path: PathBuf,
        /// The step of its last row.
        last: u64,
        /// The step of the checkpoint.
        step: u64,
    },
    /// A checkpoint cannot be used.
    #[error("the checkpoint {} is damaged: {why}", path.display())]
    DamagedCheckpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The damage.
        why: String,
    },
}

impl From<PolicyError> for TrainError {
    /// An error of other ranks, while a layer is gathered, is one of the group.
    fn from(error: PolicyError) -> Self {
        let PolicyError::LayerSource { index, source } = error else { return Self::Policy(error) };
        match source.downcast::<DistributedError>() {
            Ok(error) => Self::Distributed(*error),
            Err(source) => Self::Policy(PolicyError::LayerSource { index, source }),
        }
    }
}

impl TrainError {
    /// Returns a constructor of I/O errors, with the operation and the path.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// Returns whether another rank failed first, as far as this rank can see.
    pub fn is_from_another_rank(&self) -> bool {
        matches!(self, Self::Distributed(error) if error.is_from_another_rank())
    }

    /// Returns whether the cause is bad input, for which the programs exit with status 2.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Recipe(_)
            | Self::Data(_)
            | Self::NoExamples(_)
            | Self::PairsOnly { .. }
            | Self::OtherRun { .. }
            | Self::NotFinished { .. }
            | Self::InputsChanged { .. }
            | Self::TokenBeyondEmbedding { .. }
            | Self::NotShared { .. }
            | Self::AdaptersOverShards
            | Self::KeepsSharedLayers
            | Self::DamagedCheckpoint { .. } => true,
            Self::Policy(error) => is_bad_model(error),
            // Of a model folder's files.
            Self::Io { source, .. } => source.kind() == ErrorKind::InvalidInput,
            Self::Distributed(error) => error.is_bad_input(),
            Self::Loss(_)
            | Self::Head(_)
            | Self::TorchExt(_)
            | Self::Torch { .. }
            | Self::Lines(_)
            | Self::LostMetrics { .. }
            | Self::Lock(_)
            | Self::NotFinite { .. }
            | Self::Stopped => false,
        }
    }
}

/// Returns whether a model's error is in its files, rather than in the machine that reads or runs it.
pub fn is_bad_model(error: &PolicyError) -> bool {
    match error {
        PolicyError::Io { source, .. } if source.kind() == ErrorKind::NotFound => true,
        PolicyError::Io { action, source, .. } => {
            let is_refused = matches!(
                source.kind(),
                ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::FileTooLarge
            );
            *action == "read" && is_refused
        }
        PolicyError::WriteSafetensors { .. }
        | PolicyError::Torch { .. }
        | PolicyError::NotANumber { .. }
        | PolicyError::LayerSource { .. } => false,
        _ => true,
    }
}
