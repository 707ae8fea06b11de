//! The paper's tables, from evaluated subjects.
//!
//! All score tables are one pivot: subjects are selected by row and column, their scores pooled, the mean given with
//! an interval clustered by question.

mod along;
mod beside;
mod categories;
mod judges;
mod labels;
mod mixed;
mod overfitting;
mod sweep;

use report::table::{Align, Column, Table, Value};
use stats::Estimate;

pub(crate) use along::along;
pub(crate) use beside::beside;
pub(crate) use categories::categories;
pub(crate) use judges::judges;
pub(crate) use labels::labels;
pub(crate) use mixed::mixed;
pub(crate) use overfitting::{overfitting, tuned_overfitting};
pub(crate) use sweep::{name, points, sweep, tuned_quality, tuned_volume};

use crate::analysis::{Analysis, Scorer, Scorers};
use crate::cell::{Subject, loss_name, percent};
use crate::contrast::{Contrast, Keep};
use crate::error::StudyError;
use crate::evidence;
use crate::failures::Failure;
use crate::grid::Question;

const DECIMALS: usize = 2;

/// A selection with the words that name it.
struct Slice<'a> {
    label: String,
    keep: Keep<'a>,
}

impl<'a> Slice<'a> {
    fn new(label: impl Into<String>, keep: impl Fn(&Subject) -> bool + 'a) -> Self {
        Self { label: label.into(), keep: Box::new(keep) }
    }
}

/// The mean of what `keep` selects under a scorer, with its interval; where there is none, why.
pub(crate) fn mean_value(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> Result<Value, StudyError> {
    Ok(match analysis.mean(scorer, keep)? {
        Some(Estimate { value, low, high, .. }) => Value::Interval { value, low, high, decimals: DECIMALS },
        None => absent(analysis, &[keep]),
    })
}

/// How much higher `first` scores than `second`, with its interval; where one of them is not there, why.
pub(crate) fn difference_value(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    first: &dyn Fn(&Subject) -> bool,
    second: &dyn Fn(&Subject) -> bool,
) -> Result<Value, StudyError> {
    Ok(match analysis.difference(scorer, first, second)? {
        Some(Estimate { value, low, high, .. }) => Value::Difference { value, low, high, decimals: DECIMALS },
        None => absent(analysis, &[first, second]),
    })
}

/// Stands where nothing of one of these selections was measured.
fn absent(analysis: &Analysis<'_>, selections: &[&dyn Fn(&Subject) -> bool]) -> Value {
    let has_failed = |failure: &Failure| selections.iter().any(|keep| keep(&failure.subject));
    match analysis.failed.iter().any(has_failed) {
        true => Value::missing("failed: the table of what is missing says why"),
        false => Value::missing("not in this grid"),
    }
}

fn is_baseline(subject: &Subject) -> bool {
    matches!(subject, Subject::Baseline { .. })
}

/// Table 1: what DPO and IPO make of the policy under each annotator's preferences, beside the policy itself.
pub(crate) fn acquisition(analysis: &Analysis<'_>) -> Result<Table, StudyError> {
    let study = &analysis.recipe.study;
    let question = Question::Acquisition;
    let last = analysis.last_checkpoint();
    let mut conditions = vec![Slice::new("SFT (baseline)", is_baseline)];
    for &loss in question.losses(study) {
        for fraction in question.fractions(study) {
            for flip_rate in question.flip_rates(study) {
                for &beta in &study.betas {
                    let mut label = loss_name(loss).to_owned();
                    if fraction.get() != 1.0 {
                        label += &format!(", {}% of pairs", percent(fraction.get()));
                    }
                    if flip_rate.get() != 0.0 {
                        label += &format!(", {}% flipped", percent(flip_rate.get()));
                    }
                    if study.betas.len() > 1 {
                        label += &format!(", β = {}", beta.get());
                    }
                    conditions.push(Slice::new(label, move |subject| match subject {
                        Subject::Baseline { .. } => false,
                        Subject::Trained { cell, checkpoint } => {
                            *checkpoint == last
                                && (cell.loss, cell.fraction, cell.flip_rate, cell.beta)
                                    == (loss, fraction, flip_rate, beta)
                        }
                    }));
                }
            }
        }
    }
    let scorers = Scorers::of(analysis.recipe);
    let mut columns = vec![Column::new("Scorer", Align::Left), Column::new("Algorithm", Align::Left)];
    for annotator in &study.annotators {
        columns.push(Column::grouped(annotator, "Score", Align::Right));
        columns.push(Column::grouped(annotator, "Difference from SFT", Align::Right));
    }
    let mut rows = Vec::new();
    for scorer in scorers.all() {
        for (k, condition) in conditions.iter().enumerate() {
            let label = if k == 0 { scorer.label.as_str() } else { "" };
            let mut row = vec![Value::text(label), Value::text(&condition.label)];
            for annotator in &study.annotators {
                let keep = |subject: &Subject| (condition.keep)(subject) && learned_from(subject, annotator);
                row.push(mean_value(analysis, scorer, &keep)?);
                row.push(match k {
                    0 => Value::text("–"),
                    _ => difference_value(analysis, scorer, &keep, &is_baseline)?,
                });
            }
            rows.push(row);
        }
    }
    let mut notes = vec![analysis.interval_note()];
    notes.extend(analysis.missing_notes(&scorers.all()));
    if let Some(gold) = &scorers.gold {
        notes.push(coverage_note(analysis, gold, &conditions)?);
    }
    let mut against_baseline = Vec::new();
    for condition in &conditions[1..] {
        for annotator in &study.annotators {
            let trained =
                move |subject: &Subject| (condition.keep)(subject) && learned_from(subject, annotator);
            against_baseline.push(Contrast::difference(Box::new(trained), Box::new(is_baseline)));
        }
    }
    notes.extend(evidence::detectable(analysis, &scorers.judge, &against_baseline)?);
    Ok(Table {
        id: "table-1".into(),
        title: "Scores of the policy trained on each annotator's preferences".into(),
        columns,
        rows,
        notes,
    })
}

/// Whether a subject learned from an annotator; the baseline learned from none and stands under each.
fn learned_from(subject: &Subject, annotator: &str) -> bool {
    match subject {
        Subject::Baseline { .. } => true,
        Subject::Trained { cell, .. } => cell.annotator == annotator,
    }
}

/// How often the benchmark's gold interval covers gold on the further questions, policy by policy.
fn coverage_note(
    analysis: &Analysis<'_>,
    [gold, further]: &[Scorer; 2],
    conditions: &[Slice<'_>],
) -> Result<String, StudyError> {
    let (mut covered, mut all) = (0, 0);
    for condition in conditions {
        for annotator in &analysis.recipe.study.annotators {
            let is_first = analysis.recipe.study.annotators.first() == Some(annotator);
            let keep = |subject: &Subject| {
                (condition.keep)(subject)
                    && learned_from(subject, annotator)
                    && (is_first || !is_baseline(subject))
            };
            let (on_benchmark, beyond) = (analysis.mean(gold, &keep)?, analysis.mean(further, &keep)?);
            if let (Some(on_benchmark), Some(beyond)) = (on_benchmark, beyond) {
                all += 1;
                covered += usize::from(!on_benchmark.excludes(beyond.value));
            }
        }
    }
    Ok(format!(
        "The interval of gold on the benchmark holds gold on the {} further questions for {covered} of {all} policies.",
        analysis.recipe.sandbox.further_questions
    ))
}
