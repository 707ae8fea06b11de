//! How ranks exchange gradients and weights.

use std::num::NonZeroU32;

/// What is divided among the ranks; each stage includes the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sharding {
    /// Nothing.
    #[default]
    None,
    /// Master weights and moments, which a rank updates for its shard alone (`ZeRO` stage 1).
    Optimizer,
    /// Gradients: a layer's are summed on the ranks that hold its shards after each backward pass (`ZeRO` stage 2).
    Gradients,
    /// The weights that compute: a layer's are gathered while it computes (`ZeRO` stage 3).
    Parameters,
}

/// When gradients are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// Each bucket as soon as it is complete, while the backward pass computes the others.
    #[default]
    DuringBackward,
    /// All buckets after the backward pass.
    AfterBackward,
}

/// How ranks exchange gradients and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What is divided among the ranks.
    pub sharding: Sharding,
    /// The largest number of elements in one message; several messages are in flight at a time.
    pub bucket: NonZeroU32,
    /// When gradients are sent.
    pub timing: Timing,
}

impl Default for Exchange {
    fn default() -> Self {
        // 25 MiB of fp32, PyTorch's bucket size.
        const ELEMENTS: NonZeroU32 = NonZeroU32::new(25 * (1 << 20) / 4).expect("more than none");
        Self { sharding: Sharding::Optimizer, bucket: ELEMENTS, timing: Timing::DuringBackward }
    }
}
