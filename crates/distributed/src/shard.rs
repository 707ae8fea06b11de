//! Shards of a flat buffer: of each bucket, every rank has an equal piece (`ZeRO`, Rajbhandari et al. 2020,
//! arXiv 1910.02054).

use std::num::NonZeroU32;

use torch_ext::distributed::Rank;

/// The shard of a flat buffer that one rank holds.
///
/// The buffer is cut into buckets of equal size, and each bucket into one piece per rank.
/// A complete bucket can be sent while others are computed, and every rank has work with each bucket.
/// A shard is the concatenation of the rank's pieces; the buffer is padded at its end to equal pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The rank that holds it.
    pub rank: Rank,
    /// The number of elements of the buffer, without padding.
    pub elements: i64,
    /// The number of elements of a piece.
    pub piece: i64,
}

/// The size of a piece is a multiple of this: an update's vectors then start at the same elements with and without shards,
/// and round equally.
const VECTORS: i64 = 64;

/// A run of elements that is contiguous in the buffer and in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its offset in the shard.
    pub in_shard: i64,
    /// Its offset in the buffer.
    pub in_flat: i64,
    /// Its number of elements.
    pub length: i64,
}

impl Shard {
    /// Returns the shard of `rank` where a bucket has at most about `bucket` elements and all buckets are equally large.
    pub fn new(rank: Rank, elements: i64, bucket: NonZeroU32) -> Self {
        let buckets = ceil(elements, bucket.get().into()).max(1);
        let piece = ceil(elements, buckets * rank.world_size() as i64).max(1);
        Self { rank, elements, piece: ceil(piece, VECTORS) * VECTORS }
    }

    /// Returns the whole buffer as the only shard, without padding.
    pub fn whole(elements: i64) -> Self {
        Self { rank: Rank::ALONE, elements, piece: elements.max(1) }
    }

    /// Whether the shard is the whole buffer.
    pub fn is_whole(&self) -> bool {
        self.rank == Rank::ALONE
    }

    /// The number of elements of a bucket.
    pub fn bucket(&self) -> i64 {
        self.piece * self.rank.world_size() as i64
    }

    /// The number of buckets.
    pub fn buckets(&self) -> i64 {
        ceil(self.elements, self.bucket())
    }

    /// The number of elements of the shard, with padding.
    pub fn length(&self) -> i64 {
        self.piece * self.buckets()
    }

    /// The number of elements of the buffer, with padding.
    pub fn padded(&self) -> i64 {
        self.bucket() * self.buckets()
    }

    /// The runs of the shard within the buffer's elements `start..start + length`, in order.
    pub fn runs(self, start: i64, length: i64) -> impl Iterator<Item = Run> {
        let (piece, bucket) = (self.piece, self.bucket());
        let first = piece * self.rank.index() as i64;
        (0..self.buckets()).filter_map(move |number| {
            let begin = bucket * number + first;
            let (from, to) = (start.max(begin), (start + length).min(begin + piece));
            let in_shard = piece * number + from - begin;
            (from < to).then_some(Run { in_shard, in_flat: from, length: to - from })
        })
    }

    /// The runs of the shard, without padding.
    pub fn all_runs(self) -> impl Iterator<Item = Run> {
        self.runs(0, self.elements)
    }
}

fn ceil(a: i64, b: i64) -> i64 {
    a.div_euclid(b) + i64::from(a.rem_euclid(b) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(rank: u16, world_size: u16, elements: i64, piece: i64) -> Shard {
        Shard { rank: Rank::new(rank, world_size).unwrap(), elements, piece }
    }

    #[test]
    fn shards_are_equal_and_cover_the_buffer_once() {
        for elements in 1..40 {
            for (world_size, piece) in (1..6).flat_map(|n| [1, 2, 3, 7, 64].map(|piece| (n, piece))) {
                let shards: Vec<Shard> =
                    (0..world_size).map(|r| shard(r, world_size, elements, piece)).collect();
                assert!(shards.iter().all(|p| p.length() == shards[0].length() && p.padded() >= elements));
                assert!(shards[0].padded() - elements < shards[0].bucket());
                let mut covered: Vec<i64> = Vec::new();
                for shard in &shards {
                    let mut end = 0;
                    for run in shard.all_runs() {
                        assert!(run.in_shard >= end && run.in_shard + run.length <= shard.length());
                        end = run.in_shard + run.length;
                        covered.extend(run.in_flat..run.in_flat + run.length);
                    }
                }
                covered.sort_unstable();
                assert_eq!(covered, (0..elements).collect::<Vec<i64>>());
            }
        }
    }

    #[test]
    fn a_shard_has_a_piece_of_each_bucket() {
        // Ten elements in two buckets of three pieces: 0 1 | 2 3 | 4 5 and 6 7 | 8 9 | padding.
        let second = shard(1, 3, 10, 2);
        assert_eq!((second.bucket(), second.buckets(), second.length(), second.padded()), (6, 2, 4, 12));
        let run = |in_shard, in_flat, length| Run { in_shard, in_flat, length };
        assert_eq!(second.all_runs().collect::<Vec<_>>(), [run(0, 2, 2), run(2, 8, 2)]);
        assert_eq!(second.runs(3, 6).collect::<Vec<_>>(), [run(1, 3, 1), run(2, 8, 1)]);
        assert_eq!(second.runs(4, 4).count(), 0);
        let whole = Shard::whole(10);
        assert!(whole.is_whole() && whole.padded() == 10);
        assert_eq!(whole.runs(3, 4).collect::<Vec<_>>(), [run(3, 3, 4)]);
    }

    #[test]
    fn buckets_are_equal_up_to_the_size_of_a_vector() {
        let cut = |elements, bucket| {
            let shard = Shard::new(Rank::new(0, 2).unwrap(), elements, NonZeroU32::new(bucket).unwrap());
            (shard.piece, shard.buckets())
        };
        assert_eq!(cut(1000, 1000), (512, 1));
        assert_eq!(cut(1001, 1000), (256, 2));
        assert_eq!(cut(1024, 512), (256, 2));
        assert_eq!(cut(1, 1000), (64, 1));
    }
}
