//! Exchange of single regions, in flight while others are computed.

use tch::Tensor;
use torch_ext::distributed::{InFlight, ReduceOp};

use crate::error::DistributedError;
use crate::group::ProcessGroup;
use crate::shard::Shard;

/// A sum of a region over all ranks that has started.
#[derive(Debug)]
pub struct PendingSum {
    buckets: Vec<InFlight>,
    piece: i64,
}

/// A region that is being gathered.
#[derive(Debug)]
pub struct PendingGather {
    whole: Tensor,
    buckets: Vec<InFlight>,
}

/// A pass over all layers, in which all ranks take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// A forward pass, from the first layer to the last.
    Forward,
    /// A backward pass, from the last layer to the first.
    Backward,
}

impl ProcessGroup {
    /// Starts the sum of a region over all ranks.
    ///
    /// # Shapes
    ///
    /// `whole`: fp32 `[shard.padded()]`, not written until the sum has ended.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn begin_sum(&self, shard: Shard, whole: &Tensor) -> Result<PendingSum, DistributedError> {
        let Some(group) = self.c10d() else {
            return Ok(PendingSum { buckets: Vec::new(), piece: shard.piece });
        };
        let begin = |bucket: Tensor| {
            let piece = Tensor::f_empty([shard.piece], (bucket.kind(), bucket.device()))
                .map_err(|source| DistributedError::Copy { source })?;
            Ok(group.begin_reduce_scatter(piece, bucket, ReduceOp::Sum)?)
        };
        let buckets = whole.split(shard.bucket(), 0).into_iter().map(begin);
        Ok(PendingSum { buckets: buckets.collect::<Result<_, DistributedError>>()?, piece: shard.piece })
    }

    /// Waits for a sum, and adds this rank's shard of it to `part`.
    ///
    /// # Shapes
    ///
    /// `part`: fp32 `[shard.length()]`.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn add_sum(&self, sum: PendingSum, part: &Tensor) -> Result<(), DistributedError> {
        let Some(group) = self.c10d() else { return Ok(()) };
        for (bucket, mut piece) in sum.buckets.into_iter().zip(part.split(sum.piece, 0)) {
            torch_ext::accumulate(&mut piece, &group.complete(bucket)?)?;
        }
        Ok(())
    }

    /// Starts to gather the `part` of each rank, which is its `shard` of a region.
    ///
    /// # Shapes
    ///
    /// `part`: `[shard.length()]`, not written until the gather has ended.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn begin_gather(&self, shard: Shard, part: &Tensor) -> Result<PendingGather, DistributedError> {
        let Some(group) = self.c10d() else {
            return Ok(PendingGather { whole: part.shallow_clone(), buckets: Vec::new() });
        };
        let whole = Tensor::f_empty([shard.padded()], (part.kind(), part.device()))
            .map_err(|source| DistributedError::Copy { source })?;
        let buckets = whole.split(shard.bucket(), 0).into_iter().zip(part.split(shard.piece, 0));
        let buckets = buckets.map(|(bucket, piece)| Ok(group.begin_all_gather(bucket, piece)?));
        let buckets = buckets.collect::<Result<_, DistributedError>>()?;
        Ok(PendingGather { whole, buckets })
    }

    /// Waits for a gather, and returns the region, `[shard.padded()]`.
    ///
    /// # Errors
    ///
    /// If another rank fails or is missing.
    pub fn end_gather(&self, gather: PendingGather) -> Result<Tensor, DistributedError> {
        if let Some(group) = self.c10d() {
            for bucket in gather.buckets {
                let _ = group.complete(bucket)?;
            }
        }
        Ok(gather.whole)
    }

    /// Announces the next pass of this rank, or `None` if it has no more work. Returns the pass in which all ranks take part
    /// now, and `None` once no rank has more work.
    ///
    /// Ranks may have different numbers of passes: a rank without more work takes part in the exchanges of the others' passes
    /// until this returns `None`.
    ///
    /// # Errors
    ///
    /// [`DistributedError::PassesDiffer`]; if another rank fails or is missing.
    pub fn agree_on_pass(&self, own: Option<Pass>) -> Result<Option<Pass>, DistributedError> {
        if !self.is_distributed() {
            return Ok(own);
        }
        let count = |pass| f64::from(u8::from(own == Some(pass)));
        let mut counts = [count(Pass::Forward), count(Pass::Backward)];
        self.all_reduce_sum(&mut counts)?;
        match counts.map(|count| count > 0.0) {
            [true, true] => Err(DistributedError::PassesDiffer),
            [true, false] => Ok(Some(Pass::Forward)),
            [false, true] => Ok(Some(Pass::Backward)),
            [false, false] => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use tch::{Device, Kind};
    use torch_ext::distributed::Rank;

    use super::*;
    use crate::placement::{Placement, Token};

    #[test]
    fn a_region_is_summed_and_gathered_across_buckets() {
        let gathered = on_ranks(3, |group| {
            let index = group.rank().index() as i64;
            let shard = Shard::new(group.rank(), 500, NonZeroU32::new(200).unwrap());
            let numbers = Tensor::arange(shard.padded(), (Kind::Float, Device::Cpu)) * (index + 1);
            let part = Tensor::ones([shard.length()], (Kind::Float, Device::Cpu));
            let sum = group.begin_sum(shard, &numbers).unwrap();
            group.add_sum(sum, &part).unwrap();
            let gather = group.begin_gather(shard, &part).unwrap();
            Vec::<f32>::try_from(group.end_gather(gather).unwrap()).unwrap()
        });
        for whole in gathered {
            assert!(
                whole.len() >= 500 && whole.iter().enumerate().all(|(at, &sum)| sum == 6.0 * at as f32 + 1.0)
            );
        }
    }

    #[test]
    fn ranks_with_fewer_passes_take_part_in_those_of_others() {
        let counts = on_ranks(3, |group| {
            let mut own = vec![Pass::Forward; group.rank().index()];
            let mut passes = 0;
            while group.agree_on_pass(own.pop()).unwrap().is_some() {
                passes += 1;
            }
            passes
        });
        assert_eq!(counts, [2, 2, 2]);
    }

    #[test]
    fn different_passes_are_an_error() {
        let results = on_ranks(2, |group| {
            let own = [Pass::Forward, Pass::Backward][group.rank().index()];
            group.agree_on_pass(Some(own)).unwrap_err().to_string()
        });
        assert!(results.iter().all(|error| error.contains("forward and a backward pass")), "{results:?}");
    }

    /// Runs `body` on ranks that are threads, and returns their results.
    fn on_ranks<T: Send>(world_size: u16, body: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
        let port = test_support::free_port();
        let run_rank = |index: u16| {
            let (host, token) = ("127.0.0.1".to_owned(), Token::default());
            let rank = Rank::new(index, world_size).unwrap();
            let placement = Placement { rank, local_rank: index.into(), host, port, token };
            body(ProcessGroup::join(&placement, Device::Cpu, Duration::from_secs(60)).unwrap())
        };
        std::thread::scope(|scope| {
            let run_rank = &run_rank;
            let ranks: Vec<_> = (0..world_size).map(|index| scope.spawn(move || run_rank(index))).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }
}
