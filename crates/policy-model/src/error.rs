//! The errors of this crate.

use std::path::{Path, PathBuf};

/// An error of reading, building, running or writing a policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation: "read", "write", "rename", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file is not valid JSON.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with its position.
        #[source]
        source: serde_json::Error,
    },
    /// The weights of a layer cannot be supplied.
    #[error("cannot supply the weights of layer {index}")]
    LayerSource {
        /// The layer.
        index: usize,
        /// The error of the source.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A configuration lacks a required field.
    #[error("{} has no `{field}`, which is required", path.display())]
    MissingField {
        /// The configuration.
        path: PathBuf,
        /// The absent key.
        field: &'static str,
    },
    /// A field of a configuration has an invalid value.
    #[error("{}: `{field}` is {value}, but must be {expected}", path.display())]
    InvalidField {
        /// The configuration.
        path: PathBuf,
        /// The key.
        field: String,
        /// Its value as JSON.
        value: String,
        /// The valid values.
        expected: String,
    },
    /// `model_type` names an architecture that this crate does not implement.
    #[error("{}: unknown model_type `{found}`; known families are {known}{hint}", path.display())]
    UnknownFamily {
        /// The configuration.
        path: PathBuf,
        /// The value of `model_type`.
        found: String,
        /// The supported families.
        known: String,
        /// The reason, where known.
        hint: &'static str,
    },
    /// The weights are quantized.
    #[error("{}: the weights are quantized ({method}), which is not supported; {remedy}", path.display())]
    Quantized {
        /// The configuration.
        path: PathBuf,
        /// The value of `quant_method`.
        method: String,
        /// What to do.
        remedy: String,
    },
    /// The rotary embedding has a type that this crate does not implement.
    #[error("{}: rope type `{found}` is not supported; supported are {known}", path.display())]
    UnsupportedRope {
        /// The configuration.
        path: PathBuf,
        /// The value of `rope_type`.
        found: String,
        /// The supported types.
        known: String,
    },
    /// The folder has no weights in a supported format.
    #[error(
        "{} has no weights: neither model.safetensors nor model.safetensors.index.json{hint}",
        path.display()
    )]
    MissingWeights {
        /// The model's folder.
        path: PathBuf,
        /// What to do, where known.
        hint: &'static str,
    },
    /// The index of a sharded checkpoint is invalid.
    #[error("{}: {problem}", path.display())]
    BadIndex {
        /// `model.safetensors.index.json`.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A safetensors header cannot be parsed.
    #[error("{} is not a valid safetensors file", path.display())]
    BadSafetensors {
        /// The weights file.
        path: PathBuf,
        /// The parser's error.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A safetensors file has another length than its header states.
    #[error(
        "{} has {found} bytes, but its header states {expected}: the file is damaged or incomplete; fetch it again",
        path.display()
    )]
    Truncated {
        /// The weights file.
        path: PathBuf,
        /// Bytes according to the header.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Tensors of the configuration are absent.
    #[error("{origin}: {count} tensors are missing, the first of them `{first}`")]
    MissingTensors {
        /// The source of the tensors.
        origin: String,
        /// The number of missing tensors.
        count: usize,
        /// The first of them, in checkpoint order.
        first: String,
    },
    /// Tensors are not part of the configuration.
    #[error(
        "{origin}: {count} tensors are not part of a model of this configuration, the first of them `{first}`"
    )]
    UnexpectedTensors {
        /// The source of the tensors.
        origin: String,
        /// The number of unexpected tensors.
        count: usize,
        /// The first of them, by name.
        first: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{origin}: `{name}` has shape {found:?}, but the configuration implies {expected:?}")]
    TensorShape {
        /// The source of the tensor.
        origin: String,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that `config.json` implies.
        expected: Vec<i64>,
    },
    /// The adapters do not fit the model.
    #[error("adapters: {problem}")]
    BadAdapters {
        /// The problem.
        problem: String,
    },
    /// There are no adapters to save.
    #[error("the policy has no adapters to save")]
    NoAdapters,
    /// A tensor is stored in a type that is not a floating-point weight.
    #[error("{}: `{name}` is stored as {dtype}; weights must be F32, F16 or BF16 (quantized checkpoints are not supported)", path.display())]
    UnsupportedDtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type on disk.
        dtype: String,
    },
    /// A tensor has NaN or infinite values.
    #[error("{origin}: `{name}` has {count} NaN or infinite values; the checkpoint is damaged")]
    NotFinite {
        /// The source of the tensor.
        origin: String,
        /// The tensor.
        name: String,
        /// The number of values that are not finite.
        count: i64,
    },
    /// The embedding and the output head are tied by the configuration, but differ.
    #[error(
        "{}: config.json ties the embeddings, but `lm_head.weight` differs from `model.embed_tokens.weight`; \
         set `tie_word_embeddings` to false if they are separate",
        path.display()
    )]
    TiedHeadDiffers {
        /// The weights file that holds `lm_head.weight`.
        path: PathBuf,
    },
    /// Weights cannot have this kind.
    #[error("weights cannot be of kind {kind:?}; use Float, BFloat16 or Half")]
    UnsupportedKind {
        /// The requested kind.
        kind: tch::Kind,
    },
    /// Parameters of one policy differ in kind or device.
    #[error("`{name}` is {found}, but the parameters before it are {expected}")]
    MixedParameters {
        /// The parameter that differs.
        name: String,
        /// Its kind and device.
        found: String,
        /// The kind and device of the first parameter.
        expected: String,
    },
    /// A token id is not in the vocabulary.
    #[error(
        "token id {token} at position {position} is outside the vocabulary of {vocab_size}; check that the tokenizer belongs to this model"
    )]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Its position in the sequence, from 0.
        position: usize,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// A generation request is invalid.
    #[error("generation request {index}: {problem}")]
    BadRequest {
        /// Its index among the requests, from 0.
        index: usize,
        /// The problem.
        problem: String,
    },
    /// The model's probabilities are NaN.
    #[error(
        "generation request {index}: the model's probabilities after {tokens} new tokens are NaN; its weights have diverged"
    )]
    NotANumber {
        /// Its index among the requests, from 0.
        index: usize,
        /// Tokens generated before.
        tokens: usize,
    },
    /// A weights file could not be written.
    #[error("cannot write {}", path.display())]
    WriteSafetensors {
        /// The file.
        path: PathBuf,
        /// The writer's error.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A kernel failed, or its operands do not fit each other. Operands that a kernel does not support are no error.
    #[error(transparent)]
    Kernel(#[from] torch_ext::TorchExtError),
    /// libtorch failed, most often for lack of memory.
    #[error("libtorch could not {action}")]
    Torch {
        /// The operation.
        action: String,
        /// libtorch's error.
        #[source]
        source: tch::TchError,
    },
}

impl PolicyError {
    pub(crate) fn invalid_field(
        path: &Path,
        field: &str,
        value: &serde_json::Value,
        expected: impl Into<String>,
    ) -> Self {
        Self::InvalidField {
            path: path.to_owned(),
            field: field.to_owned(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn torch(action: impl Into<String>) -> impl FnOnce(tch::TchError) -> Self {
        let action = action.into();
        move |source| Self::Torch { action, source }
    }
}
