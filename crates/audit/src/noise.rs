//! The rate of wrong labels.

use std::collections::BTreeMap;

use pref_data::Format;
use seeds::Seeds;
use serde::Serialize;

use crate::dataset::Dataset;
use crate::dawid_skene::{Patterns, Votes, error};
use crate::duplicates::PairKey;
use crate::fault::{Fault, Hits};
use crate::interval::Share;
use crate::text;

/// Fewer pairs give no estimate.
const LEAST_PAIRS: usize = 20;

/// An estimate of the share of wrong labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NoiseEstimate {
    /// The method.
    pub method: NoiseMethod,
    /// The share of labels that are wrong.
    pub estimate: f64,
    /// The lower end of the 95% interval.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// The pairs that it is computed from.
    pub pairs: usize,
    /// What it assumes.
    pub assumes: &'static str,
}

/// A method of estimation, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseMethod {
    /// Three or more annotators, by Dawid and Skene's model.
    DawidSkene,
    /// Two annotators or orders.
    TwoAnnotators,
    /// Pairs that occur several times in the file.
    RepeatedPairs,
    /// Margins of pairs in a training run, before it trained on them.
    PairDeltas,
    /// Confident learning on the features of the shortcuts.
    Features,
}

impl NoiseMethod {
    /// Returns the method in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::DawidSkene => "three or more annotators (Dawid-Skene)",
            Self::TwoAnnotators => "two annotators",
            Self::RepeatedPairs => "repeated pairs",
            Self::PairDeltas => "margins in training",
            Self::Features => "features",
        }
    }

    /// Returns whether the data identify the rate; otherwise the interval only bounds it.
    pub fn identifies(self) -> bool {
        self < Self::PairDeltas
    }

    fn assumes(self) -> &'static str {
        match self {
            Self::DawidSkene => {
                "each annotator errs at one rate on all pairs, and errors are independent of each other"
            }
            Self::TwoAnnotators => {
                "both err at the same rate, and their errors are independent; if the second never errs, the rate is the \
                 disagreement"
            }
            Self::RepeatedPairs => {
                "repeated pairs were labeled anew, not copied, with independent errors, and are as hard as the others"
            }
            Self::PairDeltas => {
                "wrong labels do not depend on what the policy learnt from other pairs; the upper end is a bound, and the \
                 estimate is confident learning's"
            }
            Self::Features => {
                "wrong labels do not depend on the features; the upper end is a bound, and the estimate is confident \
                 learning's, which is too high where the features say little"
            }
        }
    }

    fn estimate(self, (estimate, low, high): (f64, f64, f64), pairs: usize) -> NoiseEstimate {
        NoiseEstimate { method: self, estimate, low, high, pairs, assumes: self.assumes() }
    }
}

/// Other annotators' labels of the audited pairs.
#[derive(Debug, Default)]
pub(crate) struct OtherLabels {
    /// Their names.
    pub(crate) names: Vec<String>,
    /// For each pair, whether each of them agrees with its label.
    votes: Vec<Votes>,
}

impl OtherLabels {
    /// Collects the labels of the file's other annotators and of other files.
    pub(crate) fn collect(data: &Dataset, keys: &[PairKey], others: &[Dataset]) -> Self {
        let mut all = Self { names: Vec::new(), votes: vec![Vec::new(); keys.len()] };
        // UltraFeedback's scores are aspects of one annotator's judgment.
        if data.format != Format::Ultrafeedback {
            for annotator in data.annotators.iter().filter(|name| **name != data.annotator) {
                all.add(annotator.clone(), data, annotator, keys);
            }
        }
        for other in others {
            let file = other.path.file_stem().unwrap_or_default().to_string_lossy();
            for annotator in &other.annotators {
                let name = if other.annotators.len() == 1 {
                    file.to_string()
                } else {
                    format!("{file}: {annotator}")
                };
                all.add(name, other, annotator, keys);
            }
        }
        all
    }

    fn add(&mut self, name: String, other: &Dataset, annotator: &str, keys: &[PairKey]) {
        let labels = PairKey::of_pairs(other, &other.pairs_of(annotator));
        let labels: BTreeMap<[u64; 3], bool> =
            labels.into_iter().map(|key| (key.unordered(), key.prefers_smaller())).collect();
        let votes: Vec<Option<bool>> = keys
            .iter()
            .map(|key| labels.get(&key.unordered()).map(|smaller| *smaller == key.prefers_smaller()))
            .collect();
        // An annotator of other pairs, or of the same texts twice, is no annotator of these.
        if votes.iter().any(Option::is_some) {
            self.names.push(name);
            self.votes.iter_mut().zip(votes).for_each(|(all, vote)| all.push(vote));
        }
    }
}

/// Estimates the rate by every method that the data allow, the strongest first.
pub(crate) fn estimate(
    data: &Dataset,
    keys: &[PairKey],
    groups: &[u64],
    (others, log_odds, margins): (&OtherLabels, &[f64], &[(usize, f64)]),
    hits: &mut Hits<'_>,
    seeds: &Seeds,
) -> Vec<NoiseEstimate> {
    let by_annotators = match others.names.len() {
        0 => None,
        // Votes of two only identify no rates of their own.
        _ if others.votes.iter().filter(|votes| votes.iter().flatten().count() > 1).count() < LEAST_PAIRS => {
            two_annotators(others, groups)
        }
        _ => Some(dawid_skene(data, others, groups, hits, seeds)),
    };
    let of_margins: Vec<u64> = margins.iter().map(|(pair, _)| groups[*pair]).collect();
    let margins: Vec<f64> = margins.iter().map(|(_, margin)| *margin).collect();
    let mut bounds: Vec<NoiseEstimate> = [
        bound(NoiseMethod::PairDeltas, &margins, &of_margins),
        bound(NoiseMethod::Features, log_odds, groups),
    ]
    .into_iter()
    .flatten()
    .collect();
    bounds.sort_by(|a, b| a.high.total_cmp(&b.high));
    by_annotators.into_iter().chain(repeated_pairs(keys)).chain(bounds).collect()
}

