//! Training loss and scores at checkpoints, as in Table 5.

use experiment::{Cell, Subject, loss_name, percent};
use report::table::{Align, Column, Table, Value};
use trainer::HeldOutMetrics;
use trainer::recipe::LossKind;

use super::is_baseline;
use crate::error::StudyError;
use crate::evidence;
use crate::results::Results;

/// Returns training loss and score at each checkpoint, for each annotator and loss.
pub(crate) fn overfitting(
    results: &Results<'_>,
    losses: &[LossKind],
    id: &str,
    title: String,
) -> Result<Table, StudyError> {
    let mut policies = Vec::new();
    for annotator in &results.recipe.study.annotators {
        for &loss in losses {
            policies.push(Policy {
                name: format!("{} on {annotator}", loss_name(loss)),
                is: Box::new(move |cell| cell.annotator == *annotator && cell.loss == loss),
            });
        }
    }
    progress(results, id, title, &policies)
}

/// A policy whose checkpoints a table lists.
pub(crate) struct Policy<'a> {
    pub(crate) name: String,
    pub(crate) is: Box<dyn Fn(&Cell) -> bool + 'a>,
}

/// Returns training loss and score of `policies` at each checkpoint.
pub(crate) fn progress(
    results: &Results<'_>,
    id: &str,
    title: String,
    policies: &[Policy<'_>],
) -> Result<Table, StudyError> {
    let scorers = results.scorers();
    let shown = scorers.shown();
    let scores = |keep: &dyn Fn(&Subject) -> bool| -> Result<Vec<Value>, StudyError> {
        Ok(shown.iter().map(|scorer| results.scores.mean_value(scorer, keep)).collect::<Result<_, _>>()?)
    };
    let measured = Measured::of(results);
    let mut rows = vec![vec![Value::text("SFT (baseline)"), Value::text("0%"), Value::text("–")]];
    rows[0].extend(measured.iter().map(|_| Value::text("–")));
    let length = |keep: &dyn Fn(&Subject) -> bool| match results.scores.mean_length(&scorers.judge, keep) {
        Some(value) => Value::Number { value, decimals: 1 },
        None => Value::missing("not in this grid"),
    };
    rows[0].push(length(&is_baseline));
    rows[0].extend(scores(&is_baseline)?);
    let mut verdicts = Vec::new();
    for policy in policies {
        let at_checkpoint = |subject: &Subject, at: usize| match subject {
            Subject::Baseline { .. } => false,
            Subject::Trained { cell, checkpoint } => *checkpoint == at && (policy.is)(cell),
        };
        verdicts.extend(evidence::overfitting_note(results, &scorers.judge, &policy.name, at_checkpoint)?);
        for (at, share) in results.recipe.train.checkpoints.iter().enumerate() {
            let keep = |subject: &Subject| at_checkpoint(subject, at);
            let mut row = vec![
                Value::text(if at == 0 { policy.name.as_str() } else { "" }),
                Value::text(format!("{}%", percent(*share))),
                match results.scores.training_loss(&keep) {
                    Some(value) => Value::Number { value, decimals: 3 },
                    None => Value::missing("not in this grid"),
                },
            ];
            row.extend(measured.iter().map(|measured| measured.value(results, &keep)));
            row.push(length(&keep));
            row.extend(scores(&keep)?);
            rows.push(row);
        }
    }
    let columns = measured.iter().map(|measured| measured.title);
    let columns = columns.chain(["Length"]).chain(shown.iter().map(|scorer| scorer.title.as_str()));
    let mut notes = vec![
        "Training loss: mean over the steps since the previous checkpoint. Length: characters per answer to the benchmark."
            .to_owned(),
    ];
    if !measured.is_empty() {
        notes.push(
            "Held-out accuracy: share of held-out pairs whose preferred response has the higher implicit reward. KL: divergence \
             from the reference in nats per answer, estimated from answers to held-out prompts."
                .to_owned(),
        );
    }
    if scorers.gold.is_some() {
        let further = results.recipe.sandbox.further_questions;
        notes.push(format!("Ground truth: gold quality on {further} held-out questions."));
    }
    notes.push(results.scores.interval_note());
    notes.extend(verdicts);
    Ok(Table {
        id: id.into(),
        title,
        columns: [("Policy", Align::Left), ("Training", Align::Left), ("Training loss", Align::Right)]
            .map(|(title, align)| Column::new(title, align))
            .into_iter()
            .chain(columns.map(|title| Column::new(title, Align::Right)))
            .collect(),
        rows,
        notes,
    })
}

/// A column of a held-out metric.
struct Measured {
    title: &'static str,
    of: fn(&HeldOutMetrics) -> Option<f64>,
    decimals: usize,
}

impl Measured {
    /// Returns the columns with values.
    fn of(results: &Results<'_>) -> Vec<Self> {
        let all = [
            Self { title: "Held-out accuracy", of: HeldOutMetrics::accuracy, decimals: 3 },
            Self { title: "KL", of: |metrics| metrics.kl, decimals: 2 },
        ];
        all.into_iter().filter(|measured| results.scores.held_out(&|_| true, measured.of).is_some()).collect()
    }

    fn value(&self, results: &Results<'_>, keep: &dyn Fn(&Subject) -> bool) -> Value {
        match results.scores.held_out(keep, self.of) {
            Some(value) => Value::Number { value, decimals: self.decimals },
            None => Value::missing("not measured"),
        }
    }
}
