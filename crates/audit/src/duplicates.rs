//! Pairs that repeat or contradict each other, and cycles of preferences.

use std::collections::BTreeMap;

use pref_data::{PreferenceRecord, Text};
use rayon::prelude::*;

use crate::dataset::{Dataset, LabeledPair};
use crate::fault::{Fault, Hits};
use crate::{near, text};

/// The identity of a pair's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairKey {
    pub(crate) prompt: u64,
    pub(crate) chosen: u64,
    pub(crate) rejected: u64,
}

impl PairKey {
    pub(crate) fn of_all(data: &Dataset) -> Vec<Self> {
        Self::of_pairs(data, &data.pairs)
    }

    pub(crate) fn of_pairs(data: &Dataset, pairs: &[LabeledPair]) -> Vec<Self> {
        pairs.par_iter().map(|pair| Self::of(&data.records[pair.record], pair)).collect()
    }

    fn of(record: &PreferenceRecord, pair: &LabeledPair) -> Self {
        let context = &record.context;
        let mut prompt = text::key(&record.prompt);
        if !context.is_empty() {
            let context = serde_json::to_string(context).unwrap_or_default();
            prompt = text::joint_key(&[prompt, text::key(&Text::Plain(context))]);
        }
        let [chosen, rejected] = [pair.chosen, pair.rejected].map(|at| text::key(&record.responses[at]));
        Self { prompt, chosen, rejected }
    }

    /// Returns the key of the prompt with both responses in any order.
    pub(crate) fn unordered(self) -> [u64; 3] {
        [self.prompt, self.chosen.min(self.rejected), self.chosen.max(self.rejected)]
    }

    /// Whether the label prefers the response with the smaller key.
    pub(crate) fn prefers_smaller(self) -> bool {
        self.chosen < self.rejected
    }
}

/// Counts of repetitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repetitions {
    /// Different prompts.
    pub(crate) prompts: usize,
    /// Prompts that are near-duplicates of an earlier one.
    pub(crate) near: usize,
    /// Comparisons with labels in both directions.
    pub(crate) contradictions: usize,
    /// Prompts with a cycle of preferences.
    pub(crate) cycles: usize,
    /// The group of near-duplicate prompts of each pair.
    pub(crate) groups: Vec<u64>,
    /// For contradicted comparisons the label of the majority, by pair: whether it is the pair's own.
    pub(crate) majority: BTreeMap<usize, bool>,
}

/// Finds duplicates, contradictions and cycles.
pub(crate) fn find(data: &Dataset, keys: &[PairKey], hits: &mut Hits<'_>) -> Repetitions {
    let mut found = Repetitions::default();
    repeated_pairs(data, keys, hits, &mut found);
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&pair| (keys[pair].prompt, pair));
    let prompts: Vec<&[usize]> = order.chunk_by(|a, b| keys[*a].prompt == keys[*b].prompt).collect();
    found.prompts = prompts.len();
    for pairs in &prompts {
        let cycle = cycle_edges(pairs, keys);
        found.cycles += usize::from(!cycle.is_empty());
        for &pair in &cycle {
            hits.add(Fault::Cycle, pair, || text::excerpt(&text::flat(data.prompt(pair))));
        }
    }
    // The order of the file decides which prompt of a group is the first.
    let mut prompts = prompts;
    prompts.sort_by_key(|pairs| pairs[0]);
    let groups = near::groups(&|at| text::flat(data.prompt(prompts[at][0])), prompts.len());
    found.groups = vec![0; keys.len()];
    for (at, pairs) in prompts.iter().enumerate() {
        let first = prompts[groups[at]][0];
        found.near += usize::from(groups[at] != at);
        for &pair in *pairs {
            found.groups[pair] = first as u64;
            if groups[at] != at {
                let request = || text::excerpt(&text::last_request(data.prompt(pair)));
                hits.add(Fault::NearDuplicate, pair, || format!("as {}: {}", data.place(first), request()));
            }
        }
    }
    found
}

