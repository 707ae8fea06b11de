//! Errors of process groups.

use std::path::PathBuf;

use torch_ext::TorchExtError;

/// Why processes cannot work together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistributedError {
    /// A collective or the store failed.
    #[error(transparent)]
    TorchExt(#[from] TorchExtError),
    /// A variable that a launcher sets is missing or wrong.
    #[error("{variable} {}; {remedy}", found.as_ref().map_or("is not set".to_owned(), |found| format!("is {found:?}")))]
    Environment {
        /// The variable.
        variable: String,
        /// Its value, if it is set.
        found: Option<String>,
        /// What to do.
        remedy: String,
    },
    /// Two processes have rank 0, or two jobs use the same port.
    #[error(
        "port {port} on {host} is held by another rank 0 (process {process}); give each process its own RANK, or give this \
         job another MASTER_PORT on all its ranks"
    )]
    RankZeroTwice {
        /// The machine.
        host: String,
        /// The port.
        port: u16,
        /// The number of the process that holds the port.
        process: String,
    },
    /// Ranks on GPUs in a build without NCCL.
    #[error(
        "ranks on {device:?} exchange through NCCL, which this build lacks; build with `--features nccl`, or set model.device \
         = \"cpu\""
    )]
    NoNccl {
        /// The device.
        device: tch::Device,
    },
    /// The ranks have different inputs or states.
    #[error("rank {rank} has another {what} than rank 0 ({difference}); {remedy}")]
    RanksDiffer {
        /// The rank that found the difference.
        rank: usize,
        /// What differs.
        what: &'static str,
        /// How.
        difference: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Ranks that share their layers compute different passes.
    #[error("ranks compute a forward and a backward pass at the same time; this is a bug, please report it")]
    PassesDiffer,
    /// A file whose digest is compared cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The elements of a tensor cannot be copied.
    #[error("libtorch failed while copying a tensor")]
    Copy {
        /// libtorch's error.
        source: tch::TchError,
    },
}

impl DistributedError {
    /// Whether another rank failed first, as far as this rank can see.
    pub fn is_from_another_rank(&self) -> bool {
        let Self::TorchExt(error) = self else { return false };
        matches!(error, TorchExtError::OtherRank { .. } | TorchExtError::ConnectionLost { .. })
    }

    /// Whether another rank is gone or does not answer, so that the ranks cannot join again.
    pub fn is_lost_rank(&self) -> bool {
        let Self::TorchExt(error) = self else { return false };
        matches!(
            error,
            TorchExtError::ConnectionLost { .. }
                | TorchExtError::TimedOut { .. }
                | TorchExtError::RanksMissing { .. }
        )
    }

    /// Whether the cause is bad input or a wrong setup, as opposed to a failing machine.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Environment { .. }
            | Self::RankZeroTwice { .. }
            | Self::NoNccl { .. }
            | Self::RanksDiffer { .. } => true,
            Self::TorchExt(error) => matches!(
                error,
                TorchExtError::PortTaken { .. }
                    | TorchExtError::Listen { .. }
                    | TorchExtError::WorldSizeMismatch { .. }
                    | TorchExtError::RankTwice { .. }
                    | TorchExtError::NoSuchRank { .. }
            ),
            Self::PassesDiffer | Self::Read { .. } | Self::Copy { .. } => false,
        }
    }
}
