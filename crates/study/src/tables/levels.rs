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
    let reference = levels.reference();
    let mut columns =
        vec![Column::new("Scorer", Align::Left), Column::new(levels.axis.heading(), Align::Left)];
    let mut slices = Vec::new();
    for annotator in &results.recipe.study.annotators {
        for &loss in levels.losses {
            columns.push(Column::grouped(annotator, loss_name(loss), Align::Right));
            columns.extend(reference.map(|level| {
                let heading = format!("{} − {}%", loss_name(loss), percent(level));
                Column::grouped(annotator, heading, Align::Right)
            }));
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
                let Some(level) = reference else { continue };
                let at_reference =
                    |subject: &Subject| levels.axis.is_at(subject, level, last) && slice(subject);
                cells.push(match k {
                    0 => Value::missing("no share of the pairs"),
                    _ if levels.values[k - 1] == level => {
                        Value::missing("the level that the others are compared with")
                    }
                    _ => results.scores.difference_value(scorer, &keep, &at_reference)?,
                });
            }
            body.push(cells);
        }
    }
    let mut notes = vec![results.scores.interval_note()];
    if let Some(level) = reference {
        let level = percent(level);
        notes.push(format!(
            "Columns with − {level}% are paired differences from {level}% of the pairs: the same questions and seeds. Read these, \
             since two scores with overlapping intervals may differ."
        ));
    }
    notes.push(text.note);
    notes.extend(evidence::assay_note(results, levels.losses)?);
    Ok(Table { id: text.id.into(), title: text.title.into(), columns, rows: body, notes })
}
