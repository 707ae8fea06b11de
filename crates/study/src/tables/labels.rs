//! How policies fit kept and flipped labels.

use experiment::{Fitted, Subject, loss_name, percent};
use report::table::{Align, Column, Table, Value};
use trainer::HeldOutMetrics;

use crate::error::StudyError;
use crate::levels::Levels;
use crate::results::Results;

/// Returns the accuracy on kept and flipped labels at every level of noise; `None` if no run recorded Δ.
pub(crate) fn labels(
    results: &Results<'_>,
    noise: &Levels<'_>,
    id: &str,
) -> Result<Option<Table>, StudyError> {
    if results.scores.labels(&|_| true).is_none() {
        return Ok(None);
    }
    let study = &results.recipe.study;
    let scorers = results.scorers();
    let shown = scorers.shown();
    let mut rows = Vec::new();
    for annotator in &study.annotators {
        for &loss in noise.losses {
            for (at, &rate) in noise.values.iter().enumerate() {
                let keep = |subject: &Subject| match subject {
                    Subject::Baseline { .. } => false,
                    Subject::Trained { cell, checkpoint } => {
                        *checkpoint == results.last_checkpoint()
                            && (cell.annotator == *annotator && cell.loss == loss)
                            && cell.flip_rate.get() == rate
                    }
                };
                let name = format!("{} on {annotator}", loss_name(loss));
                let mut row = vec![
                    Value::text(if at == 0 { name } else { String::new() }),
                    Value::text(format!("{}%", percent(rate))),
                ];
                row.extend(accuracies(results, &keep, rate));
                for scorer in &shown {
                    row.push(results.scores.mean_value(scorer, &keep)?);
                }
                rows.push(row);
            }
        }
    }
    Ok(Some(Table {
        id: id.to_owned(),
        title: "Fit to kept and flipped labels".into(),
        columns: [Column::new("Policy", Align::Left), Column::new("Flipped labels", Align::Left)]
            .into_iter()
            .chain(["kept", "flipped"].map(|which| Column::grouped("Fit to labels", which, Align::Right)))
            .chain(["As annotated", "Held-out accuracy"].map(|title| Column::new(title, Align::Right)))
            .chain(shown.iter().map(|scorer| Column::new(&scorer.title, Align::Right)))
            .collect(),
        rows,
        notes: vec![
            "Fit to labels: share of the trained pairs, by their last measurement, whose labeled response has the higher implicit \
             reward; a high share of flipped labels means that the policy learned the noise. As annotated: share of all trained \
             pairs that the policy prefers as the annotator did. Held-out accuracy: the same for held-out pairs, none of them \
             flipped. All pairs of all seeds count, so that there are no intervals."
                .to_owned(),
            results.scores.interval_note(),
        ],
    }))
}

/// Returns the accuracy on kept and flipped labels, before flips, and on held-out pairs.
fn accuracies(results: &Results<'_>, keep: &dyn Fn(&Subject) -> bool, rate: f64) -> [Value; 4] {
    let share = |accuracy: Option<f64>, reason: &str| match accuracy {
        Some(value) => Value::Percent { value, decimals: 1 },
        None => Value::missing(reason),
    };
    let labels = results.scores.labels(keep);
    let of = |fitted: Option<Fitted>| share(fitted.and_then(Fitted::accuracy), "not recorded");
    let flipped = match rate == 0.0 {
        true => Value::text("–"),
        false => of(labels.map(|labels| labels.flipped)),
    };
    let held_out = results.scores.held_out(keep, HeldOutMetrics::accuracy);
    [
        of(labels.map(|labels| labels.kept)),
        flipped,
        of(labels.map(|labels| labels.as_annotated())),
        share(held_out, "not measured"),
    ]
}