fn repeated_pairs(data: &Dataset, keys: &[PairKey], hits: &mut Hits<'_>, found: &mut Repetitions) {
    let mut order: Vec<usize> =
        (0..keys.len()).filter(|&pair| keys[pair].chosen != keys[pair].rejected).collect();
    order.sort_by_key(|&pair| (keys[pair].unordered(), pair));
    let mut repeats: Vec<&[usize]> = order
        .chunk_by(|a, b| keys[*a].unordered() == keys[*b].unordered())
        .filter(|pairs| pairs.len() > 1)
        .collect();
    repeats.sort_by_key(|pairs| pairs[0]);
    for pairs in repeats {
        let first_with =
            |smaller: bool| pairs.iter().copied().find(|&pair| keys[pair].prefers_smaller() == smaller);
        let smaller = pairs.iter().filter(|&&pair| keys[pair].prefers_smaller()).count();
        let larger = pairs.len() - smaller;
        found.contradictions += usize::from(smaller > 0 && larger > 0);
        for &pair in pairs {
            let own = keys[pair].prefers_smaller();
            if let Some(first) = first_with(own).filter(|first| *first != pair) {
                hits.add(Fault::Duplicate, pair, || format!("same as {}", data.place(first)));
            }
            if let Some(other) = first_with(!own) {
                hits.add(Fault::Contradiction, pair, || format!("opposite of {}", data.place(other)));
                if smaller != larger {
                    found.majority.insert(pair, own == (smaller > larger));
                }
            }
        }
    }
}

/// Returns the pairs of one prompt that are in cycles. Votes on the same two responses count as one edge, from the winner.
fn cycle_edges(pairs: &[usize], keys: &[PairKey]) -> Vec<usize> {
    if pairs.len() < 3 {
        return Vec::new();
    }
    let mut votes: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    for &pair in pairs {
        let [_, low, high] = keys[pair].unordered();
        *votes.entry((low, high)).or_default() += if keys[pair].prefers_smaller() { 1 } else { -1 };
    }
    let mut edges: Vec<(u64, u64)> = votes
        .into_iter()
        .filter(|((low, high), net)| *net != 0 && low != high)
        .map(|((low, high), net)| if net > 0 { (low, high) } else { (high, low) })
        .collect();
    // Edges from a response that nothing beats, or to one that beats nothing, are in no cycle.
    loop {
        let before = edges.len();
        let kept = |&(winner, loser): &(u64, u64)| {
            edges.iter().any(|edge| edge.1 == winner) && edges.iter().any(|edge| edge.0 == loser)
        };
        edges = edges.iter().copied().filter(kept).collect();
        if edges.len() == before {
            break;
        }
    }
    let is_edge = |pair: &usize| edges.contains(&(keys[*pair].chosen, keys[*pair].rejected));
    pairs.iter().copied().filter(is_edge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycle(edges: &[(u64, u64)]) -> Vec<usize> {
        let keys: Vec<PairKey> =
            edges.iter().map(|&(chosen, rejected)| PairKey { prompt: 0, chosen, rejected }).collect();
        cycle_edges(&(0..keys.len()).collect::<Vec<_>>(), &keys)
    }

    #[test]
    fn only_edges_of_cycles_are_found() {
        assert_eq!(cycle(&[(1, 2), (2, 3), (3, 1)]), [0, 1, 2]);
        assert_eq!(cycle(&[(1, 2), (2, 3), (1, 3)]), [0_usize; 0]);
        assert_eq!(
            cycle(&[(9, 1), (1, 2), (2, 3), (3, 1), (3, 8)]),
            [1, 2, 3],
            "edges into and out of it are not"
        );
        assert_eq!(cycle(&[(1, 2), (2, 1), (2, 3)]), [0_usize; 0], "a contradiction is no cycle");
        assert_eq!(
            cycle(&[(1, 2), (2, 3), (3, 1), (1, 3), (1, 3)]),
            [0_usize; 0],
            "the majority ranks 1 over 3"
        );
    }
}
