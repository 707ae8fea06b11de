//! The result of an audit.

use std::collections::BTreeMap;

use pref_data::TokenizeReport;
use serde::Serialize;

use crate::contents::Contents;
use crate::duplicates::PairKey;
use crate::enough::Enough;
use crate::fault::{Fault, Faults, Finding};
use crate::leakage::{HeldOutOverlap, Leakage};
use crate::learning_curve::LearningCurve;
use crate::noise::NoiseEstimate;
use crate::shortcuts::Shortcut;

/// The result of an audit. As JSON its fields are the keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The file.
    pub file: String,
    /// Its layout.
    pub layout: &'static str,
    /// The annotator whose labels are audited.
    pub annotator: String,
    /// Rows of the file.
    pub rows: usize,
    /// Pairs that the labels make.
    pub pairs: usize,
    /// What the file holds.
    pub contents: Contents,
    /// Lengths in tokens and truncation, with a tokenizer.
    pub tokens: Option<TokenizeReport>,
    /// Pairs with identical responses.
    pub identical: usize,
    /// Duplicates.
    pub duplicates: Duplicates,
    /// Comparisons with labels in both directions.
    pub contradictions: usize,
    /// Prompts with a cycle of preferences.
    pub cycles: usize,
    /// Faults with their shares and examples, in the order of [`Fault::ALL`].
    pub findings: Vec<Finding>,
    /// Overlap with each benchmark, by its file.
    pub leakage: BTreeMap<String, Leakage>,
    /// Overlap with each held-out set, by its file.
    pub held_out: BTreeMap<String, HeldOutOverlap>,
    /// How well each feature alone predicts the labels; none for too few prompts.
    pub shortcuts: Vec<Shortcut>,
    /// The other annotators.
    pub other_annotators: Vec<String>,
    /// Estimates of the share of wrong labels, the strongest method first.
    pub noise: Vec<NoiseEstimate>,
    /// The smallest difference in points that the planned comparison finds with a power of 80%.
    pub detectable_effect: f64,
    /// The planned comparison.
    pub enough: Enough,
    /// The accuracy of a cheap proxy by the number of training pairs; none for too few pairs or prompts.
    pub learning_curve: Option<LearningCurve>,
    /// Pairs without a fault of [`Fault::UNUSABLE`].
    pub usable_pairs: usize,
    /// The answer in one sentence.
    pub verdict: String,
    /// The two steps that would help most.
    pub advice: Vec<String>,
    /// The faults of each pair.
    #[serde(skip)]
    pub faults: Vec<Faults>,
    /// For contradicted pairs with a majority, whether the majority has the pair's label.
    #[serde(skip)]
    pub(crate) majority: BTreeMap<usize, bool>,
    /// The identity of each pair.
    #[serde(skip)]
    pub(crate) keys: Vec<PairKey>,
}

/// Counts of duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Pairs that repeat an earlier pair with the same label.
    pub exact: usize,
    /// Prompts that are near-duplicates of an earlier one.
    pub near: usize,
}

impl Audit {
    /// Returns the number of pairs with a fault.
    pub fn count(&self, fault: Fault) -> usize {
        self.findings.iter().find(|finding| finding.fault == fault).map_or(0, |finding| finding.count)
    }

    /// Returns the area under the curve of a feature.
    pub fn shortcut(&self, feature: &str) -> Option<&Shortcut> {
        self.shortcuts.iter().find(|shortcut| shortcut.feature == feature)
    }

    /// Returns the audit as JSON, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("an audit has string keys and plain values only")
    }
}
