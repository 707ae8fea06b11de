//! One annotator's pairs, nested subsets of them, and nested label noise.

use std::collections::BTreeSet;
use std::fmt;

use rand::seq::SliceRandom;
use seeds::{Seeds, Stream};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::record::{Label, Pair, PreferenceRecord};
use crate::text::counted;

/// What [`annotator_view`] kept and what it left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReport {
    /// Records that were looked at.
    pub records: usize,
    /// Records without a label of this annotator.
    pub unlabelled: usize,
    /// Records that the annotator called a tie.
    pub ties: usize,
    /// Pairs that came out: one for each response that a label prefers another to.
    pub pairs: usize,
}

impl fmt::Display for ViewReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} from {} ({} without a label of this annotator, {})",
            counted(self.pairs, "pair"),
            counted(self.records, "record"),
            self.unlabelled,
            counted(self.ties, "tie")
        )
    }
}

/// The pairs that one annotator's labels make, in the records' order.
///
/// A record of more than two responses gives one pair for each response but the preferred one; their ids are the
/// record's with `#` and the rejected response's index. Ties and missing labels give no pair and are counted.
///
/// # Errors
///
/// [`DataError::UnknownAnnotator`] where no record carries a label of this annotator, [`DataError::Record`] where a
/// labelled record is at fault.
pub fn annotator_view(
    records: &[PreferenceRecord],
    annotator: &str,
) -> Result<(Vec<Pair>, ViewReport), DataError> {
    let mut report = ViewReport { records: records.len(), ..ViewReport::default() };
    let mut pairs = Vec::with_capacity(records.len());
    for record in records {
        match record.labels.get(annotator) {
            None => report.unlabelled += 1,
            Some(Label::Tie) => report.ties += 1,
            Some(&Label::Prefers(best)) => {
                record.check().map_err(|(field, problem)| DataError::Record {
                    id: record.id.clone(),
                    field,
                    problem,
                })?;
                pairs.extend(pairs_of(record, best));
            }
        }
    }
    if report.unlabelled == records.len() {
        let known: BTreeSet<&String> = records.iter().flat_map(|record| record.labels.keys()).collect();
        return Err(DataError::UnknownAnnotator {
            annotator: annotator.to_owned(),
            known: known.into_iter().cloned().collect(),
        });
    }
    report.pairs = pairs.len();
    Ok((pairs, report))
}

/// A share of the data, in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Fraction(f64);

/// The share of labels that noise swaps, in [0, 1]: 0 none, 1 all.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct FlipRate(f64);

impl Fraction {
    /// All of the data.
    pub const ALL: Self = Self(1.0);

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

    /// The share.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FlipRate {
    /// No noise.
    pub const NONE: Self = Self(0.0);

    /// # Errors
    ///
    /// [`DataError::OutOfRange`] outside [0, 1].
    pub fn new(value: f64) -> Result<Self, DataError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(DataError::OutOfRange { name: "flip_rate", value, range: "[0, 1]" })
        }
    }

    /// The share.
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

