//! The paper's tables, from evaluated subjects.
//!
//! All score tables are one pivot: subjects are selected by row and column, their scores pooled, the mean given with
//! an interval clustered by question.

use std::collections::BTreeMap;

use rand::Rng;
use render::table::{Align, Column, Table, Value};
use seeds::Seeds;
use stats::{ClusteredScores, Estimate, mean_interval, paired_difference_interval};
use trainer::HeldOutMetrics;

use crate::cell::{Subject, loss_name, percent};
use crate::error::StudyError;
use crate::evaluate::{BENCHMARK, FURTHER, GOLD};
use crate::grid::Question;
use crate::recipe::StudyRecipe;
use crate::runner::Evaluated;
use crate::{evidence, judges};

/// Confidence level of every interval.
pub(crate) const LEVEL: f64 = 0.95;
/// Bootstrap resamples of an interval.
const RESAMPLES: usize = 10_000;
/// Fewer for the many further questions, whose intervals are narrow.
const FURTHER_RESAMPLES: usize = 2_000;
const DECIMALS: usize = 2;

/// What a score is a score of: a scorer on a set of questions.
#[derive(Clone, Debug)]
pub(crate) struct Scorer {
    pub(crate) label: String,
    pub(crate) name: String,
    pub(crate) question_set: &'static str,
}

/// Who scores in a study.
#[derive(Clone, Debug)]
pub(crate) struct Scorers {
    /// Whose scores are the study's.
    pub(crate) judge: Scorer,
    /// The sandbox's second judge, with the LLM annotator's taste.
    biased: Option<Scorer>,
    /// The sandbox's true quality, on the benchmark and beyond it.
    pub(crate) gold: Option<[Scorer; 2]>,
}

impl Scorers {
    pub(crate) fn of(recipe: &StudyRecipe) -> Self {
        let scorer = |label: &str, name: &str, question_set| Scorer {
            label: label.to_owned(),
            name: name.to_owned(),
            question_set,
        };
        let names = judges::names(&recipe.judge);
        if !recipe.is_sandbox() {
            return Self { judge: scorer(&names[0], &names[0], BENCHMARK), biased: None, gold: None };
        }
        let beyond = format!("gold, {} further questions", recipe.sandbox.further_questions);
        Self {
            judge: scorer("judge", &names[0], BENCHMARK),
            biased: names.get(1).map(|name| scorer("judge with gpt-4-turbo's taste", name, BENCHMARK)),
            gold: Some([scorer("gold", GOLD, BENCHMARK), scorer(&beyond, GOLD, FURTHER)]),
        }
    }

    /// All of them, the study's judge first.
    fn all(&self) -> Vec<&Scorer> {
        [&self.judge].into_iter().chain(&self.biased).chain(self.gold.iter().flatten()).collect()
    }

    /// The judge, and the truth where it is known.
    fn judge_and_truth(&self) -> Vec<&Scorer> {
        [&self.judge].into_iter().chain(self.gold.as_ref().map(|[_, beyond]| beyond)).collect()
    }
}

/// Selects subjects: a row's or a column's.
type Selection<'a> = Box<dyn Fn(&Subject) -> bool + 'a>;

/// A selection with the words that name it.
struct Slice<'a> {
    label: String,
    keep: Selection<'a>,
}

impl<'a> Slice<'a> {
    fn new(label: impl Into<String>, keep: impl Fn(&Subject) -> bool + 'a) -> Self {
        Self { label: label.into(), keep: Box::new(keep) }
    }
}

/// Evaluated subjects, and how to make numbers of them.
pub(crate) struct Analysis<'a> {
    pub(crate) recipe: &'a StudyRecipe,
    pub(crate) evaluated: &'a [Evaluated],
    seeds: Seeds,
}

impl<'a> Analysis<'a> {
    pub(crate) fn new(recipe: &'a StudyRecipe, evaluated: &'a [Evaluated]) -> Self {
        Self { recipe, evaluated, seeds: Seeds::new(recipe.seed).child("bootstrap") }
    }

