//! Two annotators' labels, alone, mixed, and where they agree or differ.

use report::table::{Align, Column, Table, Value};

use super::{difference_value, is_baseline, mean_value};
use crate::analysis::{Analysis, Scorers};
use crate::cell::{Subject, loss_name, slice_name};
use crate::error::StudyError;
use crate::grid::{Labels, Question};

/// Scores of the policies trained on each, beside the number of pairs; `None` where there are no two annotators.
pub(crate) fn mixed(analysis: &Analysis<'_>) -> Result<Option<Table>, StudyError> {
    let study = &analysis.recipe.study;
    let all = Labels::of(study);
    if all.is_empty() {
        return Ok(None);
    }
    let scorers = Scorers::of(analysis.recipe);
    let shown = scorers.shown();
    let mut rows = Vec::new();
    for &loss in Question::MixedLabels.losses(study) {
        for (at, labels) in all.iter().enumerate() {
            let keep = |subject: &Subject| match subject {
                Subject::Baseline { .. } => false,
                Subject::Trained { cell, checkpoint } => {
                    *checkpoint == analysis.last_checkpoint() && cell.loss == loss && labels.are_of(cell)
                }
            };
            let records = match &labels.slice {
                Some(slice) => slice_name(slice),
                None => "all".to_owned(),
            };
            let mut row = vec![Value::text(if at == 0 { loss_name(loss) } else { "" })];
            row.extend([Value::text(&labels.source), Value::text(records)]);
            row.push(match analysis.labels(&keep) {
                Some(trained) => {
                    let pairs = trained.as_annotated().pairs as f64;
                    Value::Number {
                        value: pairs / (study.seeds * study.betas.len() as u64) as f64,
                        decimals: 0,
                    }
                }
                None => Value::missing("not recorded"),
            });
            for scorer in &shown {
                row.push(mean_value(analysis, scorer, &keep)?);
            }
            row.push(difference_value(analysis, &scorers.judge, &keep, &is_baseline)?);
            rows.push(row);
        }
    }
    Ok(Some(Table {
        id: "table-mixed".into(),
        title: "Scores by whose labels, mixed and where two annotators agree".into(),
        columns: ["Loss", "Labels of", "Records"]
            .map(|title| Column::new(title, Align::Left))
            .into_iter()
            .chain([Column::new("Pairs", Align::Right)])
            .chain(shown.iter().map(|scorer| Column::new(&scorer.title, Align::Right)))
            .chain([Column::new("Judge: difference from SFT", Align::Right)])
            .collect(),
        rows,
        notes: vec![
            "Pairs: trained on in a replicate, on the mean. A slice has fewer of them, and at equal epochs makes fewer steps: what it              gains it gains in spite of that."
                .to_owned(),
            analysis.interval_note(),
        ],
    }))
}
