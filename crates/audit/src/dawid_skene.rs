//! Error rates of annotators by Dawid and Skene's model (*Applied Statistics* 28, 1979).
//!
//! The two responses of a pair have no order of their own, so the classes have the prior ½ and each annotator one error
//! rate. An item is described by the votes of the other annotators relative to the first one's label.

use std::collections::BTreeMap;

use rand::RngExt;
use rayon::prelude::*;
use seeds::Seeds;

const MOST_ROUNDS: usize = 2000;
const TOLERANCE: f64 = 1e-9;
const RESAMPLES: u64 = 300;
/// An accuracy of 1 has infinite odds.
const MOST_ACCURATE: f64 = 1.0 - 1e-9;
/// EM approaches an error rate of 0 slowly; smaller rates are 0.
const LEAST_ERROR: f64 = 1e-3;

/// Votes of the other annotators on one item: whether each agrees with the first one, or `None`.
pub(crate) type Votes = Vec<Option<bool>>;

/// Items with equal votes, counted.
#[derive(Debug)]
pub(crate) struct Patterns {
    votes: Vec<Votes>,
    counts: Vec<f64>,
    /// The pattern of each item.
    of_items: Vec<usize>,
}

impl Patterns {
    pub(crate) fn new(items: &[Votes]) -> Self {
        let mut distinct: BTreeMap<&Votes, usize> = BTreeMap::new();
        items.iter().for_each(|votes| {
            let next = distinct.len();
            distinct.entry(votes).or_insert(next);
        });
        let of_items: Vec<usize> = items.iter().map(|votes| distinct[votes]).collect();
        let mut votes = vec![Vec::new(); distinct.len()];
        distinct.into_iter().for_each(|(pattern, at)| votes[at].clone_from(pattern));
        let counts = counts(&of_items, votes.len());
        Self { votes, counts, of_items }
    }

    /// Returns the accuracy of each annotator, the first one at index 0, by expectation maximization.
    pub(crate) fn accuracies(&self) -> Vec<f64> {
        let annotators = 1 + self.votes.first().map_or(0, Vec::len);
        maximize(&self.votes, &self.counts, vec![0.75; annotators])
    }

    /// Returns the probability that the first annotator's label of each item is right.
    pub(crate) fn posteriors(&self, accuracies: &[f64]) -> Vec<f64> {
        let of_patterns: Vec<f64> = self.votes.iter().map(|votes| posterior(votes, accuracies)).collect();
        self.of_items.iter().map(|&pattern| of_patterns[pattern]).collect()
    }

    /// Returns the 95% percentile interval of the first annotator's error rate over resamples of groups of items.
    pub(crate) fn interval(&self, groups: &[u64], accuracies: &[f64], seeds: &Seeds) -> (f64, f64) {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|&item| groups[item]);
        let groups: Vec<&[usize]> = order.chunk_by(|a, b| groups[*a] == groups[*b]).collect();
        let resampled = |resample: u64| {
            let mut stream = seeds.indexed("dawid-skene", resample);
            let drawn = (0..groups.len()).flat_map(|_| groups[stream.random_range(0..groups.len())]);
            let patterns: Vec<usize> = drawn.map(|&item| self.of_items[item]).collect();
            let counts = counts(&patterns, self.votes.len());
            error(maximize(&self.votes, &counts, accuracies.to_vec())[0])
        };
        let mut errors: Vec<f64> = (0..RESAMPLES).into_par_iter().map(resampled).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors[(share * (RESAMPLES - 1) as f64).round() as usize];
        (at(0.025), at(0.975))
    }
}

/// Returns the error rate of an accuracy.
pub(crate) fn error(accuracy: f64) -> f64 {
    let error = 1.0 - accuracy;
    if error < LEAST_ERROR { 0.0 } else { error }
}

fn counts(patterns: &[usize], distinct: usize) -> Vec<f64> {
    let mut counts = vec![0.0; distinct];
    patterns.iter().for_each(|&pattern| counts[pattern] += 1.0);
    counts
}

fn posterior(votes: &[Option<bool>], accuracies: &[f64]) -> f64 {
    let log_odds = |accuracy: f64| (accuracy / (1.0 - accuracy)).ln();
    let others = votes.iter().zip(&accuracies[1..]).filter_map(|(vote, accuracy)| {
        vote.map(|agrees| if agrees { log_odds(*accuracy) } else { -log_odds(*accuracy) })
    });
    let total = log_odds(accuracies[0]) + others.sum::<f64>();
    1.0 / (1.0 + (-total).exp())
}

fn maximize(votes: &[Votes], counts: &[f64], mut accuracies: Vec<f64>) -> Vec<f64> {
    for _ in 0..MOST_ROUNDS {
        let (mut right, mut all) = (vec![0.0; accuracies.len()], vec![0.0; accuracies.len()]);
        for (votes, count) in votes.iter().zip(counts) {
            let is_right = posterior(votes, &accuracies);
            let own = std::iter::once(Some(true)).chain(votes.iter().copied());
            for (annotator, vote) in own.enumerate() {
                if let Some(agrees) = vote {
                    all[annotator] += count;
                    right[annotator] += count * if agrees { is_right } else { 1.0 - is_right };
                }
            }
        }
        let mut largest = 0.0_f64;
        for (annotator, accuracy) in
            accuracies.iter_mut().enumerate().filter(|(annotator, _)| all[*annotator] > 0.0)
        {
            let updated = (right[annotator] / all[annotator]).clamp(1.0 - MOST_ACCURATE, MOST_ACCURATE);
            largest = largest.max((updated - *accuracy).abs());
            *accuracy = updated;
        }
        if largest < TOLERANCE {
            break;
        }
    }
    accuracies
}