    /// The scores of all subjects that are selected, by question; turns and seeds are pooled.
    pub(crate) fn scores(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<ClusteredScores, StudyError> {
        let rows = self
            .evaluated
            .iter()
            .filter(|e| keep(&e.subject))
            .flat_map(|e| &e.evaluation.scores)
            .filter(|s| s.scorer == scorer.name && s.question_set == scorer.question_set)
            .filter_map(|s| Some((s.question_id, s.score?)));
        ClusteredScores::new(rows).map_err(StudyError::stats(format!("scores of {}", scorer.label)))
    }

    /// How many turns have no rating under a scorer.
    fn missing(&self, scorer: &Scorer) -> usize {
        let scores = self.evaluated.iter().flat_map(|e| &e.evaluation.scores);
        scores
            .filter(|s| s.scorer == scorer.name && s.question_set == scorer.question_set && s.score.is_none())
            .count()
    }

    /// The mean of selected scores with its interval; `None` where nothing is selected.
    pub(crate) fn mean(
        &self,
        scorer: &Scorer,
        keep: &dyn Fn(&Subject) -> bool,
    ) -> Result<Option<Estimate>, StudyError> {
        let scores = self.scores(scorer, keep)?;
        if scores.clusters() == 0 {
            return Ok(None);
        }
        let mut rng = self.rng();
        mean_interval(&scores, resamples(scorer), LEVEL, &mut rng)
            .map(Some)
            .map_err(StudyError::stats(format!("mean of {}", scorer.label)))
    }

    /// The paired difference of two selections with its interval; `None` where one of them is empty.
    pub(crate) fn difference(
        &self,
        scorer: &Scorer,
        first: &dyn Fn(&Subject) -> bool,
        second: &dyn Fn(&Subject) -> bool,
    ) -> Result<Option<Estimate>, StudyError> {
        let (first, second) = (self.scores(scorer, first)?, self.scores(scorer, second)?);
        if first.clusters() == 0 || second.clusters() == 0 {
            return Ok(None);
        }
        let mut rng = self.rng();
        paired_difference_interval(&first, &second, resamples(scorer), LEVEL, &mut rng)
            .map(Some)
            .map_err(StudyError::stats(format!("difference of {}", scorer.label)))
    }

    /// Every interval draws the same resamples, so that intervals of one table are comparable.
    pub(crate) fn rng(&self) -> impl Rng + use<> {
        self.seeds.stream("resamples")
    }

    /// The mean training loss of selected subjects.
    pub(crate) fn training_loss(&self, keep: &dyn Fn(&Subject) -> bool) -> Option<f64> {
        let losses: Vec<f64> =
            self.evaluated.iter().filter(|e| keep(&e.subject)).filter_map(|e| e.training_loss).collect();
        (!losses.is_empty()).then(|| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    /// The mean of something that was measured on held-out pairs, over selected subjects.
    pub(crate) fn held_out(
        &self,
        keep: &dyn Fn(&Subject) -> bool,
        of: fn(&HeldOutMetrics) -> Option<f64>,
    ) -> Option<f64> {
        let selected = self.evaluated.iter().filter(|e| keep(&e.subject));
        let values: Vec<f64> = selected.filter_map(|e| of(e.held_out.as_ref()?)).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    fn last_checkpoint(&self) -> usize {
        self.recipe.train.checkpoints.len() - 1
    }

    /// How scores are averaged and what the intervals mean.
    fn interval_note(&self) -> String {
        let study = &self.recipe.study;
        let (questions, seeds) = (study.questions, study.seeds);
        let further = match self.recipe.is_sandbox() {
            true => format!(
                ", of gold on further questions over {} × 2 × {seeds}",
                self.recipe.sandbox.further_questions
            ),
            false => String::new(),
        };
        format!(
            "Means over {questions} questions × 2 turns × {seeds} seeds{further}. Brackets: {}% bootstrap intervals clustered by \
             question, conditional on these seeds: they say what other questions would change, not what other seeds would.",
            percent(LEVEL)
        )
    }

    fn missing_notes(&self, scorers: &[&Scorer]) -> Vec<String> {
        scorers
            .iter()
            .filter_map(|scorer| {
                let missing = self.missing(scorer);
                (missing > 0)
                    .then(|| format!("{missing} turns have no readable verdict of the {}.", scorer.label))
            })
            .collect()
    }
}

fn resamples(scorer: &Scorer) -> usize {
    if scorer.question_set == FURTHER { FURTHER_RESAMPLES } else { RESAMPLES }
}

pub(crate) fn interval(estimate: Option<Estimate>) -> Value {
    match estimate {
        Some(Estimate { value, low, high, .. }) => Value::Interval { value, low, high, decimals: DECIMALS },
        None => Value::missing("not in this grid"),
    }
}

fn difference(estimate: Option<Estimate>) -> Value {
    match estimate {
        Some(Estimate { value, low, high, .. }) => Value::Difference { value, low, high, decimals: DECIMALS },
        None => Value::missing("not in this grid"),
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
                row.push(interval(analysis.mean(scorer, &keep)?));
                row.push(match k {
                    0 => Value::text("–"),
                    _ => difference(analysis.difference(scorer, &keep, &is_baseline)?),
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
    let mut selections: Vec<Selection<'_>> = Vec::new();
    for condition in &conditions[1..] {
        for annotator in &study.annotators {
            selections.push(Box::new(move |subject: &Subject| {
                (condition.keep)(subject) && learned_from(subject, annotator)
            }));
        }
    }
    let against_baseline: Vec<_> =
        selections.iter().map(|keep| (&**keep, &is_baseline as &dyn Fn(&Subject) -> bool)).collect();
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

/// Table 3 or 4: scores along one axis of the data, for each annotator and loss.
pub(crate) fn along(analysis: &Analysis<'_>, question: Question) -> Result<Table, StudyError> {
    let study = &analysis.recipe.study;
    let last = analysis.last_checkpoint();
    let whole = |subject: &Subject| match subject {
        Subject::Baseline { .. } => false,
        Subject::Trained { cell, checkpoint } => {
            *checkpoint == last
                && (question == Question::Quality || cell.flip_rate.get() == 0.0)
                && (question == Question::Volume || cell.fraction.get() == 1.0)
        }
    };
    let trained = |keep: Box<dyn Fn(&crate::cell::Cell) -> bool>| {
        move |subject: &Subject| match subject {
            Subject::Trained { cell, .. } => whole(subject) && keep(cell),
            Subject::Baseline { .. } => false,
        }
    };
    let (id, title, axis, mut rows) = match question {
        Question::Quality => {
            let rows = question.flip_rates(study).into_iter().map(|rate| {
                let label = format!("{}%", percent(rate.get()));
                Slice::new(label, trained(Box::new(move |cell| cell.flip_rate == rate)))
            });
            ("table-4", "Scores under flipped labels", "Flipped labels", rows.collect::<Vec<_>>())
        }
        _ => {
            let rows = question.fractions(study).into_iter().map(|share| {
                let label = format!("{}%", percent(share.get()));
                Slice::new(label, trained(Box::new(move |cell| cell.fraction == share)))
            });
            ("table-3", "Scores by volume of preferences", "Share of pairs", rows.collect::<Vec<_>>())
        }
    };
    rows.insert(0, Slice::new("SFT (baseline)", is_baseline));
    let scorers = Scorers::of(analysis.recipe);
    let mut columns = vec![Column::new("Scorer", Align::Left), Column::new(axis, Align::Left)];
    let mut slices = Vec::new();
    for annotator in &study.annotators {
        for &loss in question.losses(study) {
            columns.push(Column::grouped(annotator, loss_name(loss), Align::Right));
            slices.push(move |subject: &Subject| match subject {
                Subject::Baseline { .. } => true,
                Subject::Trained { cell, .. } => cell.annotator == *annotator && cell.loss == loss,
            });
        }
    }
    let mut body = Vec::new();
    for scorer in scorers.judge_and_truth() {
        for (k, row) in rows.iter().enumerate() {
            let label = if k == 0 { scorer.label.as_str() } else { "" };
            let mut cells = vec![Value::text(label), Value::text(&row.label)];
            for slice in &slices {
                let keep = |subject: &Subject| (row.keep)(subject) && slice(subject);
                cells.push(interval(analysis.mean(scorer, &keep)?));
            }
            body.push(cells);
        }
    }
    let mut notes = vec![analysis.interval_note()];
    if question == Question::Volume {
        notes.push(
            "At equal epochs a smaller share also means fewer optimiser steps: the two are confounded here."
                .into(),
        );
    } else {
        let smoothing = analysis.recipe.loss.label_smoothing.get();
        notes.push(format!(
            "cDPO's label smoothing is {smoothing} throughout, whatever the share of flipped labels."
        ));
    }
    Ok(Table { id: id.into(), title: title.into(), columns, rows: body, notes })
}

/// Table 5: training loss and score after each part of training.
pub(crate) fn overfitting(analysis: &Analysis<'_>) -> Result<Table, StudyError> {
    let study = &analysis.recipe.study;
    let scorers = Scorers::of(analysis.recipe);
    let shown = scorers.judge_and_truth();
    let scores = |keep: &dyn Fn(&Subject) -> bool| -> Result<Vec<Value>, StudyError> {
        shown.iter().map(|scorer| Ok(interval(analysis.mean(scorer, keep)?))).collect()
    };
    let measured = Measured::of(analysis);
    let mut rows = vec![vec![Value::text("SFT (baseline)"), Value::text("0%"), Value::text("–")]];
    rows[0].extend(measured.iter().map(|_| Value::text("–")));
    rows[0].extend(scores(&is_baseline)?);
    let mut verdicts = Vec::new();
    for annotator in &study.annotators {
        for &loss in Question::Overfitting.losses(study) {
            let policy = format!("{} on {annotator}", loss_name(loss));
            let at_checkpoint = |subject: &Subject, at: usize| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, checkpoint } => {
                    *checkpoint == at && cell.annotator == *annotator && cell.loss == loss
                }
            };
            verdicts.extend(evidence::overfitting_note(analysis, &scorers.judge, &policy, at_checkpoint)?);
            for (at, share) in analysis.recipe.train.checkpoints.iter().enumerate() {
                let keep = |subject: &Subject| at_checkpoint(subject, at);
                let mut row = vec![
                    Value::text(if at == 0 { policy.as_str() } else { "" }),
                    Value::text(format!("{}%", percent(*share))),
                    match analysis.training_loss(&keep) {
                        Some(value) => Value::Number { value, decimals: 3 },
                        None => Value::missing("not in this grid"),
                    },
                ];
                row.extend(measured.iter().map(|measured| measured.value(analysis, &keep)));
                row.extend(scores(&keep)?);
                rows.push(row);
            }
        }
    }
    let columns = measured.iter().map(|measured| measured.title);
    let columns = columns.chain(["Judge", "Gold"].into_iter().take(shown.len()));
    let mut notes = vec!["Training loss: mean over the steps since the checkpoint before.".to_owned()];
    if !measured.is_empty() {
        notes.push(
            "Held-out accuracy: share of pairs that were not trained on whose preferred response gained more over the \
             reference. KL: nats an answer from the reference, estimated from answers to held-out prompts."
                .to_owned(),
        );
    }
    if scorers.gold.is_some() {
        let further = analysis.recipe.sandbox.further_questions;
        notes.push(format!("Gold: true quality on {further} further questions."));
    }
    notes.push(analysis.interval_note());
    notes.extend(verdicts);
    Ok(Table {
        id: "table-5".into(),
        title: "Training loss and scores as training goes on".into(),
        columns: [("Policy", Align::Left), ("Training", Align::Left), ("Training loss", Align::Right)]
            .map(|(title, align)| Column::new(title, align))
            .into_iter()
            .chain(columns.map(|title| Column::new(title, Align::Right)))
            .collect(),
        rows,
        notes,
    })
}

/// A column of what was measured on held-out pairs.
struct Measured {
    title: &'static str,
    of: fn(&HeldOutMetrics) -> Option<f64>,
    decimals: usize,
}

impl Measured {
    /// The columns that some subject fills.
    fn of(analysis: &Analysis<'_>) -> Vec<Self> {
        let all = [
            Self { title: "Held-out accuracy", of: |metrics| Some(metrics.accuracy), decimals: 3 },
            Self { title: "KL", of: |metrics| metrics.kl, decimals: 2 },
        ];
        all.into_iter().filter(|measured| analysis.held_out(&|_| true, measured.of).is_some()).collect()
    }

    fn value(&self, analysis: &Analysis<'_>, keep: &dyn Fn(&Subject) -> bool) -> Value {
        match analysis.held_out(keep, self.of) {
            Some(value) => Value::Number { value, decimals: self.decimals },
            None => Value::missing("not measured"),
        }
    }
}

/// Mean benchmark scores by category, for a figure: category → (value, low, high).
pub(crate) fn by_category(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> Result<BTreeMap<String, (f64, f64, f64)>, StudyError> {
    let mut by_category: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for evaluated in analysis.evaluated.iter().filter(|e| keep(&e.subject)) {
        for score in &evaluated.evaluation.scores {
            if score.scorer == scorer.name
                && score.question_set == scorer.question_set
                && let Some(value) = score.score
            {
                by_category.entry(score.category.clone()).or_default().push((score.question_id, value));
            }
        }
    }
    let mut means = BTreeMap::new();
    for (category, rows) in by_category {
        let what = || format!("scores in {category}");
        let scores = ClusteredScores::new(rows).map_err(StudyError::stats(what()))?;
        if scores.clusters() < 2 {
            continue;
        }
        let mut rng = analysis.rng();
        let estimate =
            mean_interval(&scores, FURTHER_RESAMPLES, LEVEL, &mut rng).map_err(StudyError::stats(what()))?;
        means.insert(category, (estimate.value, estimate.low, estimate.high));
    }
    Ok(means)
}
