//! Coverage of the intervals, on simulated annotators.

use rand::RngExt;
use seeds::{Seeds, Stream};

use super::*;

const RUNS: u64 = 60;
const PAIRS: usize = 400;
/// Planted rates of wrong labels.
const RATES: [f64; 5] = [0.0, 0.1, 0.2, 0.3, 0.4];
/// The least share of runs whose interval contains the planted rate.
const COVERED: f64 = 0.9;

/// Returns the share of runs whose interval contains the planted rate, of those that give an estimate.
fn coverage(rate: f64, estimate: impl Fn(&mut Stream, &Seeds) -> Option<(f64, f64)>) -> f64 {
    let (mut covered, mut all) = (0.0, 0.0);
    for run in 0..RUNS {
        let seeds = Seeds::new(run);
        if let Some((low, high)) = estimate(&mut seeds.stream("simulation"), &seeds) {
            all += 1.0;
            covered += f64::from(u8::from(low <= rate && rate <= high));
        }
    }
    assert!(all > 0.0 || rate == 0.0, "no run gives an estimate at {rate}");
    if all == 0.0 { 1.0 } else { covered / all }
}

fn check(method: &str, estimate: impl Fn(f64, &mut Stream, &Seeds) -> Option<(f64, f64)>) {
    let found: Vec<f64> =
        RATES.iter().map(|&rate| coverage(rate, |stream, seeds| estimate(rate, stream, seeds))).collect();
    assert!(found.iter().all(|coverage| *coverage >= COVERED), "{method}: coverage {found:?} at {RATES:?}");
}

/// Returns whether each of `errors` annotators agrees with the first, whose error rate is `rate`.
fn votes(rate: f64, errors: &[f64], stream: &mut Stream) -> Votes {
    let first_errs = stream.random_bool(rate);
    errors.iter().map(|error| Some(stream.random_bool(*error) == first_errs)).collect()
}

fn simulated(rate: f64, errors: &[f64], stream: &mut Stream) -> OtherLabels {
    let names = errors.iter().map(ToString::to_string).collect();
    OtherLabels { names, votes: (0..PAIRS).map(|_| votes(rate, errors, stream)).collect() }
}

fn groups() -> Vec<u64> {
    (0..PAIRS as u64).collect()
}

#[test]
fn two_annotators_with_the_same_error_rate_are_covered() {
    check("two annotators", |rate, stream, _| {
        let estimate = two_annotators(&simulated(rate, &[rate], stream), &groups())?;
        Some((estimate.low, estimate.high))
    });
}

#[test]
fn three_annotators_with_different_error_rates_are_covered() {
    check("Dawid-Skene", |rate, stream, seeds| {
        let others = simulated(rate, &[0.15, 0.25], stream);
        let patterns = Patterns::new(&others.votes);
        Some(patterns.interval(&groups(), &patterns.accuracies(), seeds))
    });
}

#[test]
fn repeated_pairs_are_covered() {
    check("repeated pairs", |rate, stream, _| {
        let label = |prompt: u64, stream: &mut Stream| {
            let (chosen, rejected) = if stream.random_bool(rate) { (2, 1) } else { (1, 2) };
            PairKey { prompt, chosen, rejected }
        };
        // Some pairs occur three times.
        let keys = (0..300).flat_map(|prompt| [prompt; 3].into_iter().take(2 + usize::from(prompt % 4 == 0)));
        let keys: Vec<PairKey> = keys.map(|prompt| label(prompt, stream)).collect();
        let estimate = repeated_pairs(&keys)?;
        Some((estimate.low, estimate.high))
    });
}

#[test]
fn the_bound_of_features_is_covered() {
    check("features", |rate, stream, _| {
        // A good model: it is right on 90% of the true labels.
        let odds = |stream: &mut Stream| {
            let is_right = stream.random_bool(0.9) != stream.random_bool(rate);
            let size = stream.random_range(0.1..3.0);
            if is_right { size } else { -size }
        };
        let log_odds: Vec<f64> = (0..PAIRS).map(|_| odds(stream)).collect();
        let estimate = bound(NoiseMethod::Features, &log_odds, &groups())?;
        Some((estimate.low, estimate.high))
    });
}

#[test]
fn copies_give_no_estimate() {
    let keys: Vec<PairKey> =
        (0..100).flat_map(|prompt| [PairKey { prompt, chosen: 1, rejected: 2 }; 2]).collect();
    assert_eq!(repeated_pairs(&keys), None);
}

#[test]
fn dependent_pairs_widen_the_interval() {
    let mut stream = Seeds::new(1).stream("simulation");
    let others = simulated(0.2, &[0.2], &mut stream);
    let thrice = OtherLabels {
        names: others.names.clone(),
        votes: others.votes.iter().flat_map(|votes| [votes.clone(), votes.clone(), votes.clone()]).collect(),
    };
    let thrice_groups: Vec<u64> = groups().into_iter().flat_map(|group| [group; 3]).collect();
    let [once, thrice] = [two_annotators(&others, &groups()), two_annotators(&thrice, &thrice_groups)]
        .map(|found| found.expect("enough pairs"));
    assert!((once.low - thrice.low).abs() < 0.01 && (once.high - thrice.high).abs() < 0.01);
}
