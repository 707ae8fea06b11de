//! The settings of an optimization.

use pref_data::{micro_batches, shuffled_order};
use seeds::Seeds;
use tch::Kind;

use crate::optimizer::AdamWSettings;
use crate::parameters::Trained;
use crate::schedule::Decay;

/// The order of the examples in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Shuffled in each epoch, by the RNG stream `data-order`.
    Shuffled,
    /// The given order.
    AsGiven,
}

/// The size of a micro-batch. It affects memory, and results by rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatch {
    /// A number of examples, in the order of the batch.
    Examples(usize),
    /// A maximum number of tokens. A batch is divided evenly into as few micro-batches as possible; a longer example
    /// forms its own.
    Tokens(usize),
}

/// The length of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// A number of passes over the examples, above 0. A fraction ends within a pass, after the step that reaches it.
    Epochs(f64),
    /// A number of optimizer steps, at least 1, over as many passes as they take.
    Steps(u64),
}

/// How a policy is optimized, for any objective.
#[derive(Clone, Debug)]
pub struct TrainSettings {
    /// The length of training.
    pub length: Length,
    /// Examples per optimizer step, over all micro-batches; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// The size of a micro-batch.
    pub micro_batch: MicroBatch,
    /// The maximum learning rate.
    pub learning_rate: f64,
    /// The share of the steps with warm-up.
    pub warmup_ratio: f64,
    /// The learning rate after the warm-up.
    pub decay: Decay,
    /// The hyperparameters of the optimizer.
    pub adamw: AdamWSettings,
    /// The maximum norm of the gradient, to which it is clipped; 0 disables clipping.
    pub max_grad_norm: f64,
    /// The fractions of the steps after which a checkpoint is written.
    pub checkpoints: Vec<f64>,
    /// The kind that the policy computes in; master weights are always fp32.
    pub kind: Kind,
    /// The weights that are trained.
    pub trained: Trained,
    /// The order of the examples.
    pub order: Order,
    /// The source of the RNG streams.
    pub seeds: Seeds,
}

/// Returns the step of a checkpoint at a share of `total_steps`, which is at least 1.
pub fn step_at(share: f64, total_steps: u64) -> u64 {
    ((share * total_steps as f64).round() as u64).clamp(1, total_steps.max(1))
}

impl TrainSettings {
    /// Returns the number of optimizer steps per epoch of `examples` examples.
    pub fn steps_per_epoch(&self, examples: usize) -> u64 {
        examples.div_ceil(self.batch_size) as u64
    }

    /// Returns the number of optimizer steps on `examples` examples: that of transformers' `Trainer`.
    pub fn total_steps(&self, examples: usize) -> u64 {
        match self.length {
            Length::Epochs(epochs) => (epochs * self.steps_per_epoch(examples) as f64).ceil() as u64,
            Length::Steps(steps) => steps,
        }
    }

    /// Returns the number of passes over `examples` examples.
    pub(crate) fn epochs(&self, examples: usize) -> f64 {
        self.total_steps(examples) as f64 / self.steps_per_epoch(examples).max(1) as f64
    }

    /// Returns the steps after which a checkpoint is written, in order.
    pub fn checkpoint_steps(&self, total_steps: u64) -> Vec<u64> {
        let mut steps: Vec<u64> = self.checkpoints.iter().map(|share| step_at(*share, total_steps)).collect();
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// Returns the order of the examples in an epoch.
    pub(crate) fn epoch_order(&self, examples: usize, epoch: u64) -> Vec<usize> {
        match self.order {
            Order::Shuffled => shuffled_order(examples, &self.seeds, epoch),
            Order::AsGiven => (0..examples).collect(),
        }
    }

    /// Divides a batch into micro-batches; `tokens` returns the length of an example.
    pub(crate) fn micro_batches(&self, batch: &[usize], tokens: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
        match self.micro_batch {
            MicroBatch::Examples(examples) => batch.chunks(examples).map(<[usize]>::to_vec).collect(),
            MicroBatch::Tokens(most) => {
                let tokens: Vec<usize> = batch.iter().map(|&example| tokens(example)).collect();
                let parts = micro_batches(&tokens, most).into_iter();
                parts.map(|part| part.into_iter().map(|at| batch[at]).collect()).collect()
            }
        }
    }
}
