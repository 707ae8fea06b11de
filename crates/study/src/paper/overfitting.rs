//! Table 5: falling scores under a falling loss, and their significance.

use report::table::{Align, Column, Table, Value};
use stats::MeanEstimate;

use super::{Error, PaperTable};

/// Questions of MT-Bench.
const QUESTIONS: f64 = 80.0;

/// The checkpoints of a policy.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoints {
    pub(crate) name: String,
    pub(crate) losses: Vec<f64>,
    pub(crate) scores: Vec<f64>,
}

impl Checkpoints {
    /// Returns the highest score minus the last one.
    pub(crate) fn drop(&self) -> f64 {
        let peak = self.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        peak - self.scores.last().copied().unwrap_or(peak)
    }

    /// Returns whether the training loss falls at every checkpoint.
    pub(crate) fn loss_falls(&self) -> bool {
        self.losses.windows(2).all(|pair| pair[1] < pair[0])
    }
}

pub(crate) fn checkpoints(table: &PaperTable) -> Result<Vec<Checkpoints>, Error> {
    let names = table.columns.iter().filter_map(|column| column.strip_suffix(", Training Loss"));
    names
        .map(|name| {
            Ok(Checkpoints {
                name: name.replace("Loss = ", ""),
                losses: table.column(&format!("{name}, Training Loss"))?,
                scores: table.column(&format!("{name}, MT Bench Score"))?,
            })
        })
        .collect()
}

/// Returns the standard deviation of differences by question below which a mean difference over 80 questions is
/// significant at 5%. The paper does not print it.
pub(crate) fn largest_deviation(difference: f64) -> Result<f64, Error> {
    let unit = MeanEstimate { value: 0.0, standard_error: 1.0, degrees_of_freedom: QUESTIONS - 1.0 };
    Ok(difference.abs() * QUESTIONS.sqrt() / unit.interval(0.95)?.high)
}

pub(crate) fn table(all: &[Checkpoints]) -> Result<Table, Error> {
    let rows = all.iter().map(|of| {
        let first = of.losses.first().copied().unwrap_or_default();
        let last = of.losses.last().copied().unwrap_or_default();
        let deviation = if of.drop() > 0.0 {
            Value::Number { value: largest_deviation(of.drop())?, decimals: 2 }
        } else {
            Value::text("–")
        };
        Ok(vec![
            Value::text(&of.name),
            Value::text(format!("{first} → {last}")),
            Value::Number { value: of.drop(), decimals: 3 },
            deviation,
        ])
    });
    Ok(Table {
        id: "overfitting".to_owned(),
        title: "Peak minus final score while the training loss falls (Table 5)".to_owned(),
        columns: vec![
            Column::new("Policy", Align::Left),
            Column::new("Training loss", Align::Right),
            Column::new("Peak − final", Align::Right),
            Column::new("Significant below s.d.", Align::Right),
        ],
        rows: rows.collect::<Result<_, Error>>()?,
        notes: vec![
            "Last column: the drop is significant at 5% only if the differences between the two checkpoints, by question, \
             have a standard deviation below this value."
                .to_owned(),
            "The value ignores that the peak was selected among four.".to_owned(),
        ],
    })
}
