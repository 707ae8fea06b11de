#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod divergence;
mod error;
mod evaluate;
mod float;
mod kernels;
mod loss;
mod params;
mod sum;
#[cfg(feature = "tch")]
mod tensor;

pub use batch::{LossOutput, PairBatch, PairLogps, PairTokens, Reward};
pub use divergence::{AlphaCoefficient, Divergence};
pub use error::{Input, Model, PrefLossError, Side};
pub use float::{Float, Logistic};
pub use loss::{PairLoss, PreferenceLoss, Reads};
pub use params::{
    Beta, LabelSmoothing, LogpReduction, NoiseRate, TargetMargin, TargetSmoothing, Temperature, Weight,
};
pub use sum::{LossSum, LossTerm};
#[cfg(feature = "tch")]
pub use tensor::{FusedLoss, PairLogpTensors, RewardTensors};
