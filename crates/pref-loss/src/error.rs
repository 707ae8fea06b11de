//! Errors in the input of a loss.

use std::fmt;

use thiserror::Error;

/// The model whose log-probabilities an error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// The model in training.
    Policy,
    /// The frozen reference model.
    Reference,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policy => "policy",
            Self::Reference => "reference",
        })
    }
}

/// The response that an error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The preferred response.
    Chosen,
    /// The other one.
    Rejected,
    /// A response without a partner, as in KTO.
    Unpaired,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen => "chosen",
            Self::Rejected => "rejected",
            Self::Unpaired => "unpaired",
        })
    }
}

/// The input that an error names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The log-probabilities of sequences under a model.
    Logps(Model),
    /// The token counts.
    Tokens,
    /// The weights of pairs.
    Weights,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logps(model) => write!(f, "{model} log-probs"),
            Self::Tokens => f.write_str("token counts"),
            Self::Weights => f.write_str("weights"),
        }
    }
}

/// Errors in the input of a loss.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum PrefLossError {
    /// β is not a positive finite number.
    #[error("beta is {value}: it must be finite and above 0 (0.1 is usual)")]
    Beta {
        /// The value found.
        value: f64,
    },
    /// ε is not a probability.
    #[error("label_smoothing is {value}: it must be a probability in [0, 1], in practice below 0.5")]
    LabelSmoothing {
        /// The value found.
        value: f64,
    },
    /// Another parameter is out of its range.
    #[error("{name} is {value}: it must be {range}")]
    Parameter {
        /// Which parameter.
        name: &'static str,
        /// The value found.
        value: f64,
        /// Its range.
        range: &'static str,
    },
    /// A loss needs reference log-probabilities, but the batch has none.
    #[error(
        "{loss} compares the policy with the reference, but the batch has no reference log-probs: pass them, or choose \
         a loss that reads none, such as simpo, orpo or cpo"
    )]
    MissingReference {
        /// The loss.
        loss: &'static str,
    },
    /// Two inputs of one batch have different numbers of pairs.
    #[error(
        "the {input} of the {side} responses are {found}, but the batch has {expected} pairs: give one per pair"
    )]
    Length {
        /// Which input.
        input: Input,
        /// Which response.
        side: Side,
        /// The number of the policy's chosen log-probs.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// Two inputs of a batch of single responses or tokens differ in length, or are empty.
    #[error("found {found} numbers where there should be {expected}: give one for each, of both kinds")]
    Responses {
        /// The length of the first input.
        expected: usize,
        /// The length of the other.
        found: usize,
    },
    /// A response has no tokens, so it has neither a log-prob nor a mean over tokens.
    #[error(
        "the {side} response of pair {pair} has no tokens: drop the pair, or truncate its prompt instead"
    )]
    EmptyResponse {
        /// Which response.
        side: Side,
        /// Index in the batch.
        pair: usize,
    },
    /// A log-probability is NaN or infinite.
    #[error(
        "the {model}'s log-prob of {side} response {pair} is {value}: look for NaN in the weights or a diverged run"
    )]
    NotFinite {
        /// Which model.
        model: Model,
        /// Which response.
        side: Side,
        /// Index in the batch.
        pair: usize,
        /// NaN, inf or -inf.
        value: f64,
    },
    /// A tensor is not of shape `[pairs]`, or `[responses]` where these have no partners.
    #[error("the {model}'s {side} log-probs have shape {found:?}, expected {expected}: one sum per sequence")]
    Shape {
        /// Which model.
        model: Model,
        /// Which response.
        side: Side,
        /// The shape of the policy's (chosen) log-probs, or a description of it if those are wrong.
        expected: String,
        /// The shape of the tensor.
        found: Vec<i64>,
    },
    /// A tensor has an unsupported kind.
    #[error(
        "the {model}'s {side} log-probs are {found}, expected {expected}: take log-softmax and sums in float32, since \
         hundreds of nats in bfloat16 step by whole nats"
    )]
    Kind {
        /// Which model.
        model: Model,
        /// Which response.
        side: Side,
        /// The supported kinds.
        expected: &'static str,
        /// The kind of the tensor.
        found: String,
    },
    /// Tensors of one batch are on different devices.
    #[error(
        "the {model}'s {side} log-probs are on {found}, the policy's first ones on {expected}: move them together"
    )]
    Device {
        /// Which model.
        model: Model,
        /// Which response.
        side: Side,
        /// Where the policy's (chosen) log-probs are.
        expected: String,
        /// Where these are.
        found: String,
    },
}
