#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod error;
mod float;
mod loss;
mod params;
#[cfg(feature = "tch")]
mod tensor;

pub use batch::{LossOutput, PairBatch, PairLogps, PairTokens, Reward};
pub use error::{Input, Model, PrefLossError, Side};
pub use float::Float;
pub use loss::{MarginLoss, PreferenceLoss};
pub use params::{Beta, LabelSmoothing, LogpReduction};
#[cfg(feature = "tch")]
pub use tensor::{PairLogpTensors, RewardTensors};
