//! A gradient on its way to the other ranks, in buckets.

use tch::Tensor;

use super::{Exchange, Shard, Timing};

/// The buckets of a gradient, each of which travels as soon as it is whole and all behind it do: from the last to the first, the
/// order in which a backward pass is done with them, and the same on all ranks.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// Parts of the flat gradient.
    pub(super) buckets: Vec<Tensor>,
    /// What this rank receives of each; empty where it receives all, in place.
    pub(super) pieces: Vec<Tensor>,
    pub(super) countdown: Countdown,
    /// Whether buckets travel while the backward pass goes on.
    pub(super) timing: Timing,
}

impl Buckets {
    /// Of the gradient `flat`, of which this rank receives `part` if there is one, as `shard` says.
    pub(crate) fn new(flat: &Tensor, part: Option<&Tensor>, shard: Shard, exchange: Exchange) -> Self {
        let bucket = if part.is_some() { shard.bucket() } else { exchange.bucket.get().into() };
        let pieces = part.map_or_else(Vec::new, |part| part.split(shard.piece, 0));
        let countdown = Countdown::new(shard.elements, bucket, flat.size()[0]);
        Self { buckets: flat.split(bucket, 0), pieces, countdown, timing: exchange.timing }
    }
}

/// How many elements of each bucket are not whole yet.
#[derive(Debug)]
pub(super) struct Countdown {
    bucket: i64,
    /// Of the buckets that have not left, of which the last leaves next.
    missing: Vec<i64>,
}

impl Countdown {
    /// For `elements` in buckets of `bucket`, which with what fills up the last ones are `padded` elements.
    fn new(elements: i64, bucket: i64, padded: i64) -> Self {
        let starts = (0..padded).step_by(bucket as usize);
        Self { bucket, missing: starts.map(|start| (elements - start).clamp(0, bucket)).collect() }
    }

    /// The elements `start..start + length` are whole.
    pub(super) fn whole(&mut self, start: i64, length: i64) {
        let end = start + length;
        for (number, missing) in self.missing.iter_mut().enumerate().skip((start / self.bucket) as usize) {
            let first = self.bucket * number as i64;
            if first >= end {
                break;
            }
            *missing -= end.min(first + self.bucket) - start.max(first);
        }
    }

    /// Whether the next bucket is whole, which then leaves.
    pub(super) fn leaves(&mut self) -> bool {
        self.missing.pop_if(|missing| *missing <= 0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_leave_whole_and_from_the_last_to_the_first() {
        // 0..4, 4..8, 8..10 and what fills it up, nothing but that.
        let mut countdown = Countdown::new(10, 4, 16);
        assert!(countdown.leaves() && !countdown.leaves());
        countdown.whole(0, 3);
        countdown.whole(5, 4);
        assert!(!countdown.leaves());
        countdown.whole(9, 1);
        assert!(countdown.leaves() && !countdown.leaves());
        countdown.whole(3, 2);
        assert!(countdown.leaves() && countdown.leaves() && !countdown.leaves());
    }
}
