//! The shards of a batch.

use std::cmp::Reverse;

/// Splits the items of a batch, given by their tokens, into shards with about equally many tokens.
///
/// The indices of a shard ascend; a single shard holds all items in their order. With fewer items than shards, some
/// shards are empty. Every process computes the same shards, and together they are the batch.
///
/// ```
/// assert_eq!(distributed::balanced_shards(&[100, 900, 300, 500, 200], 2), [vec![0, 1], vec![2, 3, 4]]);
/// ```
pub fn balanced_shards(tokens: &[usize], shards: usize) -> Vec<Vec<usize>> {
    let mut filled = vec![(0, Vec::new()); shards];
    let mut longest_first: Vec<usize> = (0..tokens.len()).collect();
    longest_first.sort_by_key(|&item| (Reverse(tokens[item]), item));
    for item in longest_first {
        // Among equally full shards, the one with the fewest items: items without tokens are spread, too.
        let emptiest =
            filled.iter_mut().min_by_key(|(tokens, items): &&mut (usize, Vec<usize>)| (*tokens, items.len()));
        let Some((sum, items)) = emptiest else { break };
        *sum += tokens[item];
        items.push(item);
    }
    let ascending = |(_, mut items): (usize, Vec<usize>)| {
        items.sort_unstable();
        items
    };
    filled.into_iter().map(ascending).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shards_cover_the_batch_once_and_are_balanced(
            tokens in prop::collection::vec(1usize..400, 1..60), count in 1usize..9,
        ) {
            let shards = balanced_shards(&tokens, count);
            prop_assert_eq!(shards.len(), count);
            prop_assert!(shards.iter().all(|shard| shard.is_sorted()));
            let mut all = shards.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..tokens.len()).collect::<Vec<_>>());
            let filled = |shard: &Vec<usize>| shard.iter().map(|&item| tokens[item]).sum::<usize>();
            let fullest = shards.iter().max_by_key(|shard| filled(shard)).expect("shards");
            let emptiest = shards.iter().map(filled).min().expect("shards");
            // The fullest shard received its last item while it was the emptiest.
            let last = fullest.iter().map(|&item| tokens[item]).min().unwrap_or(0);
            prop_assert!(filled(fullest) - last <= emptiest);
        }
    }

    #[test]
    fn one_shard_holds_everything_and_surplus_shards_are_empty() {
        assert_eq!(balanced_shards(&[3, 9, 5], 1), [[0, 1, 2]]);
        assert_eq!(balanced_shards(&[3, 9], 3), [vec![1], vec![0], vec![]]);
    }
}
