//! Sums of gradients over all ranks, and gathers of updated weights, bucket by bucket.

use std::iter::Rev;
use std::ops::Range;
use std::slice::IterMut;

use tch::Tensor;
use torch_ext::TorchExtError;
use torch_ext::distributed::{ReduceOp, Scope};

use crate::buckets::{Countdown, GradientBuckets};
use crate::error::DistributedError;
use crate::group::ProcessGroup;
use crate::settings::Timing;
use crate::shard::Shard;

/// Receives a flat gradient while a backward pass computes it.
pub trait GradientSink {
    /// Marks the elements `start..start + length` as complete on this rank.
    fn complete(&mut self, start: i64, length: i64);
}

/// The sink of a single process, which sends nothing.
struct Discard;

impl GradientSink for Discard {
    fn complete(&mut self, _: i64, _: i64) {}
}

/// Sends each bucket once it is complete.
struct Sender<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    buckets: Rev<IterMut<'scope, Tensor>>,
    pieces: Rev<IterMut<'scope, Tensor>>,
    countdown: Countdown,
    timing: Timing,
    /// Whether the last call sent a bucket; an error ends the sending.
    sent: Result<bool, TorchExtError>,
}

impl Sender<'_, '_> {
    fn send_next(&mut self) {
        let Some(bucket) = self.buckets.next() else {
            self.sent = Ok(false);
            return;
        };
        let sent = match self.pieces.next() {
            Some(piece) => self.scope.reduce_scatter(piece, bucket, ReduceOp::Sum),
            None => self.scope.all_reduce(bucket, ReduceOp::Sum),
        };
        self.sent = sent.map(|_| true);
    }

    /// Sends the buckets that are left: a rank without a share of the batch takes part, too.
    fn finish(mut self) -> Result<(), TorchExtError> {
        while matches!(self.sent, Ok(true)) {
            self.send_next();
        }
        self.sent.map(drop)
    }
}

impl GradientSink for Sender<'_, '_> {
    fn complete(&mut self, start: i64, length: i64) {
        self.countdown.complete(start, length);
        while self.timing == Timing::DuringBackward && self.sent.is_ok() && self.countdown.take_complete() {
            self.send_next();
        }
    }
}

impl ProcessGroup {
    /// Sums a gradient over all ranks while `backward` computes this rank's part of it. Each bucket is sent once `backward`
    /// has marked all its elements as complete; the others are sent at the end.
    ///
    /// # Errors
    ///
    /// The error of `backward`; if another rank fails or is missing.
    pub fn reduce_gradient<R, E: From<DistributedError>>(
        &self,
        gradient: GradientBuckets,
        backward: impl FnOnce(&mut dyn GradientSink) -> Result<R, E>,
    ) -> Result<R, E> {
        let Some(group) = self.c10d() else { return backward(&mut Discard) };
        let GradientBuckets { mut buckets, mut pieces, countdown, timing } = gradient;
        let mut computed = None;
        let sent = group.scope(|scope| {
            let (buckets, pieces) = (buckets.iter_mut().rev(), pieces.iter_mut().rev());
            let mut sender = Sender { scope, buckets, pieces, countdown, timing, sent: Ok(true) };
            let is_computed = computed.insert(backward(&mut sender)).is_ok();
            if is_computed { sender.finish() } else { Ok(()) }
        });
        // An error of the backward pass comes first: errors of the exchange may follow from it.
        let computed = computed.expect("the scope has run its body")?;
        sent.and_then(|sent| sent).map_err(DistributedError::from)?;
        Ok(computed)
    }

