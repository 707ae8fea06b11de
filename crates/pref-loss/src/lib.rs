#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod divergence;
mod dynamic_beta;
mod error;
mod evaluate;
mod float;
mod kernels;
mod kto;
mod loss;
mod metrics;
mod params;
mod sum;
#[cfg(feature = "tch")]
mod tensor;
mod tokens;

pub use batch::{LossOutput, PairBatch, PairLogps, PairTokens, Reward};
pub use divergence::{AlphaCoefficient, Divergence};
pub use dynamic_beta::DynamicBeta;
pub use error::{Input, Model, PrefLossError, Side};
pub use float::{Float, Logistic};
pub use kto::{KlEstimate, KtoBatch, KtoLoss, KtoOutput};
pub use loss::{PairLoss, PreferenceLoss, Reads};
pub use metrics::RewardMetrics;
pub use params::{
    Beta, LabelSmoothing, LogpReduction, NoiseRate, TargetMargin, TargetSmoothing, Temperature, Weight,
};
pub use sum::{LossSum, LossTerm};
#[cfg(feature = "tch")]
pub use tensor::{FusedLoss, PairLogpTensors, RewardTensors};
pub use tokens::{LdAlpha, WpoTokens, ld_logp, wpo_weight};
