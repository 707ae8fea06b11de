//! Comparison with scikit-learn and SciPy; `tests/fixtures/peers.py` makes the numbers.

use serde::Deserialize;

use crate::auc::{Scored, auc};
use crate::dawid_skene::Patterns;
use crate::logistic::{Rows, fit};

#[derive(Deserialize)]
struct Peers {
    area: Area,
    regression: Regression,
    annotators: Annotators,
    ranking: Ranking,
}

#[derive(Deserialize)]
struct Ranking {
    differences: Vec<Vec<f32>>,
    weights: Vec<f64>,
}

#[derive(Deserialize)]
struct Area {
    scores: Vec<f64>,
    groups: Vec<u64>,
    auc: f64,
    bootstrap_error: f64,
}

#[derive(Deserialize)]
struct Regression {
    penalty: f64,
    differences: Vec<Vec<f32>>,
    weights: Vec<f64>,
}

#[derive(Deserialize)]
struct Annotators {
    agrees: Vec<Vec<i64>>,
    accuracies: Vec<f64>,
}

fn peers() -> Peers {
    serde_json::from_str(include_str!("../tests/fixtures/peers.json")).expect("the fixture")
}

/// Returns differences of pairs, and LIBLINEAR's weights of a ranking support vector machine.
pub(crate) fn ranking() -> (Vec<Vec<f32>>, Vec<f64>) {
    let Ranking { differences, weights } = peers().ranking;
    (differences, weights)
}

/// For sums in another order.
const EXACT: f64 = 1e-9;
/// For iterations that end elsewhere within their tolerance, on differences in f32.
const CONVERGED: f64 = 1e-6;
/// A bootstrap of 4,000 resamples knows a standard error to about 1%; linearization adds a few percent.
const BOOTSTRAP: f64 = 0.08;

#[test]
fn areas_are_scikit_learns_and_errors_are_those_of_a_bootstrap() {
    let Area { scores, groups, auc: expected, bootstrap_error } = peers().area;
    let pairs: Vec<Scored> =
        scores.iter().zip(&groups).map(|(&score, &group)| Scored { score, group, fold: 0 }).collect();
    let found = auc(&pairs).expect("there are pairs");
    assert!((found.auc - expected).abs() < EXACT, "{found:?} against {expected}");
    let logit = |share: f64| (share / (1.0 - share)).ln();
    let error = (logit(found.high) - logit(found.low)) / (2.0 * 1.96) * found.auc * (1.0 - found.auc);
    assert!((error / bootstrap_error - 1.0).abs() < BOOTSTRAP, "{error} against {bootstrap_error}");
}

#[test]
fn weights_are_scikit_learns() {
    let Regression { penalty, differences, weights } = peers().regression;
    let mut rows = Rows::default();
    differences.iter().for_each(|row| rows.push((0..).zip(row.iter().copied())));
    let which: Vec<usize> = (0..differences.len()).collect();
    let found = fit(&rows, &which, weights.len(), |_| true, penalty);
    for (found, expected) in found.iter().zip(&weights) {
        assert!((found - expected).abs() < CONVERGED, "{found} against {expected}");
    }
    let some = fit(&rows, &which, weights.len(), |column| column == 4, penalty);
    assert!(some[4] > 0.0 && some.iter().enumerate().all(|(at, weight)| at == 4 || *weight == 0.0));
}

#[test]
fn accuracies_maximize_the_likelihood() {
    let Annotators { agrees, accuracies } = peers().annotators;
    let vote = |agrees: &i64| match agrees {
        -1 => None,
        agrees => Some(*agrees == 1),
    };
    let items: Vec<Vec<Option<bool>>> = agrees.iter().map(|row| row.iter().map(vote).collect()).collect();
    let found = Patterns::new(&items).accuracies();
    for (found, expected) in found.iter().zip(&accuracies) {
        assert!((found - expected).abs() < CONVERGED, "{found} against {expected}");
    }
}
