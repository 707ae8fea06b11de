//! Tables 3 and 4: scores along one axis of the data.

use report::table::{Align, Column, Table, Value};

use super::{Slice, is_baseline, mean_value};
use crate::analysis::{Analysis, Scorers};
use crate::cell::{Cell, Subject, loss_name, percent};
use crate::error::StudyError;
use crate::grid::Question;

/// Scores along the volume of preferences or the share of flipped labels, for each annotator and loss.
pub(crate) fn along(analysis: &Analysis<'_>, question: Question) -> Result<Table, StudyError> {
    let study = &analysis.recipe.study;
    let axis = Axis::of(analysis, question);
    let scorers = Scorers::of(analysis.recipe);
    let mut columns = vec![Column::new("Scorer", Align::Left), Column::new(axis.header, Align::Left)];
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
    for scorer in scorers.shown() {
        for (k, row) in axis.levels.iter().enumerate() {
            let label = if k == 0 { scorer.label.as_str() } else { "" };
            let mut cells = vec![Value::text(label), Value::text(&row.label)];
            for slice in &slices {
                let keep = |subject: &Subject| (row.keep)(subject) && slice(subject);
                cells.push(mean_value(analysis, scorer, &keep)?);
            }
            body.push(cells);
        }
    }
    let notes = vec![analysis.interval_note(), axis.note];
    Ok(Table { id: axis.id.into(), title: axis.title.into(), columns, rows: body, notes })
}

/// What a table runs along.
struct Axis<'a> {
    id: &'static str,
    title: &'static str,
    header: &'static str,
    /// The baseline first.
    levels: Vec<Slice<'a>>,
    note: String,
}

impl<'a> Axis<'a> {
    fn of(analysis: &Analysis<'a>, question: Question) -> Self {
        let study = &analysis.recipe.study;
        let last = analysis.last_checkpoint();
        let level = |value: f64, keep: Box<dyn Fn(&Cell) -> bool>| {
            Slice::new(format!("{}%", percent(value)), move |subject: &Subject| match subject {
                Subject::Trained { cell, checkpoint } => *checkpoint == last && keep(cell),
                Subject::Baseline { .. } => false,
            })
        };
        let baseline = Slice::new("SFT (baseline)", is_baseline);
        let runs_along_noise = question.runs_along_noise();
        let levels = match runs_along_noise {
            true => {
                let rates = question.flip_rates(study).into_iter();
                rates.map(|rate| level(rate.get(), Box::new(move |cell| cell.flip_rate == rate))).collect()
            }
            false => {
                let shares = question.fractions(study).into_iter();
                shares
                    .map(|share| level(share.get(), Box::new(move |cell| cell.fraction == share)))
                    .collect::<Vec<_>>()
            }
        };
        let smoothing = analysis.recipe.loss.label_smoothing.get();
        let (id, title, note) = match question {
            Question::Quality => (
                "table-4",
                "Scores under flipped labels",
                format!("cDPO's label smoothing is {smoothing} throughout, whatever the share of flipped labels."),
            ),
            Question::RobustLosses => (
                "table-robust",
                "Scores under flipped labels, with losses made for them",
                format!(
                    "cDPO and robust DPO take {smoothing} of the labels to be wrong, whatever the share that is. Robust DPO's \
                     loss is unbiased where the two agree; cDPO's is not. KTO looks at each response by itself and gives up those that lie \
                     far on the wrong side."
                ),
            ),
            Question::EqualSteps => (
                "table-steps",
                "Scores by volume of preferences, at equal optimiser steps",
                "Smaller shares are gone through more often, so that all policies make as many steps: what differs is how many \
                 different pairs they see, which Table 3 confounds with the number of steps."
                    .to_owned(),
            ),
            _ => (
                "table-3",
                "Scores by volume of preferences",
                "At equal epochs a smaller share also means fewer optimiser steps: the two are confounded here.".to_owned(),
            ),
        };
        Self {
            id,
            title,
            header: if runs_along_noise { "Flipped labels" } else { "Share of pairs" },
            levels: [baseline].into_iter().chain(levels).collect(),
            note,
        }
    }
}
