//! The training runs that TRL recorded.

use seeds::Seeds;
use tch::Kind;
use trainer::{AdamWSettings, Decay, Length, MicroBatch, MomentKind, Order, TrainSettings, Trained};

/// Returns the settings of a recorded run: one epoch in the order of the data, in float32.
pub(crate) fn peer_settings(learning_rate: f64, batch_size: usize, micro_batch: MicroBatch) -> TrainSettings {
    TrainSettings {
        length: Length::Epochs(1.0),
        batch_size,
        micro_batch,
        learning_rate,
        warmup_ratio: 0.0,
        decay: Decay::Linear,
        adamw: AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            moments: MomentKind::Float,
        },
        max_grad_norm: 1.0,
        checkpoints: vec![],
        kind: Kind::Float,
        trained: Trained::All,
        order: Order::AsGiven,
        seeds: Seeds::new(0),
    }
}
