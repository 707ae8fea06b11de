//! How ranks exchange gradients and weights.

use std::num::NonZeroU32;

/// What each rank holds of the optimizer's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharding {
    /// All of it.
    #[default]
    None,
    /// Master weights and moments of its shard, which it alone updates (`ZeRO` stage 1).
    Optimizer,
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
    /// What each rank holds of the optimizer's state.
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
