//! The same losses on tensors, for autograd.

mod autograd;
mod formula;
mod fused;
mod logps;
mod sum;
mod unpaired;

pub use fused::FusedLoss;
pub use logps::{PairLogpTensors, RewardTensors};
