//! The buckets in which a gradient is sent.

use tch::Tensor;

use crate::settings::{Exchange, Timing};
use crate::shard::Shard;

/// The buckets of a flat gradient.
///
/// They are sent from the last to the first, each when it is complete: a backward pass completes them in this order, and
/// the order is the same on all ranks.
#[derive(Debug)]
pub struct GradientBuckets {
    /// Parts of the flat gradient.
    pub(crate) buckets: Vec<Tensor>,
    /// The piece of each bucket that this rank receives; empty if it receives whole buckets in place.
    pub(crate) pieces: Vec<Tensor>,
    pub(crate) countdown: Countdown,
    pub(crate) timing: Timing,
}

impl GradientBuckets {
    /// Returns the buckets of the gradient `flat`. With `part`, this rank receives its `shard` there.
    ///
    /// # Shapes
    ///
    /// `flat`: fp32 `[shard.padded()]`. `part`: fp32 `[shard.length()]`.
    pub fn new(flat: &Tensor, part: Option<&Tensor>, shard: Shard, exchange: Exchange) -> Self {
        let bucket = if part.is_some() { shard.bucket() } else { exchange.bucket.get().into() };
        let pieces = part.map_or_else(Vec::new, |part| part.split(shard.piece, 0));
        let countdown = Countdown::new(shard.elements, bucket, flat.size()[0]);
        Self { buckets: flat.split(bucket, 0), pieces, countdown, timing: exchange.timing }
    }
}

/// The number of incomplete elements of each bucket.
#[derive(Debug)]
pub(crate) struct Countdown {
    bucket: i64,
    /// For the buckets that are not sent yet; the last is sent next.
    missing: Vec<i64>,
}

impl Countdown {
    /// Returns a countdown for `elements` elements in buckets of `bucket`, `padded` elements with padding.
    fn new(elements: i64, bucket: i64, padded: i64) -> Self {
        let starts = (0..padded).step_by(bucket as usize);
        Self { bucket, missing: starts.map(|start| (elements - start).clamp(0, bucket)).collect() }
    }

    /// Marks the elements `start..start + length` as complete.
    pub(crate) fn complete(&mut self, start: i64, length: i64) {
        let end = start + length;
        for (number, missing) in self.missing.iter_mut().enumerate().skip((start / self.bucket) as usize) {
            let first = self.bucket * number as i64;
            if first >= end {
                break;
            }
            *missing -= end.min(first + self.bucket) - start.max(first);
        }
    }

    /// Whether the next bucket is complete; if so, it is taken off the list.
    pub(crate) fn take_complete(&mut self) -> bool {
        self.missing.pop_if(|missing| *missing <= 0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_buckets_are_taken_from_the_last_to_the_first() {
        // 0..4, 4..8, 8..10 with padding, and one bucket of padding.
        let mut countdown = Countdown::new(10, 4, 16);
        assert!(countdown.take_complete() && !countdown.take_complete());
        countdown.complete(0, 3);
        countdown.complete(5, 4);
        assert!(!countdown.take_complete());
        countdown.complete(9, 1);
        assert!(countdown.take_complete() && !countdown.take_complete());
        countdown.complete(3, 2);
        assert!(countdown.take_complete() && countdown.take_complete() && !countdown.take_complete());
    }
}