/// Two labels with the same error rate ε differ with probability d = 2ε(1 − ε).
fn two_annotators(others: &OtherLabels, groups: &[u64]) -> Option<NoiseEstimate> {
    let votes = others.votes.iter().zip(groups);
    let items: Vec<(u64, f64)> =
        votes.filter_map(|(votes, group)| Some((*group, one_if(!*votes.iter().flatten().next()?)))).collect();
    Some(NoiseMethod::TwoAnnotators.estimate(rate_of_disagreement(&items)?, items.len()))
}

/// Labels of one comparison that occurs several times in the file: the share of couples of labels that differ.
fn repeated_pairs(keys: &[PairKey]) -> Option<NoiseEstimate> {
    let mut labels: Vec<([u64; 3], bool)> = keys
        .iter()
        .filter(|key| key.chosen != key.rejected)
        .map(|key| (key.unordered(), key.prefers_smaller()))
        .collect();
    labels.sort_unstable();
    let repeated = labels.chunk_by(|a, b| a.0 == b.0).filter(|repeats| repeats.len() > 1);
    let share = |repeats: &[([u64; 3], bool)]| {
        let smaller = repeats.iter().filter(|(_, smaller)| *smaller).count();
        let couples = repeats.len() * (repeats.len() - 1) / 2;
        (smaller * (repeats.len() - smaller)) as f64 / couples as f64
    };
    let items: Vec<(u64, f64)> = (0..).zip(repeated.map(share)).collect();
    // Copies always agree. Without a single disagreement, they cannot be distinguished from labels given anew.
    if items.iter().all(|(_, share)| *share == 0.0) {
        return None;
    }
    Some(NoiseMethod::RepeatedPairs.estimate(rate_of_disagreement(&items)?, items.len()))
}

/// Returns the error rate at which two labels differ as often as these, with the ends of its interval.
fn rate_of_disagreement(items: &[(u64, f64)]) -> Option<(f64, f64, f64)> {
    if items.len() < LEAST_PAIRS {
        return None;
    }
    let rate = |disagreement: f64| 0.5 * (1.0 - (1.0 - 2.0 * disagreement).max(0.0).sqrt());
    let Share { value, interval } = Share::of(items);
    Some((rate(value), rate(interval.low), rate(interval.high)))
}

fn one_if(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn dawid_skene(
    data: &Dataset,
    others: &OtherLabels,
    groups: &[u64],
    hits: &mut Hits<'_>,
    seeds: &Seeds,
) -> NoiseEstimate {
    let voted: Vec<usize> =
        (0..others.votes.len()).filter(|&pair| others.votes[pair].iter().flatten().count() > 0).collect();
    let patterns = Patterns::new(&voted.iter().map(|&pair| others.votes[pair].clone()).collect::<Vec<_>>());
    let accuracies = patterns.accuracies();
    for (&pair, right) in voted.iter().zip(patterns.posteriors(&accuracies)) {
        if right < 0.5 {
            let chosen = || text::excerpt(&text::flat(data.chosen(pair)));
            hits.add(Fault::Outvoted, pair, || format!("right with probability {right:.2}: {}", chosen()));
        }
    }
    let groups: Vec<u64> = voted.iter().map(|&pair| groups[pair]).collect();
    let (low, high) = patterns.interval(&groups, &accuracies, seeds);
    NoiseMethod::DawidSkene.estimate((error(accuracies[0]), low, high), voted.len())
}

/// A model that is right on a share a of true labels is right on (1 − ε)a + ε(1 − a) ≤ 1 − ε of labels with an error rate
/// ε ≤ ½. So ε is at most its error on labels that it was not trained on. The estimate is that of confident learning
/// (Northcutt, Jiang and Chuang 2021): of the pairs with a confident prediction, the share that contradicts the label.
fn bound(method: NoiseMethod, log_odds: &[f64], groups: &[u64]) -> Option<NoiseEstimate> {
    if log_odds.len() < LEAST_PAIRS {
        return None;
    }
    // A tie is half right.
    let wrong = |odds: &f64| if *odds == 0.0 { 0.5 } else { one_if(*odds < 0.0) };
    let items: Vec<(u64, f64)> = groups.iter().copied().zip(log_odds.iter().map(wrong)).collect();
    let high = Share::of(&items).interval.high.min(0.5);
    let probabilities: Vec<f64> = log_odds.iter().map(|odds| 1.0 / (1.0 + (-odds).exp())).collect();
    let threshold = probabilities.iter().sum::<f64>() / probabilities.len() as f64;
    let confident = probabilities.iter().filter(|right| **right >= threshold).count();
    let contradicting = probabilities.iter().filter(|right| 1.0 - **right >= threshold).count();
    let estimate = contradicting as f64 / (confident + contradicting).max(1) as f64;
    Some(method.estimate((estimate.min(high), 0.0, high), items.len()))
}

#[cfg(test)]
mod tests;