    /// Gathers the `part` of each rank, which is its `shard`, into `whole` on all ranks. `update` writes a range of elements of
    /// `part` before it is sent, while earlier elements are in flight.
    ///
    /// # Shapes
    ///
    /// `whole`: `[shard.padded()]`. `part`: `[shard.length()]`, of the same kind.
    ///
    /// # Errors
    ///
    /// The error of `update`; if another rank fails or is missing.
    pub fn all_gather_updated<E: From<DistributedError>>(
        &self,
        shard: Shard,
        whole: &Tensor,
        part: &Tensor,
        mut update: impl FnMut(Range<i64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(group) = self.c10d() else { return update(0..shard.length()) };
        let pieces = part.split(shard.piece, 0);
        let mut buckets = whole.split(shard.bucket(), 0);
        let scoped = group.scope(|scope| {
            let mut start = 0;
            for (bucket, piece) in buckets.iter_mut().zip(&pieces) {
                update(start..start + shard.piece)?;
                scope.all_gather(bucket, piece).map_err(DistributedError::from)?;
                start += shard.piece;
            }
            Ok::<_, E>(())
        });
        scoped.map_err(DistributedError::from)?
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    use tch::{Device, Kind};
    use torch_ext::distributed::Rank;

    use super::*;
    use crate::placement::{Placement, Token};
    use crate::settings::Exchange;

    #[test]
    fn a_group_of_one_rank_keeps_its_gradient() {
        let (host, token) = ("127.0.0.1".to_owned(), Token::default());
        let placement = Placement { rank: Rank::ALONE, local_rank: 0, host, port: 0, token };
        let group = ProcessGroup::join(&placement, Device::Cpu, Duration::from_secs(20)).unwrap();
        let flat = Tensor::arange(23, (Kind::Float, Device::Cpu));
        let before = flat.copy();
        for timing in [Timing::DuringBackward, Timing::AfterBackward] {
            let exchange = Exchange { bucket: NonZeroU32::new(10).unwrap(), timing, ..Exchange::default() };
            let buckets = GradientBuckets::new(&flat, None, Shard::whole(23), exchange);
            let computed = group.reduce_gradient(buckets, |sink| {
                sink.complete(4, 19);
                Ok::<_, DistributedError>("done")
            });
            assert_eq!(computed.unwrap(), "done");
            assert!(flat.equal(&before));
        }
    }

    #[test]
    fn a_complete_bucket_is_sent_while_others_are_incomplete() {
        two_ranks(|index, group| {
            let flat = Tensor::full([20], index + 1, (Kind::Float, Device::Cpu));
            let exchange = Exchange { bucket: NonZeroU32::new(10).unwrap(), ..Exchange::default() };
            let buckets = GradientBuckets::new(&flat, None, Shard::whole(20), exchange);
            let sent = group.reduce_gradient(buckets, |sink| {
                sink.complete(10, 10);
                let sent = wait_until(|| (10..20).all(|at| flat.double_value(&[at]) == 3.0));
                let is_unsent = flat.double_value(&[0]) == index as f64 + 1.0;
                sink.complete(0, 10);
                Ok::<_, DistributedError>(sent && is_unsent)
            });
            assert!(sent.unwrap(), "the last bucket waits for the first");
            assert_eq!(flat.sum(Kind::Float).double_value(&[]), 60.0);
        });
    }

    #[test]
    fn a_piece_is_sent_while_the_next_is_updated() {
        two_ranks(|index, group| {
            let shard = Shard::new(group.rank(), 256, NonZeroU32::new(128).unwrap());
            let [whole, part] = [shard.padded(), shard.length()]
                .map(|length| Tensor::zeros([length], (Kind::Float, Device::Cpu)));
            let mut sent = Vec::new();
            let gathered = group.all_gather_updated(shard, &whole, &part, |elements| {
                // The first bucket consists of the first piece of both ranks.
                let has_arrived = || whole.double_value(&[0]) == 1.0 && whole.double_value(&[64]) == 2.0;
                sent.push(elements.start == 0 || wait_until(has_arrived));
                let _ = part.narrow(0, elements.start, elements.end - elements.start).fill_(index + 1);
                Ok::<_, DistributedError>(())
            });
            gathered.unwrap();
            assert_eq!(sent, [true, true], "the first piece waits for the second");
            assert_eq!(whole.sum(Kind::Float).double_value(&[]), 384.0);
        });
    }

    /// Waits until the condition is true, and returns whether it is.
    fn wait_until(condition: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !condition() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        condition()
    }

    /// Runs `body` on two ranks, with the index of each.
    fn two_ranks(body: impl Fn(i64, ProcessGroup) + Sync) {
        let port = test_support::free_port();
        let run_rank = |index: u16| {
            let host = "127.0.0.1".to_owned();
            let rank = Rank::new(index, 2).unwrap();
            let placement = Placement { rank, local_rank: index.into(), host, port, token: Token::default() };
            let group = ProcessGroup::join(&placement, Device::Cpu, Duration::from_secs(60)).unwrap();
            body(index.into(), group);
        };
        std::thread::scope(|scope| {
            for index in 0..2 {
                let run_rank = &run_rank;
                scope.spawn(move || run_rank(index));
            }
        });
    }
}
