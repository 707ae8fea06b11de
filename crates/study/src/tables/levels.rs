//! Scores at the levels of a property, as in Tables 3 and 4.

use experiment::{Subject, loss_name, percent};
use report::table::{Align, Column, Table, Value};

use super::{Slice, is_baseline};
use crate::error::StudyError;
use crate::evidence;
use crate::levels::Levels;
use crate::results::Results;

/// The texts of a table.
pub(crate) struct TableText {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) note: String,
}

/// Returns scores at each level, for each annotator and loss.
pub(crate) fn by_level(
    results: &Results<'_>,
    levels: &Levels<'_>,
    text: TableText,
) -> Result<Table, StudyError> {
    let scorers = results.scorers();
    let mut columns =
        vec![Column::new("Scorer", Align::Left), Column::new(levels.axis.heading(), Align::Left)];
    let mut slices = Vec::new();
    for annotator in &results.recipe.study.annotators {
        for &loss in levels.losses {
            columns.push(Column::grouped(annotator, loss_name(loss), Align::Right));
            slices.push(move |subject: &Subject| match subject {
                Subject::Baseline { .. } => true,
                Subject::Trained { cell, .. } => cell.annotator == *annotator && cell.loss == loss,
            });
        }
    }
    let last = results.last_checkpoint();
    let at_level = |&level: &f64| {
        Slice::new(format!("{}%", percent(level)), move |subject: &Subject| {
            levels.axis.is_at(subject, level, last)
        })
    };
    let baseline = Slice::new("SFT (baseline)", is_baseline);
    let rows: Vec<Slice<'_>> = [baseline].into_iter().chain(levels.values.iter().map(at_level)).collect();
    let mut body = Vec::new();
    for scorer in scorers.shown() {
        for (k, row) in rows.iter().enumerate() {
            let label = if k == 0 { scorer.label.as_str() } else { "" };
            let mut cells = vec![Value::text(label), Value::text(&row.label)];
            for slice in &slices {
                let keep = |subject: &Subject| (row.keep)(subject) && slice(subject);
                cells.push(results.scores.mean_value(scorer, &keep)?);
            }
            body.push(cells);
        }
    }
    let mut notes = vec![results.scores.interval_note(), text.note];
    notes.extend(evidence::assay_note(results, levels.losses)?);
    Ok(Table { id: text.id.into(), title: text.title.into(), columns, rows: body, notes })
}
