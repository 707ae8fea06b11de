//! What can be wrong with logits, hidden states and the tokens that they score.

use thiserror::Error;

/// What can be wrong with the input of [`ChunkedHead`](crate::ChunkedHead) and
/// [`sequence_logps`](crate::sequence_logps).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// A tensor's shape does not fit the others'.
    #[error("{tensor} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        tensor: &'static str,
        /// What would do.
        expected: String,
        /// What was given.
        found: Vec<i64>,
    },
    /// A tensor is of a kind that will not do.
    #[error("{tensor} has kind {found}, expected {expected}")]
    Kind {
        /// Which tensor.
        tensor: &'static str,
        /// What would do.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Tensors that meet lie on different devices.
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
    /// The first token of a sequence has nothing before it that could predict it.
    #[error("sequence {sequence} scores its first token, which no logits predict: score from the second on")]
    FirstToken {
        /// Index in the batch.
        sequence: usize,
    },
    /// A sequence has no scored token, so it has no mean over them.
    #[error("sequence {sequence} scores no token, so it has no mean over tokens: leave it out")]
    NothingScored {
        /// Index in the batch.
        sequence: usize,
    },
    /// A position does not lie in the batch.
    #[error(
        "token {token} of sequence {sequence} is to be scored, but the batch has {batch} sequences of {len} tokens"
    )]
    Position {
        /// The sequence that was named.
        sequence: usize,
        /// The token that was named.
        token: usize,
        /// Sequences in the batch.
        batch: i64,
        /// Tokens in each, padding included.
        len: i64,
    },
    /// A tile without rows or columns.
    #[error("a tile of {rows} rows and {columns} columns holds nothing: both must be at least 1")]
    EmptyTile {
        /// Tokens.
        rows: usize,
        /// Vocabulary entries.
        columns: usize,
    },
}
