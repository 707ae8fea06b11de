//! The error of this crate.

use std::path::PathBuf;

/// Why a policy cannot answer or label.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// The model cannot be read or run.
    #[error(transparent)]
    Policy(#[from] policy_model::PolicyError),
    /// The tokenizer cannot be read, or a record cannot be tokenized.
    #[error(transparent)]
    Data(#[from] pref_data::DataError),
    /// Scoring failed, or the ranks differ.
    #[error(transparent)]
    Train(#[from] trainer::TrainError),
    /// The model folder has no chat template.
    #[error(
        "{} has no chat template; add `chat_template` to its tokenizer_config.json, or a file chat_template.jinja",
        folder.display()
    )]
    NoChatTemplate {
        /// The model folder.
        folder: PathBuf,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Stopped,
}

impl InferenceError {
    /// Returns whether the cause is bad input, as opposed to a failing machine.
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Data(_) | Self::NoChatTemplate { .. } => true,
            Self::Policy(error) => trainer::is_bad_model(error),
            Self::Train(error) => error.is_bad_input(),
            Self::Stopped => false,
        }
    }
}