impl TryFrom<f64> for FlipRate {
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

impl From<FlipRate> for f64 {
    fn from(rate: FlipRate) -> Self {
        rate.0
    }
}

/// A random share of the pairs, in their order: `round(fraction * n)` of them, at least one.
///
/// Shares are nested: with the same seeds a smaller fraction takes a subset of what a larger one takes, so that a
/// study of volume compares data sets that grow. Draws from the stream `subset`.
pub fn subset(pairs: Vec<Pair>, fraction: Fraction, seeds: &Seeds) -> Vec<Pair> {
    let count = share(fraction.get(), pairs.len()).max(1);
    let taken = first_of_permutation(pairs.len(), count, seeds.stream("subset"));
    pairs.into_iter().zip(taken).filter_map(|(pair, taken)| taken.then_some(pair)).collect()
}

/// Swaps chosen and rejected in `round(rate * n)` random pairs and marks them `flipped`.
///
/// Noise is nested: with the same seeds and pairs, what a lower rate flips a higher rate flips too. Draws from the
/// stream `flip-noise`.
pub fn flip_labels(pairs: &mut [Pair], rate: FlipRate, seeds: &Seeds) {
    let count = share(rate.get(), pairs.len());
    let flips = first_of_permutation(pairs.len(), count, seeds.stream("flip-noise"));
    for (pair, flip) in pairs.iter_mut().zip(flips) {
        if flip {
            std::mem::swap(&mut pair.chosen, &mut pair.rejected);
            pair.flipped = !pair.flipped;
        }
    }
}

/// The order in which epoch `epoch` (from 0) visits `n` items: a permutation of `0..n`.
///
/// Each epoch has its own; all draw from the stream `data-order`.
pub fn shuffled_order(n: usize, seeds: &Seeds, epoch: u64) -> Vec<usize> {
    permutation(n, seeds.indexed("data-order", epoch))
}

fn pairs_of(record: &PreferenceRecord, best: usize) -> impl Iterator<Item = Pair> + '_ {
    let several = record.responses.len() > 2;
    record.responses.iter().enumerate().filter(move |&(index, _)| index != best).map(
        move |(index, rejected)| Pair {
            id: if several { format!("{}#{index}", record.id) } else { record.id.clone() },
            prompt: record.prompt.clone(),
            chosen: record.responses[best].clone(),
            rejected: rejected.clone(),
            domain: record.domain.clone(),
            flipped: false,
        },
    )
}

/// A share of `n` items, to the nearest whole number.
fn share(rate: f64, n: usize) -> usize {
    (rate * n as f64).round() as usize
}

/// Marks the first `count` of one permutation of `n` items: marks of a smaller count are among those of a larger.
fn first_of_permutation(n: usize, count: usize, stream: Stream) -> Vec<bool> {
    let mut marked = vec![false; n];
    for index in permutation(n, stream).into_iter().take(count) {
        marked[index] = true;
    }
    marked
}

