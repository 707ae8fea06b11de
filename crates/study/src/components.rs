//! Variance components of a study: training, sampling of answers, judge.

use experiment::{Pools, Scorers, Setup};
use report::table::{Align, Column, Table, Value};
use stats::MeanSquare;

use crate::error::StudyError;

/// Standard errors in half of a 95% interval.
const Z: f64 = 1.96;
const DECIMALS: usize = 3;

/// Returns the components of each scorer and group of policies; `None` with one seed.
pub(crate) fn components(setup: &Setup, pools: &Pools<'_>) -> Result<Option<Table>, StudyError> {
    let mut rows = Vec::new();
    for scorer in Scorers::of(setup).all() {
        let Some(pool) = pools.of(scorer)?.filter(|pool| pool.has_seeds()) else { continue };
        for (at, variance) in pool.study().seed_variances().iter().enumerate() {
            let group = format!("{} ({})", pool.group(variance).name(), variance.cells);
            let mut row = |name: &str, value: f64, error: f64| {
                let [low, high] = [-Z, Z].map(|z| value + z * error);
                let is_first = name == TRAINING;
                rows.push(vec![
                    Value::text(if at == 0 && is_first { scorer.label.as_str() } else { "" }),
                    Value::text(if is_first { group.as_str() } else { "" }),
                    Value::text(name),
                    Value::Interval { value, low, high, decimals: DECIMALS },
                    Value::Number { value: value.max(0.0).sqrt(), decimals: 2 },
                ]);
            };
            row(TRAINING, variance.value, variance.standard_error);
            let error = |square: &MeanSquare| square.value * (2.0 / square.degrees_of_freedom).sqrt();
            match &variance.repeats {
                Some(repeats) if repeats.degrees_of_freedom > 0.0 => {
                    row("sampling of an answer, with its judge", repeats.value, error(repeats));
                }
                _ => row("an answer: sampling and judge", variance.answers.value, error(&variance.answers)),
            }
        }
        if let Some(judge) = pool.judge_variance() {
            let error = Z * judge.value * (2.0 / judge.degrees_of_freedom).sqrt();
            rows.push(vec![
                Value::text(""),
                Value::text("all"),
                Value::text("judge: one of several ratings of a turn"),
                Value::Interval {
                    value: judge.value,
                    low: judge.value - error,
                    high: judge.value + error,
                    decimals: DECIMALS,
                },
                Value::Number { value: judge.value.sqrt(), decimals: 2 },
            ]);
        }
    }
    Ok((!rows.is_empty()).then(|| Table {
        id: "components".into(),
        title: "Variance components".into(),
        columns: ["Scorer", "Policies", "Source"]
            .map(|title| Column::new(title, Align::Left))
            .into_iter()
            .chain(["Variance", "S.d., points"].map(|title| Column::new(title, Align::Right)))
            .collect(),
        rows,
        notes: vec![
            "Variances in squared points, without the effect that a seed has on all policies, which cancels in differences. Training: \
             of a policy's mean between seeds. An answer: of one seed's answers to one question, turns averaged. Brackets: 95% \
             intervals; a variance below 0 is an estimate of a small one."
                .to_owned(),
        ],
    }))
}

const TRAINING: &str = "training";
