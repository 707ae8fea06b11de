//! How well features that are not content predict the labels.

use rayon::prelude::*;
use seeds::Seeds;
use serde::Serialize;

use crate::auc::{Auc, Scored, auc};
use crate::dataset::Dataset;
use crate::features::{Feature, Features, measure};
use crate::folds::{FOLDS, folds};
use crate::logistic::{PENALTY, fit, score};

/// The predictive power of one feature, or of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shortcut {
    /// The feature; `all` for all but the position.
    pub feature: &'static str,
    /// The area under the ROC curve of pairs that the model was not trained on.
    #[serde(flatten)]
    pub auc: Auc,
    /// Whether the file's layout decides it, so that it says nothing about the labels.
    pub is_layout: bool,
}

/// Shortcuts, and the scores of the joint model.
pub(crate) struct Found {
    pub(crate) shortcuts: Vec<Shortcut>,
    /// The cross-validated log-odds of each label by all features but the position; empty without shortcuts.
    pub(crate) log_odds: Vec<f64>,
}

/// Computes the cross-validated area under the ROC curve of each feature and of all features but the position. `groups`
/// gives the group of each pair: a group is never split between training and test.
pub(crate) fn find(data: &Dataset, groups: &[u64], seeds: &Seeds) -> Found {
    let folds = folds(groups, seeds);
    let Some(folds) = folds else { return Found { shortcuts: Vec::new(), log_odds: Vec::new() } };
    let Features { rows, columns } = measure(data);
    let is_present = |feature: Feature| {
        let has = |column: u16| columns[usize::from(column)] == feature;
        (0..data.pairs.len()).any(|pair| rows.row(pair).iter().any(|(column, _)| has(*column)))
    };
    let cross_validated = |is_used: &(dyn Fn(Feature) -> bool + Sync)| -> Vec<f64> {
        let weights: Vec<Vec<f64>> = (0..FOLDS)
            .into_par_iter()
            .map(|fold| {
                let train: Vec<usize> = (0..folds.len()).filter(|&pair| folds[pair] != fold).collect();
                fit(&rows, &train, columns.len(), |column| is_used(columns[usize::from(column)]), PENALTY)
            })
            .collect();
        (0..folds.len()).map(|pair| score(rows.row(pair), &weights[folds[pair]])).collect()
    };
    let area = |scores: &[f64]| {
        let scored = |pair: usize| Scored { score: scores[pair], group: groups[pair], fold: folds[pair] };
        auc(&(0..scores.len()).map(scored).collect::<Vec<_>>())
    };
    let mut shortcuts = Vec::new();
    let mut add = |feature: &'static str, scores: &[f64], is_layout: bool| {
        shortcuts.extend(area(scores).map(|auc| Shortcut { feature, auc, is_layout }));
    };
    for feature in [Feature::Length, Feature::Format, Feature::Refusal, Feature::FirstWords, Feature::Source]
    {
        if is_present(feature) {
            add(feature.name(), &cross_validated(&|other| other == feature), false);
        }
    }
    let log_odds = cross_validated(&|feature| feature != Feature::Position);
    add("all", &log_odds, false);
    let position = cross_validated(&|feature| feature == Feature::Position);
    add(Feature::Position.name(), &position, data.puts_chosen_first());
    Found { shortcuts, log_odds }
}
