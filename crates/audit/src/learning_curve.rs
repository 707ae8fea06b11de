//! Whether more pairs would help: the accuracy of a cheap proxy, trained on parts of the file.

use rayon::prelude::*;
use seeds::Seeds;
use serde::Serialize;

use crate::dataset::Dataset;
use crate::folds::{FOLDS, folds, in_random_order};
use crate::interval::Share;
use crate::logistic::{Rows, score};
use crate::ranking::{COLUMNS, difference, fit};

/// Halvings of the training set.
const HALVINGS: u32 = 4;
/// Fewer training pairs teach the proxy nothing.
const LEAST_PAIRS: usize = 40;
/// More pairs are sampled: the curve is then that of a part of the file.
const MOST_PAIRS: usize = 100_000;
/// From here on one fold is tested, which has thousands of pairs.
const MANY_PAIRS: usize = 20_000;
const Z: f64 = 1.959_963_984_540_054;

/// The accuracy of a linear ranking model of words by the number of its training pairs, on pairs of other prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LearningCurve {
    /// The accuracy by training pairs, the fewest first.
    pub points: Vec<CurvePoint>,
    /// What the last doubling of the training pairs changed.
    pub last_doubling: Gain,
}

/// A point of a learning curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Training pairs.
    pub pairs: usize,
    /// The share of held-out pairs whose chosen response it ranks higher.
    pub accuracy: f64,
    /// The lower end of the 95% interval.
    pub low: f64,
    /// The upper end of the 95% interval.
    pub high: f64,
}

/// A difference of two accuracies on the same pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// The difference.
    pub gain: f64,
    /// The lower end of the 95% interval.
    pub low: f64,
    /// The upper end of the 95% interval.
    pub high: f64,
}

impl LearningCurve {
    /// Measures the curve over the pairs `usable`; `None` for too few pairs or prompts. `groups` gives the group of every
    /// pair of the file: a group is never split between training and test.
    pub(crate) fn of(data: &Dataset, groups: &[u64], usable: &[usize], seeds: &Seeds) -> Option<Self> {
        let seeds = seeds.child("learning-curve");
        let usable = sample(groups, usable, &seeds);
        let groups: Vec<u64> = usable.iter().map(|&pair| groups[pair]).collect();
        let folds = folds(&groups, &seeds)?;
        let differences: Vec<Vec<(u16, f32)>> = usable
            .par_iter()
            .map(|&pair| {
                let [chosen, rejected] = data.responses(pair);
                difference([&chosen, &rejected])
            })
            .collect();
        let mut rows = Rows::default();
        differences.into_iter().for_each(|row| rows.push(row));
        let tested = if usable.len() > MANY_PAIRS { 1 } else { FOLDS };
        let measured: Vec<Fold> = (0..tested)
            .into_par_iter()
            .map(|fold| Fold::measure(fold, (&groups, &folds), &rows, &seeds))
            .collect::<Option<_>>()?;
        Some(Self::from_folds(&measured))
    }

    fn from_folds(folds: &[Fold]) -> Self {
        let items = |volume: usize| -> Vec<(u64, f64)> {
            folds
                .iter()
                .flat_map(|fold| fold.groups.iter().copied().zip(fold.correct[volume].iter().copied()))
                .collect()
        };
        let volumes = folds[0].pairs.len();
        let point = |volume: usize| {
            let Share { value, interval } = Share::of(&items(volume));
            let pairs = folds.iter().map(|fold| fold.pairs[volume]).sum::<usize>() / folds.len();
            CurvePoint { pairs, accuracy: value, low: interval.low, high: interval.high }
        };
        let (half, all) = (items(volumes - 2), items(volumes - 1));
        let changed = all.iter().zip(&half).map(|((group, after), (_, before))| (*group, after - before));
        Self { points: (0..volumes).map(point).collect(), last_doubling: Gain::of(changed.collect()) }
    }

    /// Returns the last point.
    pub fn last(&self) -> CurvePoint {
        self.points[self.points.len() - 1]
    }

    /// Returns whether the proxy has learnt anything that holds for other prompts.
    pub fn has_learnt(&self) -> bool {
        self.last().low > 0.5
    }
}

impl Gain {
    /// Returns the mean of `(group, change)` with a normal interval whose variance is that between groups.
    fn of(mut changes: Vec<(u64, f64)>) -> Self {
        let n = changes.len() as f64;
        let gain = changes.iter().map(|(_, change)| change).sum::<f64>() / n;
        changes.sort_by_key(|(group, _)| *group);
        let residuals = changes.chunk_by(|a, b| a.0 == b.0);
        let (mut squares, mut groups) = (0.0, 0.0);
        for group in residuals {
            squares += group.iter().map(|(_, change)| change - gain).sum::<f64>().powi(2);
            groups += 1.0;
        }
        let half = Z * (squares * groups / (groups - 1.0)).sqrt() / n;
        Self { gain, low: gain - half, high: gain + half }
    }
}

