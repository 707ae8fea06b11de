//! Errors in logits, hidden states and scored tokens.

use thiserror::Error;

/// An error in the input of [`ChunkedHead`](crate::ChunkedHead) or [`sequence_logps`](crate::sequence_logps).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// A tensor's shape does not match the others.
    #[error("{tensor} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        tensor: &'static str,
        /// The expected value.
        expected: String,
        /// The value found.
        found: Vec<i64>,
    },
    /// A tensor has an unsupported kind.
    #[error("{tensor} has kind {found}, expected {expected}")]
    Kind {
        /// Which tensor.
        tensor: &'static str,
        /// The expected value.
        expected: String,
        /// The value found.
        found: String,
    },
    /// Tensors are on different devices.
    #[error("{tensor} is on {found}, but the others are on {expected}: move them together")]
    Device {
        /// Which tensor.
        tensor: &'static str,
        /// Where the others are.
        expected: String,
        /// Where this one is.
        found: String,
    },
    /// A token to score is not in the vocabulary.
    #[error(
        "scored token {index} has id {id}, but the vocabulary has {vocab} tokens: leave padding and ignored labels \
         (-100) unscored, and look for a tokenizer that is not the model's"
    )]
    Target {
        /// Index among the scored tokens.
        index: usize,
        /// Its id.
        id: i64,
        /// Number of tokens in the vocabulary.
        vocab: i64,
    },
    /// The first token of a sequence is scored, but no logits predict it.
    #[error("sequence {sequence} scores its first token, which no logits predict: score from the second on")]
    FirstToken {
        /// Index in the batch.
        sequence: usize,
    },
    /// A sequence has no scored token, so its mean over tokens is undefined.
    #[error("sequence {sequence} scores no token, so it has no mean over tokens: leave it out")]
    NothingScored {
        /// Index in the batch.
        sequence: usize,
    },
    /// A tile without rows or columns.
    #[error("a tile of {rows} rows and {columns} columns is empty: both must be at least 1")]
    EmptyTile {
        /// Tokens.
        rows: usize,
        /// Vocabulary entries.
        columns: usize,
    },
}
