//! Folds of cross-validation, by groups of prompts.

use rand::RngExt;
use seeds::{Seeds, Stream};

/// The number of folds.
pub(crate) const FOLDS: usize = 5;
/// Fewer groups of prompts give no interval worth printing.
const LEAST_GROUPS: usize = 30;

/// Returns the fold of each pair; `None` for too few groups.
pub(crate) fn folds(groups: &[u64], seeds: &Seeds) -> Option<Vec<usize>> {
    let order = in_random_order(groups, &mut seeds.stream("folds"));
    if order.len() < LEAST_GROUPS {
        return None;
    }
    let mut fold_of: Vec<(u64, usize)> =
        order.into_iter().enumerate().map(|(at, group)| (group, at % FOLDS)).collect();
    fold_of.sort_unstable();
    let at = |group: &u64| fold_of.binary_search_by_key(group, |(group, _)| *group);
    Some(groups.iter().map(|group| fold_of[at(group).expect("every group has a fold")].1).collect())
}

/// Returns the different groups, shuffled.
pub(crate) fn in_random_order(groups: &[u64], stream: &mut Stream) -> Vec<u64> {
    let mut distinct = groups.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    shuffle(&mut distinct, stream);
    distinct
}

/// Shuffles items (Fisher and Yates).
pub(crate) fn shuffle<T>(items: &mut [T], stream: &mut Stream) {
    for last in (1..items.len()).rev() {
        items.swap(last, stream.random_range(0..=last));
    }
}