/// Returns the pairs of a random part of the groups, at most [`MOST_PAIRS`] and a group.
fn sample(groups: &[u64], usable: &[usize], seeds: &Seeds) -> Vec<usize> {
    if usable.len() <= MOST_PAIRS {
        return usable.to_vec();
    }
    let of_usable: Vec<u64> = usable.iter().map(|&pair| groups[pair]).collect();
    let mut kept = by_group(usable, groups, &in_random_order(&of_usable, &mut seeds.stream("sample")));
    kept.truncate(MOST_PAIRS);
    kept
}

/// Returns `pairs` in the order of their groups.
fn by_group(pairs: &[usize], groups: &[u64], order: &[u64]) -> Vec<usize> {
    let mut rank: Vec<(u64, usize)> = order.iter().copied().zip(0..).collect();
    rank.sort_unstable();
    let place = |pair: &usize| {
        rank.binary_search_by_key(&groups[*pair], |(group, _)| *group).map_or(usize::MAX, |at| rank[at].1)
    };
    let mut sorted = pairs.to_vec();
    sorted.sort_by_cached_key(place);
    sorted
}

/// The test pairs of a fold, and whether each model ranks them as labeled.
struct Fold {
    /// The group of each test pair.
    groups: Vec<u64>,
    /// Training pairs of each model.
    pairs: Vec<usize>,
    /// For each model and test pair 1, 0, or ½ for a tie.
    correct: Vec<Vec<f64>>,
}

impl Fold {
    /// Trains on nested parts of the other folds; `None` if fewer than two parts are large enough.
    fn measure(fold: usize, (groups, folds): (&[u64], &[usize]), rows: &Rows, seeds: &Seeds) -> Option<Self> {
        let (test, train): (Vec<usize>, Vec<usize>) =
            (0..groups.len()).partition(|&pair| folds[pair] == fold);
        let in_train: Vec<u64> = train.iter().map(|&pair| groups[pair]).collect();
        let mut stream = seeds.indexed("order", fold as u64);
        let train = by_group(&train, groups, &in_random_order(&in_train, &mut stream));
        let mut measured = Self {
            groups: test.iter().map(|&pair| groups[pair]).collect(),
            pairs: Vec::new(),
            correct: Vec::new(),
        };
        for halvings in (0..=HALVINGS).rev() {
            let pairs = train.len() >> halvings;
            if pairs < LEAST_PAIRS {
                continue;
            }
            let weights = fit(rows, &train[..pairs], COLUMNS, &mut stream);
            let correct = |&pair: &usize| match score(rows.row(pair), &weights) {
                0.0 => 0.5,
                score => f64::from(u8::from(score > 0.0)),
            };
            measured.pairs.push(pairs);
            measured.correct.push(test.iter().map(correct).collect());
        }
        (measured.pairs.len() >= 2).then_some(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_is_the_mean_change_with_an_error_between_groups() {
        let once: Vec<(u64, f64)> =
            (0..100).map(|group| (group, if group % 4 == 0 { 1.0 } else { 0.0 })).collect();
        let Gain { gain, low, high } = Gain::of(once.clone());
        let half = Z * (0.25_f64 * 0.75 / 99.0).sqrt();
        assert!((gain - 0.25).abs() < 1e-12 && (high - 0.25 - half).abs() < 1e-12, "{low} to {high}");
        let thrice: Vec<(u64, f64)> = once.iter().flat_map(|item| [*item; 3]).collect();
        assert!((Gain::of(thrice).high - high).abs() < 1e-12, "copies do not narrow it");
    }

    #[test]
    fn a_large_file_is_sampled_by_groups() {
        let groups: Vec<u64> = (0..MOST_PAIRS as u64 + 1000).map(|pair| pair / 3).collect();
        let all: Vec<usize> = (0..groups.len()).collect();
        let kept = sample(&groups, &all, &Seeds::new(0));
        assert_eq!(kept.len(), MOST_PAIRS);
        // Pairs of a group stay together.
        let changes = kept.windows(2).filter(|two| groups[two[0]] != groups[two[1]]).count();
        assert!(changes <= MOST_PAIRS / 3 + 1, "{changes}");
        assert_ne!(kept[..10], all[..10]);
    }
}
