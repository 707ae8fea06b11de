//! The audit: all sections in their order.

use std::collections::BTreeMap;

use pref_data::{TokenizeOptions, TokenizeReport, Tokenizer, tokenize_pairs};
use seeds::Seeds;

use crate::contents::Contents;
use crate::dataset::Dataset;
use crate::deltas::PairDeltas;
use crate::duplicates::{self, PairKey};
use crate::enough::{Enough, Plan, Prices};
use crate::error::AuditError;
use crate::fault::{Fault, Hits};
use crate::leakage::{self, Bench, HeldOutOverlap, Leakage};
use crate::learning_curve::LearningCurve;
use crate::noise::{self, OtherLabels};
use crate::result::{Audit, Duplicates};
use crate::shortcuts;
use crate::{broken, verdict};

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
    /// What labels and judgments cost.
    pub prices: Prices,
    /// Margins of the pairs in a training run.
    pub deltas: Option<PairDeltas>,
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
            prices: Prices::default(),
            deltas: None,
            tokenizer: None,
            seeds: Seeds::new(0),
        }
    }
}

/// Audits a file of preferences.
///
/// # Errors
///
/// [`AuditError::NoDeltas`] for margins of other pairs, [`AuditError::Data`] for a tokenizer without a chat template where pairs are messages, [`AuditError::NoMatch`] for
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
    let margins = options.deltas.as_ref().map_or(Ok(Vec::new()), |deltas| deltas.of(data))?;
    let noise = noise::estimate(
        data,
        &keys,
        &repetitions.groups,
        (&others, &found.log_odds, &margins),
        &mut hits,
        &options.seeds,
    );
    let is_usable = |pair: &usize| hits.of_pairs[*pair].first_of(&Fault::UNUSABLE).is_none();
    let usable: Vec<usize> = (0..data.pairs.len()).filter(is_usable).collect();
    let learning_curve = LearningCurve::of(data, &repetitions.groups, &usable, &options.seeds);
    let enough = Enough::of((options.plan, options.prices), usable.len(), noise.first())?;
    let mut audit = Audit {
        file: data.path.display().to_string(),
        layout: data.layout(),
        annotator: data.annotator.clone(),
        rows: data.rows() + data.report.skipped.len() + data.report.filtered,
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
        learning_curve,
        usable_pairs: usable.len(),
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
    let own = OtherLabels::collect(data, keys, &[]).names.len();
    for other in second {
        if OtherLabels::collect(data, keys, std::slice::from_ref(other)).names.len() == own {
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
