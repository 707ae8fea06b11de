//! The layout of a sharded flat buffer: one shard, or one for each region.

use std::num::NonZeroU32;

use torch_ext::distributed::Rank;

use crate::shard::{Run, Shard};

/// A part of a flat buffer that is exchanged on its own, such as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its offset in the flat buffer.
    pub start: i64,
    /// The offset of its shard in the shards of all regions.
    pub in_shard: i64,
    /// Its offset in a buffer of all regions with padding.
    pub in_padded: i64,
    /// The shard of its elements.
    pub shard: Shard,
}

/// The elements of a flat buffer that one rank holds: a shard of each region, one after the other.
///
/// ```
/// use std::num::NonZeroU32;
/// use distributed::{Layout, Rank};
///
/// let rank = Rank::new(1, 2)?;
/// let layout = Layout::of_regions(rank, &[100, 300], NonZeroU32::MAX);
/// // Pieces are multiples of 64: 64 of the first region, and 192 of the second.
/// assert_eq!((layout.elements(), layout.length(), layout.padded()), (400, 64 + 192, 128 + 384));
/// let runs: Vec<(i64, i64)> = layout.runs(0, 400).map(|run| (run.in_flat, run.length)).collect();
/// assert_eq!(runs, [(64, 36), (292, 108)]);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    regions: Vec<Region>,
}

impl Layout {
    /// Returns a layout with the whole buffer as its only region.
    pub fn single(shard: Shard) -> Self {
        Self { regions: vec![Region { start: 0, in_shard: 0, in_padded: 0, shard }] }
    }

    /// Returns the whole buffer as the only shard.
    pub fn whole(elements: i64) -> Self {
        Self::single(Shard::whole(elements))
    }

    /// Returns the layout of `rank` for regions of these lengths; buckets have at most about `bucket` elements.
    pub fn of_regions(rank: Rank, lengths: &[i64], bucket: NonZeroU32) -> Self {
        Self::of_shards(lengths.iter().map(|&elements| Shard::new(rank, elements, bucket)))
    }

    /// Returns the layout with these shards of consecutive regions.
    pub fn of_shards(shards: impl IntoIterator<Item = Shard>) -> Self {
        let (mut start, mut in_shard, mut in_padded) = (0, 0, 0);
        let regions = shards.into_iter().map(|shard| {
            let region = Region { start, in_shard, in_padded, shard };
            start += shard.elements;
            in_shard += shard.length();
            in_padded += shard.padded();
            region
        });
        Self { regions: regions.collect() }
    }

    /// The regions, in the order of the buffer.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The rank that holds it.
    pub fn rank(&self) -> Rank {
        self.regions.first().map_or(Rank::ALONE, |region| region.shard.rank)
    }

    /// Whether the shard is the whole buffer.
    pub fn is_whole(&self) -> bool {
        self.rank() == Rank::ALONE
    }

    /// The number of elements of the buffer, without padding.
    pub fn elements(&self) -> i64 {
        self.regions.last().map_or(0, |last| last.start + last.shard.elements)
    }

    /// The number of elements that the rank holds, with padding.
    pub fn length(&self) -> i64 {
        self.regions.last().map_or(0, |last| last.in_shard + last.shard.length())
    }

    /// The number of elements of the buffer, with the padding of each region.
    pub fn padded(&self) -> i64 {
        self.regions.last().map_or(0, |last| last.in_padded + last.shard.padded())
    }

    /// Returns the index of the region with this element.
    pub fn region_of(&self, element: i64) -> usize {
        self.regions.partition_point(|region| region.start <= element).saturating_sub(1)
    }

    /// Returns the offset of an element in a buffer with the padding of each region.
    pub fn padded_offset(&self, element: i64) -> i64 {
        let region = &self.regions[self.region_of(element)];
        region.in_padded + element - region.start
    }

    /// The runs of the shard within the buffer's elements `start..start + length`, in order.
    pub fn runs(&self, start: i64, length: i64) -> impl Iterator<Item = Run> {
        self.regions.iter().flat_map(move |region| {
            let (from, to) =
                (start.max(region.start), (start + length).min(region.start + region.shard.elements));
            let runs = region.shard.runs(from - region.start, (to - from).max(0));
            runs.map(|run| Run {
                in_shard: run.in_shard + region.in_shard,
                in_flat: run.in_flat + region.start,
                ..run
            })
        })
    }

    /// The runs of the shard, without padding.
    pub fn all_runs(&self) -> impl Iterator<Item = Run> {
        self.runs(0, self.elements())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_of_all_ranks_cover_each_element_once() {
        for lengths in [&[1][..], &[100, 300], &[1000, 7, 130, 64]] {
            for (world_size, bucket) in [(1, 64), (2, 64), (3, 500), (4, 1000)] {
                let mut covered: Vec<i64> = Vec::new();
                for index in 0..world_size {
                    let rank = Rank::new(index, world_size).unwrap();
                    let layout = Layout::of_regions(rank, lengths, NonZeroU32::new(bucket).unwrap());
                    let mut end = 0;
                    for run in layout.all_runs() {
                        assert!(run.in_shard >= end && run.in_shard + run.length <= layout.length());
                        end = run.in_shard + run.length;
                        covered.extend(run.in_flat..run.in_flat + run.length);
                    }
                }
                covered.sort_unstable();
                assert_eq!(covered, (0..lengths.iter().sum()).collect::<Vec<i64>>());
            }
        }
    }

    #[test]
    fn runs_of_a_part_are_those_runs_of_the_whole() {
        let layout =
            Layout::of_regions(Rank::new(1, 2).unwrap(), &[1000, 7, 130], NonZeroU32::new(256).unwrap());
        for (start, length) in [(0, 1137), (990, 30), (1003, 2), (1137, 0)] {
            let inside = |run: Run| {
                let (from, to) = (run.in_flat.max(start), (run.in_flat + run.length).min(start + length));
                let in_shard = run.in_shard + from - run.in_flat;
                (from < to).then_some(Run { in_shard, in_flat: from, length: to - from })
            };
            let expected: Vec<Run> = layout.all_runs().filter_map(inside).collect();
            assert_eq!(layout.runs(start, length).collect::<Vec<_>>(), expected);
        }
        assert_eq!([0, 999, 1000, 1006, 1007].map(|element| layout.region_of(element)), [0, 0, 1, 1, 2]);
        assert_eq!(layout.padded_offset(1001), layout.regions()[0].shard.padded() + 1);
    }
}
