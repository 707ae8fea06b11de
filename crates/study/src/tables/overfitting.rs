//! Table 5: training loss and scores as training goes on.

use report::table::{Align, Column, Table, Value};
use trainer::HeldOutMetrics;

use super::{is_baseline, mean_value};
use crate::analysis::{Analysis, Scorers};
use crate::cell::{Cell, Subject, loss_name, percent};
use crate::error::StudyError;
use crate::evidence;
use crate::grid::Question;
use crate::sweep::{Chosen, Setting};

/// Training loss and score after each part of training, for each annotator and loss.
pub(crate) fn overfitting(analysis: &Analysis<'_>, question: Question) -> Result<Table, StudyError> {
    let study = &analysis.recipe.study;
    let mut policies = Vec::new();
    for annotator in &study.annotators {
        for &loss in question.losses(study) {
            policies.push(Policy {
                name: format!("{} on {annotator}", loss_name(loss)),
                is: Box::new(move |cell| cell.annotator == *annotator && cell.loss == loss),
            });
        }
    }
    let (id, title) = match question {
        Question::LongTraining => {
            let epochs = study.long_epochs;
            ("table-long", format!("Training loss and scores over {epochs} epochs"))
        }
        _ => ("table-5", "Training loss and scores as training goes on".to_owned()),
    };
    progress(analysis, id, title, &policies)
}

/// The tuned columns of Table 5.
pub(crate) fn tuned_overfitting(analysis: &Analysis<'_>, chosen: &Chosen) -> Result<Table, StudyError> {
    let [dpo, ipo, ..] = Setting::all();
    let policies = [dpo, ipo].map(|setting| {
        let beta = chosen.beta(setting);
        Policy {
            name: format!("{}, β = {}", loss_name(setting.loss), beta.get()),
            is: Box::new(move |cell| *cell == setting.cell(&analysis.recipe.study, beta, cell.seed)),
        }
    });
    progress(analysis, "table-5-tuned", "Training loss and scores at the tuned β".to_owned(), &policies)
}

/// One policy whose training is looked into.
struct Policy<'a> {
    name: String,
    is: Box<dyn Fn(&Cell) -> bool + 'a>,
}

fn progress(
    analysis: &Analysis<'_>,
    id: &str,
    title: String,
    policies: &[Policy<'_>],
) -> Result<Table, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let shown = scorers.shown();
    let scores = |keep: &dyn Fn(&Subject) -> bool| -> Result<Vec<Value>, StudyError> {
        shown.iter().map(|scorer| mean_value(analysis, scorer, keep)).collect()
    };
    let measured = Measured::of(analysis);
    let mut rows = vec![vec![Value::text("SFT (baseline)"), Value::text("0%"), Value::text("–")]];
    rows[0].extend(measured.iter().map(|_| Value::text("–")));
    let length = |keep: &dyn Fn(&Subject) -> bool| match analysis.mean_length(&scorers.judge, keep) {
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
        verdicts.extend(evidence::overfitting_note(analysis, &scorers.judge, &policy.name, at_checkpoint)?);
        for (at, share) in analysis.recipe.train.checkpoints.iter().enumerate() {
            let keep = |subject: &Subject| at_checkpoint(subject, at);
            let mut row = vec![
                Value::text(if at == 0 { policy.name.as_str() } else { "" }),
                Value::text(format!("{}%", percent(*share))),
                match analysis.training_loss(&keep) {
                    Some(value) => Value::Number { value, decimals: 3 },
                    None => Value::missing("not in this grid"),
                },
            ];
            row.extend(measured.iter().map(|measured| measured.value(analysis, &keep)));
            row.push(length(&keep));
            row.extend(scores(&keep)?);
            rows.push(row);
        }
    }
    let columns = measured.iter().map(|measured| measured.title);
    let columns = columns.chain(["Length"]).chain(shown.iter().map(|scorer| scorer.title.as_str()));
    let mut notes = vec![
        "Training loss: mean over the steps since the checkpoint before. Length: characters an answer to the benchmark."
            .to_owned(),
    ];
    if !measured.is_empty() {
        notes.push(
            "Held-out accuracy: share of pairs that were not trained on whose preferred response gained more over the \
             reference. KL: nats an answer from the reference, estimated from answers to held-out prompts."
                .to_owned(),
        );
    }
    if scorers.gold.is_some() {
        let further = analysis.recipe.sandbox.further_questions;
        notes.push(format!("Gold beyond: true quality on {further} further questions."));
    }
    notes.push(analysis.interval_note());
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
