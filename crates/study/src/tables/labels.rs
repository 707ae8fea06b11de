//! Beside Table 4: which labels the policies learned, which is why their scores fall under noise.

use pref_data::FlipRate;
use report::table::{Align, Column, Table, Value};

use super::mean_value;
use crate::analysis::{Analysis, Scorers};
use crate::cell::{Subject, loss_name, percent};
use crate::error::StudyError;
use crate::fitted::Fitted;
use crate::grid::Question;

/// Accuracy on kept and on flipped labels at every share of flipped labels; `None` where no run kept its pairs' Δ.
pub(crate) fn labels(analysis: &Analysis<'_>, question: Question) -> Result<Option<Table>, StudyError> {
    if analysis.labels(&|_| true).is_none() {
        return Ok(None);
    }
    let study = &analysis.recipe.study;
    let scorers = Scorers::of(analysis.recipe);
    let shown = scorers.shown();
    let mut rows = Vec::new();
    for annotator in &study.annotators {
        for &loss in question.losses(study) {
            for (at, rate) in question.flip_rates(study).into_iter().enumerate() {
                let keep = |subject: &Subject| match subject {
                    Subject::Baseline { .. } => false,
                    Subject::Trained { cell, checkpoint } => {
                        *checkpoint == analysis.last_checkpoint()
                            && (cell.annotator == *annotator && cell.loss == loss)
                            && cell.flip_rate == rate
                    }
                };
                let name = format!("{} on {annotator}", loss_name(loss));
                let mut row = vec![
                    Value::text(if at == 0 { name } else { String::new() }),
                    Value::text(format!("{}%", percent(rate.get()))),
                ];
                row.extend(accuracies(analysis, &keep, rate));
                for scorer in &shown {
                    row.push(mean_value(analysis, scorer, &keep)?);
                }
                rows.push(row);
            }
        }
    }
    Ok(Some(Table {
        id: if question == Question::Quality { "table-4-labels" } else { "table-robust-labels" }.into(),
        title: "Which labels the policies learned".into(),
        columns: [Column::new("Policy", Align::Left), Column::new("Flipped labels", Align::Left)]
            .into_iter()
            .chain(["kept", "flipped"].map(|which| Column::grouped("Learned as labelled", which, Align::Right)))
            .chain(["As annotated", "Held-out accuracy"].map(|title| Column::new(title, Align::Right)))
            .chain(shown.iter().map(|scorer| Column::new(&scorer.title, Align::Right)))
            .collect(),
        rows,
        notes: vec![
            "Learned as labelled: of the pairs that a policy was trained on, each as it was found the last time, the share \
             whose labelled response has the higher implicit reward; apart for labels that were kept and for those that noise \
             flipped, where a high share means that the noise was learned. As annotated: of all these pairs, the share that the \
             policy prefers as the annotator did. No sample, but all pairs of all seeds: no intervals. Held-out accuracy: the \
             same of pairs that were not trained on, none of them flipped."
                .to_owned(),
            analysis.interval_note(),
        ],
    }))
}

/// The columns that tell kept labels from flipped ones, and accuracy on pairs that were not trained on.
fn accuracies(analysis: &Analysis<'_>, keep: &dyn Fn(&Subject) -> bool, rate: FlipRate) -> [Value; 4] {
    let share = |accuracy: Option<f64>, reason: &str| match accuracy {
        Some(value) => Value::Percent { value, decimals: 1 },
        None => Value::missing(reason),
    };
    let labels = analysis.labels(keep);
    let of = |fitted: Option<Fitted>| share(fitted.and_then(Fitted::accuracy), "not recorded");
    let flipped = match rate == FlipRate::NONE {
        true => Value::text("–"),
        false => of(labels.map(|labels| labels.flipped)),
    };
    let held_out = analysis.held_out(keep, |metrics| Some(metrics.accuracy));
    [
        of(labels.map(|labels| labels.kept)),
        flipped,
        of(labels.map(|labels| labels.as_annotated())),
        share(held_out, "not measured"),
    ]
}
