//! Nested subsets of pairs.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use seeds::Seeds;
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::order::{marked, permutation, share};
use crate::record::{Pair, Text, UnpairedRecord};

/// A share of the data, in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Fraction(f64);

impl Fraction {
    /// All of the data.
    pub const ALL: Self = Self(1.0);

    /// Creates a share.
    ///
    /// # Errors
    ///
    /// [`DataError::OutOfRange`] outside (0, 1].
    pub fn new(value: f64) -> Result<Self, DataError> {
        if value > 0.0 && value <= 1.0 {
            Ok(Self(value))
        } else {
            Err(DataError::OutOfRange { name: "fraction", value, range: "(0, 1]" })
        }
    }

    /// Returns the share.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Fraction {
    type Error = DataError;

    fn try_from(value: f64) -> Result<Self, DataError> {
        Self::new(value)
    }
}

impl From<Fraction> for f64 {
    fn from(fraction: Fraction) -> Self {
        fraction.0
    }
}

/// How a share of the pairs is selected. A smaller share is always part of a larger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Random pairs: `round(fraction * n)`, at least one. Draws from the stream `subset`.
    #[default]
    Random,
    /// As many random pairs, with the same share of each domain to within one pair. Pairs without a domain count as one
    /// domain. Draws from a stream `subset` for each domain.
    Stratified,
    /// The first `floor(fraction * n)`, at least one, as in the alignment-handbook of early 2024. Not a random sample if
    /// the file is ordered.
    FirstRows,
}

/// Returns a share of the pairs, in their order.
pub fn select(pairs: Vec<Pair>, fraction: Fraction, selection: Selection, seeds: &Seeds) -> Vec<Pair> {
    let domains: Vec<Option<&str>> = pairs.iter().map(|pair| pair.domain.as_deref()).collect();
    let taken = taken(&domains, fraction, selection, seeds);
    pairs.into_iter().zip(taken).filter_map(|(pair, taken)| taken.then_some(pair)).collect()
}

/// Splits records into those for training and held-out ones, both in their order.
///
/// Whole prompts are held out, at random, until there are `held_out` records or more: a prompt of which other responses are
/// trained on is not held out. Draws from the stream `held-out`.
pub fn hold_out<T>(
    records: Vec<T>,
    prompt: impl Fn(&T) -> &Text,
    held_out: NonZeroUsize,
    seeds: &Seeds,
) -> (Vec<T>, Vec<T>) {
    let mut prompts: BTreeMap<String, usize> = BTreeMap::new();
    let mut sizes: Vec<usize> = Vec::new();
    let mut prompt_of = Vec::with_capacity(records.len());
    for record in &records {
        let prompt = *prompts.entry(format!("{:?}", prompt(record))).or_insert_with(|| {
            sizes.push(0);
            sizes.len() - 1
        });
        sizes[prompt] += 1;
        prompt_of.push(prompt);
    }
    let mut is_held_out = vec![false; sizes.len()];
    let mut count = 0;
    for prompt in permutation(sizes.len(), seeds.stream("held-out")) {
        if count >= held_out.get() {
            break;
        }
        is_held_out[prompt] = true;
        count += sizes[prompt];
    }
    let (mut training, mut others) = (Vec::new(), Vec::new());
    for (record, prompt) in records.into_iter().zip(prompt_of) {
        if is_held_out[prompt] { others.push(record) } else { training.push(record) }
    }
    (training, others)
}

/// Returns `count` random examples, or all if there are fewer, in their order. A smaller count is part of a larger one.
/// Draws from the stream `drawn`.
pub fn draw<T>(examples: Vec<T>, count: usize, seeds: &Seeds) -> Vec<T> {
    let taken = marked(&permutation(examples.len(), seeds.stream("drawn")), count);
    examples.into_iter().zip(taken).filter_map(|(example, taken)| taken.then_some(example)).collect()
}

/// Returns a share of unpaired preferences, in their order.
pub fn select_unpaired(
    records: Vec<UnpairedRecord>,
    fraction: Fraction,
    selection: Selection,
    seeds: &Seeds,
) -> Vec<UnpairedRecord> {
    let domains: Vec<Option<&str>> = records.iter().map(|record| record.domain.as_deref()).collect();
    let taken = taken(&domains, fraction, selection, seeds);
    records.into_iter().zip(taken).filter_map(|(record, taken)| taken.then_some(record)).collect()
}

/// Returns for each example, given by its domain, whether it is selected.
fn taken(domains: &[Option<&str>], fraction: Fraction, selection: Selection, seeds: &Seeds) -> Vec<bool> {
    let n = domains.len();
    let count = share(fraction.get(), n).max(1);
    match selection {
        Selection::Random => marked(&permutation(n, seeds.stream("subset")), count),
        Selection::Stratified => marked(&stratified_order(domains, seeds), count),
        Selection::FirstRows => {
            let first = (fraction.get() * n as f64).floor() as usize;
            (0..n).map(|index| index < first.max(1)).collect()
        }
    }
}

/// Returns a random share of the pairs, in their order: [`Selection::Random`].
pub fn subset(pairs: Vec<Pair>, fraction: Fraction, seeds: &Seeds) -> Vec<Pair> {
    select(pairs, fraction, Selection::Random, seeds)
}

/// Returns an order in which every prefix has each domain's share: the `k`-th of a domain's `m` pairs has the rank
/// `(k + 1/2) / m`.
fn stratified_order(domains: &[Option<&str>], seeds: &Seeds) -> Vec<usize> {
    let mut by_domain: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (index, &domain) in domains.iter().enumerate() {
        by_domain.entry(domain).or_default().push(index);
    }
    let mut placed = Vec::with_capacity(domains.len());
    for (domain, members) in &by_domain {
        let stream = match domain {
            Some(domain) => seeds.child("subset").stream(domain),
            None => seeds.stream("subset"),
        };
        for (rank, member) in permutation(members.len(), stream).into_iter().enumerate() {
            placed.push(((rank as f64 + 0.5) / members.len() as f64, members[member]));
        }
    }
    placed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    placed.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests;
