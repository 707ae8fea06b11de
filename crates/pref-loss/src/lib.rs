#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
#[cfg(feature = "tch")]
mod chunked_head;
mod divergence;
mod dynamic_beta;
mod error;
mod evaluate;
mod float;
#[cfg(feature = "tch")]
mod head_error;
mod kernels;
mod kto;
mod loss;
mod metrics;
mod params;
#[cfg(feature = "tch")]
mod sequence_logps;
mod sum;
#[cfg(feature = "tch")]
mod tensor;
#[cfg(feature = "tch")]
mod token_tensors;
mod tokens;

pub use batch::{LossOutput, PairBatch, PairLogps, PairTokens, Reward};
#[cfg(feature = "tch")]
pub use chunked_head::{ChunkedHead, HeadGradients, HeadTiles, ScoredTokens};
pub use divergence::{AlphaCoefficient, Divergence};
pub use dynamic_beta::DynamicBeta;
pub use error::{Input, Model, PrefLossError, Side};
pub use float::Float;
#[cfg(feature = "tch")]
pub use head_error::HeadError;
pub use kernels::PairLoss;
pub use kto::{KlEstimate, KtoBatch, KtoLoss, KtoOutput};
pub use loss::{PreferenceLoss, Reads};
pub use metrics::RewardMetrics;
pub use params::{
    Beta, LabelSmoothing, LogpReduction, NoiseRate, TargetMargin, TargetSmoothing, Temperature, Weight,
};
#[cfg(feature = "tch")]
pub use sequence_logps::{SequenceLogps, sequence_logps, token_logps};
pub use sum::{LossSum, LossTerm};
#[cfg(feature = "tch")]
pub use tensor::{FusedLoss, PairLogpTensors, RewardTensors};
#[cfg(feature = "tch")]
pub use token_tensors::{ld_logps, wpo_weights};
pub use tokens::{LdAlpha, WpoTokens, ld_logp, wpo_weight};
