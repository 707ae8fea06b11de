//! The audit: all sections in their order.

use std::collections::BTreeMap;

use pref_data::{TokenizeOptions, TokenizeReport, Tokenizer, tokenize_pairs};
use seeds::Seeds;
use serde::Serialize;

use crate::contents::Contents;
use crate::dataset::Dataset;
use crate::duplicates::{self, PairKey};
use crate::enough::{Enough, Plan};
use crate::error::AuditError;
use crate::fault::{Fault, Faults, Finding, Hits};
use crate::leakage::{self, Bench, HeldOutOverlap, Leakage};
use crate::noise::{self, NoiseEstimate, OtherLabels};
use crate::shortcuts::{self, Shortcut};
use crate::verdict;
use crate::{broken, page};

/// What a file is compared with.
#[derive(Debug)]
pub struct Options {
    /// Benchmarks that the file must not contain.
    pub benches: Vec<Bench>,
    /// Held-out preferences that the file must not contain.
    pub held_out: Vec<Dataset>,
    /// Labels of the same pairs by other annotators, or by the same in swapped order.
    pub second: Vec<Dataset>,
    /// The comparison for which the file is meant.
    pub plan: Plan,
    /// A model's tokenizer and the most tokens of a prompt with one response.
    pub tokenizer: Option<(Tokenizer, usize)>,
    /// The seeds of folds and resamples.
    pub seeds: Seeds,
}

impl Options {
    /// Returns options without anything to compare with.
    pub fn new(plan: Plan) -> Self {
        Self {
            benches: Vec::new(),
            held_out: Vec::new(),
            second: Vec::new(),
            plan,
            tokenizer: None,
            seeds: Seeds::new(0),
        }
    }
}

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

/// Audits a file of preferences.
///
/// # Errors
///
/// [`AuditError::Data`] for a tokenizer without a chat template where pairs are messages, [`AuditError::NoMatch`] for
/// second labels of other pairs, [`AuditError::Statistics`] for a plan that no test can
/// have.
pub fn audit(data: &Dataset, options: &Options) -> Result<Audit, AuditError> {
    let keys = PairKey::of_all(data);
    let mut hits = Hits::new(data);
    broken::find(data, &mut hits);
    let repetitions = duplicates::find(data, &keys, &mut hits);
    let leakage = options
        .benches
        .iter()
        .map(|bench| (bench.path.display().to_string(), leakage::with_bench(data, bench, &mut hits)));
    let leakage: BTreeMap<String, Leakage> = leakage.collect();
    let held_out = options.held_out.iter().map(|other| {
        (other.path.display().to_string(), leakage::with_held_out(data, &keys, other, &mut hits))
    });
    let held_out: BTreeMap<String, HeldOutOverlap> = held_out.collect();
    let found = shortcuts::find(data, &repetitions.groups, &options.seeds);
    let others = other_labels(data, &keys, &options.second)?;
    let noise = noise::estimate(
        data,
        &keys,
        &repetitions.groups,
        (&others, &found.log_odds),
        &mut hits,
        &options.seeds,
    );
    let usable_pairs =
        hits.of_pairs.iter().filter(|faults| faults.first_of(&Fault::UNUSABLE).is_none()).count();
    let enough = Enough::of(options.plan, usable_pairs, noise.first())?;
    let mut audit = Audit {
        file: data.path.display().to_string(),
        layout: data.layout(),
        annotator: data.annotator.clone(),
        rows: data.records.len() + data.report.skipped.len() + data.report.filtered,
        pairs: data.pairs.len(),
        contents: Contents::of(data, repetitions.prompts),
        tokens: tokens(data, options.tokenizer.as_ref())?,
        identical: hits.count(Fault::Identical),
        duplicates: Duplicates { exact: hits.count(Fault::Duplicate), near: repetitions.near },
        contradictions: repetitions.contradictions,
        cycles: repetitions.cycles,
        findings: hits.findings(),
        leakage,
        held_out,
        shortcuts: found.shortcuts,
        other_annotators: others.names,
        noise,
        detectable_effect: enough.detectable_effect,
        enough,
        usable_pairs,
        verdict: String::new(),
        advice: Vec::new(),
        faults: hits.of_pairs,
        majority: repetitions.majority,
        keys,
    };
    audit.verdict = verdict::sentence(&audit);
    audit.advice = verdict::advice(&audit);
    Ok(audit)
}

fn other_labels(data: &Dataset, keys: &[PairKey], second: &[Dataset]) -> Result<OtherLabels, AuditError> {
    for other in second {
        let one = OtherLabels::collect(data, keys, std::slice::from_ref(other));
        let own = OtherLabels::collect(data, keys, &[]);
        if one.names.len() == own.names.len() {
            return Err(AuditError::NoMatch { second: other.path.clone(), path: data.path.clone() });
        }
    }
    Ok(OtherLabels::collect(data, keys, second))
}

/// Tokenizes all pairs. Those that the chat template cannot render are counted.
fn tokens(
    data: &Dataset,
    tokenizer: Option<&(Tokenizer, usize)>,
) -> Result<Option<TokenizeReport>, AuditError> {
    let Some((tokenizer, max_length)) = tokenizer else { return Ok(None) };
    let pairs: Vec<_> = (0..data.pairs.len()).map(|pair| data.pair(pair)).collect();
    let options = TokenizeOptions { skip_bad: usize::MAX, ..TokenizeOptions::new(*max_length) };
    Ok(Some(tokenize_pairs(&pairs, tokenizer, &options)?.1))
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

    /// Returns the audit as text: the answer in at most twelve lines, then the sections.
    pub fn to_text(&self) -> String {
        page::text(self)
    }

    /// Returns the audit as Markdown.
    pub fn to_markdown(&self) -> String {
        page::markdown(self)
    }

    /// Returns the audit as a self-contained page.
    pub fn to_html(&self) -> String {
        page::page(self).to_html()
    }
}
