//! What can go wrong between a folder on disk and a policy in memory.

use std::path::{Path, PathBuf};

/// Why a policy could not be read, built, run or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done: "read", "write", "rename", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that should hold JSON does not.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why parsing stopped.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` lacks a field without which the model's shape is unknown.
    #[error("{} has no `{field}`, without which the model's shape is unknown", path.display())]
    MissingField {
        /// The configuration.
        path: PathBuf,
        /// The absent key.
        field: &'static str,
    },
    /// A field of `config.json` holds something that cannot be used.
    #[error("{}: `{field}` is {value}, but must be {expected}", path.display())]
    InvalidField {
        /// The configuration.
        path: PathBuf,
        /// The key.
        field: String,
        /// Its value as JSON.
        value: String,
        /// What was expected.
        expected: String,
    },
    /// `model_type` names an architecture that this crate does not implement.
    #[error("{}: unknown model_type `{found}`; known families are {known}", path.display())]
    UnknownFamily {
        /// The configuration.
        path: PathBuf,
        /// What `model_type` says.
        found: String,
        /// The families that can be read.
        known: String,
    },
    /// The rotary embedding is of a type that this crate does not implement.
    #[error("{}: rope type `{found}` is not supported; supported are {known}", path.display())]
    UnsupportedRope {
        /// The configuration.
        path: PathBuf,
        /// What `rope_type` says.
        found: String,
        /// The types that can be read.
        known: String,
    },
    /// The folder holds no weights in a format that can be read.
    #[error(
        "{} holds no weights: neither model.safetensors nor model.safetensors.index.json{hint}",
        path.display()
    )]
    MissingWeights {
        /// The model's folder.
        path: PathBuf,
        /// What to do, where something can be told.
        hint: &'static str,
    },
    /// The index of a sharded checkpoint cannot be followed.
    #[error("{}: {problem}", path.display())]
    BadIndex {
        /// `model.safetensors.index.json`.
        path: PathBuf,
        /// What is wrong in it.
        problem: String,
    },
    /// A safetensors header cannot be parsed.
    #[error("{} is not a valid safetensors file", path.display())]
    BadSafetensors {
        /// The weights file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A safetensors file is shorter or longer than its header says.
    #[error(
        "{} has {found} bytes where its header promises {expected}: the file is damaged or its copy was cut short; \
         fetch it again",
        path.display()
    )]
    Truncated {
        /// The weights file.
        path: PathBuf,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// Tensors that the configuration asks for are absent.
    #[error("{origin}: {count} tensors are missing, first of them `{first}`")]
    MissingTensors {
        /// Where they were looked for.
        origin: String,
        /// How many are missing.
        count: usize,
        /// The first of them, in checkpoint order.
        first: String,
    },
    /// There are tensors that the configuration does not know.
    #[error(
        "{origin}: {count} tensors are not part of a model of this configuration, first of them `{first}`"
    )]
    UnexpectedTensors {
        /// Where they were found.
        origin: String,
        /// How many there are.
        count: usize,
        /// The first of them, by name.
        first: String,
    },
    /// A tensor's shape is not the one that the configuration asks for.
    #[error("{origin}: `{name}` has shape {found:?}, but the configuration asks for {expected:?}")]
    TensorShape {
        /// Where it was found.
        origin: String,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that `config.json` implies.
        expected: Vec<i64>,
    },
    /// There are no adapters to save.
    #[error("the policy has no adapters")]
    NoAdapters,
    /// A tensor is stored in a type that is not a floating-point weight.
    #[error("{}: `{name}` is stored as {dtype}; weights must be F32, F16 or BF16 (quantised checkpoints are not read)", path.display())]
    UnsupportedDtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type on disk.
        dtype: String,
    },
    /// A tensor has NaN or infinite values.
    #[error("{origin}: `{name}` has {count} NaN or infinite values; the checkpoint is broken")]
    NotFinite {
        /// Where it was found.
        origin: String,
        /// The tensor.
        name: String,
        /// How many of its values are not finite.
        count: i64,
    },
    /// The embedding and the output head are declared tied but differ.
    #[error(
        "{}: config.json ties the embeddings, but `lm_head.weight` differs from `model.embed_tokens.weight`; \
         set `tie_word_embeddings` to false if they are separate",
        path.display()
    )]
    TiedHeadDiffers {
        /// The weights file that holds `lm_head.weight`.
        path: PathBuf,
    },
    /// Weights cannot be held or computed in this kind.
    #[error("weights cannot be of kind {kind:?}; use Float, BFloat16 or Half")]
    UnsupportedKind {
        /// The kind that was asked for.
        kind: tch::Kind,
    },
    /// Parameters of one policy must share one kind and one device.
    #[error("`{name}` is {found}, unlike the parameters before it, which are {expected}")]
    MixedParameters {
        /// The parameter that differs.
        name: String,
        /// Its kind and device.
        found: String,
        /// The kind and device of the first parameter.
        expected: String,
    },
    /// A token id lies outside the vocabulary.
    #[error(
        "token id {token} at position {position} is outside the vocabulary of {vocab_size}; was another model's tokenizer used?"
    )]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its place in the sequence, counted from 0.
        position: usize,
        /// Ids must be below this.
        vocab_size: usize,
    },
    /// A generation request asks for something impossible.
    #[error("generation request {index}: {problem}")]
    BadRequest {
        /// Its place in the requests, counted from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The model's probabilities are NaN, so that nothing can be sampled.
    #[error(
        "generation request {index}: the model's probabilities after {tokens} new tokens are not numbers; its weights have diverged"
    )]
    NotANumber {
        /// The request, counted from 0.
        index: usize,
        /// Tokens generated before it happened.
        tokens: usize,
    },
    /// A weights file could not be written.
    #[error("cannot write {}", path.display())]
    WriteSafetensors {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// libtorch refused an operation, most often for want of memory.
    #[error("libtorch could not {action}")]
    Torch {
        /// What was being done.
        action: String,
        /// What libtorch said.
        #[source]
        source: tch::TchError,
    },
}

impl PolicyError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn torch(action: impl Into<String>) -> impl FnOnce(tch::TchError) -> Self {
        let action = action.into();
        move |source| Self::Torch { action, source }
    }
}
