//! The state of a training run: what determines how it continues.

use distributed::{Layout, ProcessGroup};
use policy_model::Policy;
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::moments::{Blocks, Moment, MomentKind};
use crate::optimizer::AdamW;
use crate::seen::Seen;
use crate::span::Span;

/// Everything that determines how training continues.
#[derive(Debug)]
pub struct TrainerState<'a> {
    /// The number of optimizer steps made.
    pub step: u64,
    /// The number of optimizer steps of the whole run.
    pub total_steps: u64,
    /// The policy. Its trained weights are fp32, or have the kind that computes if no rank holds all of them in fp32. If the
    /// ranks share its layers, all of them take part in reading it: [`Policy::finish_passes`].
    pub policy: Policy,
    /// The fp32 master weights, or those of the adapters, in one dimension; this rank's shard if the ranks share them.
    pub master: &'a Tensor,
    /// The optimizer with its moments.
    pub optimizer: &'a AdamW,
    /// β-DPO's running mean margin, in nats; `None` for other losses.
    pub(crate) margin_mean: Option<f64>,
    /// The evaluations so far, for early stopping; `None` without it.
    pub(crate) seen: Option<Seen>,
    /// This rank's part of the state.
    pub(crate) layout: Layout,
    /// The ranks.
    pub(crate) group: &'a ProcessGroup,
}

/// The state that a checkpoint holds for one rank.
#[derive(Debug)]
pub(crate) struct SavedState {
    pub(crate) step: u64,
    /// β-DPO's running mean margin.
    pub(crate) margin_mean: Option<f64>,
    /// The evaluations so far, for early stopping.
    pub(crate) seen: Seen,
    pub(crate) master: Tensor,
    pub(crate) moments: [Moment; 2],
}

impl SavedState {
    pub(crate) fn zeros(step: u64, shape: StateShape<'_>) -> Result<Self, TrainError> {
        Ok(Self {
            step,
            margin_mean: None,
            seen: Seen::default(),
            master: Tensor::zeros([shape.layout.length()], (Kind::Float, Device::Cpu)),
            moments: Moment::zeros(shape.moments, &shape.blocks(), Device::Cpu)?,
        })
    }
}

/// What determines the shapes of a rank's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StateShape<'a> {
    /// The elements that the rank holds.
    pub(crate) layout: &'a Layout,
    /// The parameters of the flat buffer.
    pub(crate) spans: &'a [Span],
    pub(crate) moments: MomentKind,
}

impl StateShape<'_> {
    /// Returns the blocks of the moments.
    pub(crate) fn blocks(&self) -> Blocks {
        Blocks::new(self.spans, self.layout)
    }
}
