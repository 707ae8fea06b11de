//! How a flat buffer is shared out: of each bucket, every rank has an equal piece (`ZeRO`, Rajbhandari et al. 2020,
//! arXiv 1910.02054).

use std::num::NonZeroU32;

use torch_ext::distributed::Rank;

/// What each rank holds of the optimiser's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharding {
    /// All of it.
    #[default]
    None,
    /// Master weights and moments of its part of the weights, which it alone updates (`ZeRO` stage 1).
    Optimizer,
}

/// When gradients travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timing {
    /// Each bucket as soon as nothing is added to it any more, where the objective's
    /// [`Activations`](crate::Activations) let layers be done before others are begun.
    #[default]
    DuringBackward,
    /// All of them after the backward pass.
    AfterBackward,
}

/// How ranks exchange gradients and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Who holds what of the optimiser's state.
    pub sharding: Sharding,
    /// The most elements that travel in one piece. Several of these are under way at a time.
    pub bucket: NonZeroU32,
    /// When gradients travel.
    pub timing: Timing,
}

impl Default for Exchange {
    fn default() -> Self {
        // 25 MiB of fp32, as PyTorch has it.
        const ELEMENTS: NonZeroU32 = NonZeroU32::new(25 * (1 << 20) / 4).expect("more than none");
        Self { sharding: Sharding::Optimizer, bucket: ELEMENTS, timing: Timing::DuringBackward }
    }
}

/// A rank's part of a flat buffer.
///
/// The buffer is cut into buckets of equal size, and each bucket into one piece a rank, so that a bucket can travel as soon as
/// it is whole, and every rank has work with each. A part is the rank's pieces, one behind the other. What a buffer lacks to
/// equal pieces is filled up at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Which part of how many.
    pub(crate) rank: Rank,
    /// Elements of the buffer, without what fills it up.
    pub(crate) elements: i64,
    /// Elements of a piece.
    pub(crate) piece: i64,
}

/// Elements of a piece are a multiple of this: vectors in an update begin where they begin in an update of the whole, and so
/// round alike.
const VECTORS: i64 = 64;

/// A run of elements that lies in the buffer and in a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Where it begins in the part, and in the buffer.
    pub(crate) in_part: i64,
    pub(crate) in_flat: i64,
    pub(crate) length: i64,
}

impl Shard {
    /// The part of `rank`, where a bucket has some `bucket` elements and at most as many as all buckets can have alike.
    pub(crate) fn of(rank: Rank, elements: i64, bucket: NonZeroU32) -> Self {
        let buckets = ceil(elements, bucket.get().into()).max(1);
        let piece = ceil(elements, buckets * rank.world_size() as i64).max(1);
        Self { rank, elements, piece: ceil(piece, VECTORS) * VECTORS }
    }

    /// The whole buffer, which nothing fills up.
    pub(crate) fn whole(elements: i64) -> Self {
        Self { rank: Rank::ALONE, elements, piece: elements.max(1) }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.rank == Rank::ALONE
    }

    /// Elements of a bucket.
    pub(crate) fn bucket(&self) -> i64 {
        self.piece * self.rank.world_size() as i64
    }

    /// Into how many buckets the buffer is cut.
    pub(crate) fn buckets(&self) -> i64 {
        ceil(self.elements, self.bucket())
    }

    /// Elements of the part, and of the buffer, with what fills them up.
    pub(crate) fn length(&self) -> i64 {
        self.piece * self.buckets()
    }

    pub(crate) fn padded(&self) -> i64 {
        self.bucket() * self.buckets()
    }

    /// What of the part are elements of the buffer at `start..start + length`, in order.
    pub(crate) fn runs(self, start: i64, length: i64) -> impl Iterator<Item = Run> {
        let (piece, bucket) = (self.piece, self.bucket());
        let first = piece * self.rank.index() as i64;
        (0..self.buckets()).filter_map(move |number| {
            let begin = bucket * number + first;
            let (from, to) = (start.max(begin), (start + length).min(begin + piece));
            let in_part = piece * number + from - begin;
            (from < to).then_some(Run { in_part, in_flat: from, length: to - from })
        })
    }

    /// The part without what fills it up.
    pub(crate) fn all_runs(self) -> impl Iterator<Item = Run> {
        self.runs(0, self.elements)
    }
}

fn ceil(a: i64, b: i64) -> i64 {
    a.div_euclid(b) + i64::from(a.rem_euclid(b) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(rank: u16, world_size: u16, elements: i64, piece: i64) -> Shard {
        Shard { rank: Rank::new(rank, world_size).unwrap(), elements, piece }
    }

    #[test]
    fn parts_are_equal_and_cover_the_buffer_once() {
        for elements in 1..40 {
            for (world_size, piece) in (1..6).flat_map(|n| [1, 2, 3, 7, 64].map(|piece| (n, piece))) {
                let parts: Vec<Shard> =
                    (0..world_size).map(|r| part(r, world_size, elements, piece)).collect();
                assert!(parts.iter().all(|p| p.length() == parts[0].length() && p.padded() >= elements));
                assert!(parts[0].padded() - elements < parts[0].bucket());
                let mut covered: Vec<i64> = Vec::new();
                for part in &parts {
                    let mut end = 0;
                    for run in part.all_runs() {
                        assert!(run.in_part >= end && run.in_part + run.length <= part.length());
                        end = run.in_part + run.length;
                        covered.extend(run.in_flat..run.in_flat + run.length);
                    }
                }
                covered.sort_unstable();
                assert_eq!(covered, (0..elements).collect::<Vec<i64>>());
            }
        }
    }

    #[test]
    fn a_part_has_a_piece_of_each_bucket() {
        // Ten elements in two buckets of three pieces: 0 1 | 2 3 | 4 5 and 6 7 | 8 9 | nothing.
        let second = part(1, 3, 10, 2);
        assert_eq!((second.bucket(), second.buckets(), second.length(), second.padded()), (6, 2, 4, 12));
        let run = |in_part, in_flat, length| Run { in_part, in_flat, length };
        assert_eq!(second.all_runs().collect::<Vec<_>>(), [run(0, 2, 2), run(2, 8, 2)]);
        assert_eq!(second.runs(3, 6).collect::<Vec<_>>(), [run(1, 3, 1), run(2, 8, 1)]);
        assert_eq!(second.runs(4, 4).count(), 0);
        let whole = Shard::whole(10);
        assert!(whole.is_whole() && whole.padded() == 10);
        assert_eq!(whole.runs(3, 4).collect::<Vec<_>>(), [run(3, 3, 4)]);
    }

    #[test]
    fn buckets_are_as_even_as_vectors_let_them_be() {
        let cut = |elements, bucket| {
            let shard = Shard::of(Rank::new(0, 2).unwrap(), elements, NonZeroU32::new(bucket).unwrap());
            (shard.piece, shard.buckets())
        };
        assert_eq!(cut(1000, 1000), (512, 1));
        assert_eq!(cut(1001, 1000), (256, 2));
        assert_eq!(cut(1024, 512), (256, 2));
        assert_eq!(cut(1, 1000), (64, 1));
    }
}
