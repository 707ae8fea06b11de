//! Micro-batches: parts of a batch with about equally many tokens.

use std::cmp::Reverse;

/// Splits the items of a batch, given by their numbers of tokens, into few micro-batches of at most `most_tokens` with
/// about equal numbers of tokens. A longer item is alone in its micro-batch.
///
/// The indices of a micro-batch ascend; the largest micro-batch is first. The split depends only on `tokens` and
/// `most_tokens`. Weight each micro-batch's mean loss by its share of the batch's items.
///
/// ```
/// let parts = pref_data::micro_batches(&[100, 900, 300, 500, 200], 1000);
/// assert_eq!(parts, [vec![1, 0], vec![3, 2, 4]].map(|mut part| { part.sort(); part }));
/// ```
pub fn micro_batches(tokens: &[usize], most_tokens: usize) -> Vec<Vec<usize>> {
    let mut longest_first: Vec<usize> = (0..tokens.len()).collect();
    longest_first.sort_by_key(|&item| (Reverse(tokens[item]), item));
    // Items that fill a micro-batch alone need no search.
    let alone = longest_first.iter().take_while(|&&item| tokens[item] >= most_tokens).count();
    let (long, rest) = longest_first.split_at(alone);
    let total: usize = rest.iter().map(|&item| tokens[item]).sum();
    let mut count = total.div_ceil(most_tokens.max(1));
    let mut parts = loop {
        match spread(rest, tokens, count, most_tokens) {
            Some(parts) => break parts,
            None => count += 1,
        }
    };
    parts.extend(long.iter().map(|&item| (tokens[item], vec![item])));
    // Parts of equal size are in the order of their first items.
    parts.sort_by_key(|(filled, items)| (Reverse(*filled), items.iter().min().copied()));
    parts
        .into_iter()
        .map(|(_, mut items)| {
            items.sort_unstable();
            items
        })
        .collect()
}

/// Puts each item, the longest first, where the fewest tokens are; `None` where that overfills a part.
fn spread(
    longest_first: &[usize],
    tokens: &[usize],
    count: usize,
    most_tokens: usize,
) -> Option<Vec<(usize, Vec<usize>)>> {
    let mut parts: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); count];
    for &item in longest_first {
        let emptiest = parts.iter_mut().min_by_key(|(filled, _)| *filled)?;
        emptiest.0 += tokens[item];
        emptiest.1.push(item);
        if emptiest.0 > most_tokens {
            return None;
        }
    }
    parts.retain(|(_, items)| !items.is_empty());
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_item_is_in_one_part_within_the_limit(
            tokens in prop::collection::vec(0usize..400, 0..60), most in 0usize..600,
        ) {
            let parts = micro_batches(&tokens, most);
            let mut all = parts.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..tokens.len()).collect::<Vec<_>>());
            let filled = |part: &Vec<usize>| part.iter().map(|&item| tokens[item]).sum::<usize>();
            for part in &parts {
                prop_assert!(part.len() == 1 || filled(part) <= most);
                prop_assert!(part.is_sorted() && !part.is_empty());
            }
            prop_assert!(parts.iter().map(filled).is_sorted_by(|a, b| a >= b));
        }

        #[test]
        fn parts_are_few_and_balanced(tokens in prop::collection::vec(1usize..100, 1..60)) {
            let most = 400;
            let parts = micro_batches(&tokens, most);
            let filled: Vec<usize> =
                parts.iter().map(|part| part.iter().map(|&item| tokens[item]).sum()).collect();
            // Items are at most a quarter of a part, which bounds the number of parts.
            let needed = tokens.iter().sum::<usize>().div_ceil(most);
            prop_assert!((needed..=needed * 4 / 3 + 1).contains(&parts.len()));
            // The smallest and the largest part differ by one item at most.
            let spread = filled.iter().max().zip(filled.iter().min()).map(|(a, b)| a - b);
            prop_assert!(spread.expect("there are parts") <= tokens.iter().copied().max().expect("items"));
        }
    }
}