fn permutation(n: usize, mut stream: Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut stream);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Text;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pair(index: usize) -> Pair {
        Pair {
            id: index.to_string(),
            prompt: Text::Plain("q".to_owned()),
            chosen: Text::Plain(format!("good {index}")),
            rejected: Text::Plain(format!("bad {index}")),
            domain: None,
            flipped: false,
        }
    }

    fn record(id: &str, responses: usize, labels: &[(&str, Label)]) -> PreferenceRecord {
        PreferenceRecord {
            id: id.to_owned(),
            prompt: Text::Plain("q".to_owned()),
            responses: (0..responses).map(|i| Text::Plain(format!("r{i}"))).collect(),
            labels: labels.iter().map(|&(name, label)| (name.to_owned(), label)).collect::<BTreeMap<_, _>>(),
            domain: None,
        }
    }

    fn ids(pairs: &[Pair]) -> Vec<usize> {
        pairs.iter().map(|pair| pair.id.parse().expect("ids are numbers here")).collect()
    }

    #[test]
    fn a_view_takes_one_annotators_labels() {
        let records = [
            record("a", 2, &[("human", Label::Prefers(1)), ("gpt-4", Label::Prefers(0))]),
            record("b", 2, &[("human", Label::Tie)]),
            record("c", 2, &[("gpt-4", Label::Prefers(0))]),
            record("d", 3, &[("human", Label::Prefers(1))]),
        ];
        let (pairs, report) = annotator_view(&records, "human").expect("human labelled some");
        let seen: Vec<_> = pairs.iter().map(|p| (p.id.as_str(), &p.chosen, &p.rejected)).collect();
        let r = |i: usize| Text::Plain(format!("r{i}"));
        assert_eq!(seen, [("a", &r(1), &r(0)), ("d#0", &r(1), &r(0)), ("d#2", &r(1), &r(2))]);
        let expected = ViewReport { records: 4, unlabelled: 1, ties: 1, pairs: 3 };
        assert_eq!(report, expected);
        assert_eq!(report.to_string(), "3 pairs from 4 records (1 without a label of this annotator, 1 tie)");
    }

    #[test]
    fn an_unknown_annotator_is_answered_with_the_known_ones() {
        let records = [record("a", 2, &[("human", Label::Tie), ("gpt-4", Label::Prefers(0))])];
        let nobody = annotator_view(&records[..0], "gold").expect_err("no records");
        assert!(nobody.to_string().ends_with("the annotators here are: none"), "{nobody}");
        let message = annotator_view(&records, "gold").expect_err("gold labelled none").to_string();
        assert_eq!(
            message,
            "no record carries a label of annotator `gold`; the annotators here are: gpt-4, human"
        );
    }

    #[test]
    fn shares_outside_their_range_are_refused_wherever_they_come_from() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Fraction::new(bad).is_err() && FlipRate::new(bad).is_err(), "{bad}");
        }
        assert!(Fraction::new(0.0).is_err() && FlipRate::new(0.0).is_ok());
        let message = serde_json::from_str::<FlipRate>("1.5").expect_err("1.5 is no share").to_string();
        assert_eq!(message, "flip_rate is 1.5; it must lie in [0, 1]");
        assert_eq!(serde_json::to_string(&Fraction::ALL).expect("a number"), "1.0");
    }

    #[test]
    fn rate_one_flips_all_and_twice_is_none() {
        let original: Vec<Pair> = (0..9).map(pair).collect();
        let mut pairs = original.clone();
        flip_labels(&mut pairs, FlipRate::NONE, &Seeds::new(1));
        assert_eq!(pairs, original);
        let all = FlipRate::new(1.0).expect("in range");
        flip_labels(&mut pairs, all, &Seeds::new(1));
        assert!(pairs.iter().zip(&original).all(|(a, b)| a.flipped && a.chosen == b.rejected));
        flip_labels(&mut pairs, all, &Seeds::new(2));
        assert_eq!(pairs, original);
    }

    #[test]
    fn orders_are_frozen() {
        // Recorded results depend on these permutations: a change here silently changes every study.
        let seeds = Seeds::new(0);
        assert_eq!([0, 1].map(|epoch| shuffled_order(8, &seeds, epoch)), ORDERS);
    }

    const ORDERS: [[usize; 8]; 2] = [[5, 2, 1, 7, 6, 3, 0, 4], [6, 4, 5, 0, 3, 2, 1, 7]];

    proptest! {
        #[test]
        fn subsets_nest_and_keep_their_order(n in 1usize..80, seed: u64, a in 0.01f64..1.0, b in 0.01f64..1.0) {
            let (low, high) = (a.min(b), a.max(b));
            let take = |f| {
                let fraction = Fraction::new(f).expect("in range");
                ids(&subset((0..n).map(pair).collect(), fraction, &Seeds::new(seed)))
            };
            let (small, large) = (take(low), take(high));
            prop_assert!(small.iter().all(|id| large.contains(id)));
            prop_assert!(large.is_sorted());
            prop_assert_eq!(large.len(), ((high * n as f64).round() as usize).max(1));
            prop_assert_eq!(take(1.0).len(), n);
        }

        #[test]
        fn flips_nest_and_are_as_many_as_asked(n in 0usize..80, seed: u64, a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let (low, high) = (a.min(b), a.max(b));
            let mask = |rate| {
                let mut pairs: Vec<Pair> = (0..n).map(pair).collect();
                flip_labels(&mut pairs, FlipRate::new(rate).expect("in range"), &Seeds::new(seed));
                for (index, p) in pairs.iter().enumerate() {
                    let swapped = p.chosen == Text::Plain(format!("bad {index}"));
                    assert_eq!(swapped, p.flipped);
                }
                pairs.iter().map(|p| p.flipped).collect::<Vec<_>>()
            };
            let (few, many) = (mask(low), mask(high));
            prop_assert!(few.iter().zip(&many).all(|(&f, &m)| !f || m));
            prop_assert_eq!(many.iter().filter(|&&m| m).count(), (high * n as f64).round() as usize);
        }

        #[test]
        fn orders_are_permutations_and_differ_by_epoch(n in 20usize..100, seed: u64) {
            let seeds = Seeds::new(seed);
            let first = shuffled_order(n, &seeds, 0);
            let mut sorted = first.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            prop_assert_ne!(first, shuffled_order(n, &seeds, 1));
        }
    }
}
