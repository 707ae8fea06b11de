//! Controls of a table of scores: answer length and distance from the reference.

use std::collections::BTreeMap;

use experiment::{Cell, LEVEL, SCORE_DECIMALS, Scorer, Subject};
use report::table::{Align, Column, Table, Value};
use stats::adjust;

use super::is_baseline;
use crate::error::StudyError;
use crate::results::Results;

/// Returns length, KL divergence and score at equal length of every trained policy, seeds pooled.
pub(crate) fn controls(results: &Results<'_>, id: &str) -> Result<Table, StudyError> {
    let scorers = results.scorers();
    let shown = scorers.shown();
    let judge = &scorers.judge;
    let of_sft = by_question(results, judge, &is_baseline);
    let sft_length = results.scores.mean_length(judge, &is_baseline);
    let mut rows = vec![vec![Value::text("SFT (baseline)")]];
    for scorer in &shown {
        rows[0].push(results.scores.mean_value(scorer, &is_baseline)?);
    }
    rows[0].push(length(sft_length));
    rows[0].extend(["–"; 4].map(Value::text));
    for condition in conditions(results) {
        let keep = |subject: &Subject| is_condition(results, subject, &condition);
        let mut row = vec![Value::text(condition_name(results, &condition))];
        for scorer in &shown {
            row.push(results.scores.mean_value(scorer, &keep)?);
        }
        let of_policy = results.scores.mean_length(judge, &keep);
        row.push(length(of_policy));
        row.push(match of_policy.zip(sft_length) {
            Some((policy, sft)) if sft > 0.0 => {
                Value::Number { value: policy / sft, decimals: SCORE_DECIMALS }
            }
            _ => Value::missing("no answers"),
        });
        row.push(match results.scores.held_out(&keep, |metrics| metrics.kl) {
            Some(value) => Value::Number { value, decimals: SCORE_DECIMALS },
            None => Value::missing("not measured"),
        });
        row.push(results.scores.difference_value(judge, &keep, &is_baseline)?);
        row.push(at_equal_length(&by_question(results, judge, &keep), &of_sft)?);
        rows.push(row);
    }
    Ok(Table {
        id: id.to_owned(),
        title: "Controls: answer length and distance from the reference".into(),
        columns: [Column::new("Policy", Align::Left)]
            .into_iter()
            .chain(shown.iter().map(|scorer| Column::new(&scorer.title, Align::Right)))
            .chain(["Length", "÷ SFT’s", "KL"].map(|title| Column::new(title, Align::Right)))
            .chain(["all", "at equal length"].map(|which| {
                Column::grouped("Judge: difference from SFT", which, Align::Right)
            }))
            .collect(),
        rows,
        notes: vec![
            "Length: characters per answer to the benchmark. KL: divergence from the reference in nats per answer, estimated \
             from answers to held-out prompts."
                .to_owned(),
            "At equal length: intercept of a linear regression over questions of score gained on characters gained over SFT, \
             with 95% t-intervals over questions, for these policies. It is an adjustment, not an experiment: longer answers may \
             also be better. It extrapolates if few answers keep their length."
                .to_owned(),
            results.scores.interval_note(),
            results.scores.difference_note(),
        ],
    })
}

/// Returns the trained policies of a grid, seeds pooled, in its order.
fn conditions(results: &Results<'_>) -> Vec<Cell> {
    let mut conditions: Vec<Cell> = Vec::new();
    for evaluated in results.scores.evaluated {
        if let Subject::Trained { cell, checkpoint } = &evaluated.subject
            && *checkpoint == results.last_checkpoint()
        {
            let condition = Cell { seed: 0, ..cell.clone() };
            if !conditions.contains(&condition) {
                conditions.push(condition);
            }
        }
    }
    conditions
}

fn is_condition(results: &Results<'_>, subject: &Subject, condition: &Cell) -> bool {
    match subject {
        Subject::Baseline { .. } => false,
        Subject::Trained { cell, checkpoint } => {
            *checkpoint == results.last_checkpoint() && *cell == Cell { seed: cell.seed, ..condition.clone() }
        }
    }
}

/// Returns the name of a condition, with β if the study has several.
fn condition_name(results: &Results<'_>, condition: &Cell) -> String {
    match results.recipe.study.betas_of(condition.loss) {
        [only] if *only == condition.beta => condition.data_and_epochs(),
        _ => format!("{}, β = {}", condition.data_and_epochs(), condition.beta.get()),
    }
}

/// Returns mean score and mean length of the selected answers, by question.
fn by_question(
    results: &Results<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> BTreeMap<u64, (f64, f64)> {
    let mut sums: BTreeMap<u64, (f64, f64, f64)> = BTreeMap::new();
    for (_, score) in results.scores.scored(scorer, keep) {
        if let Some(value) = score.score {
            let (scores, characters, count) = sums.entry(score.question_id).or_default();
            *scores += value;
            *characters += score.characters as f64;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(id, (scores, characters, n))| (id, (scores / n, characters / n))).collect()
}

/// Returns the difference at equal length over the common questions.
fn at_equal_length(
    policy: &BTreeMap<u64, (f64, f64)>,
    sft: &BTreeMap<u64, (f64, f64)>,
) -> Result<Value, StudyError> {
    let both = policy.iter().filter_map(|(id, policy)| Some((policy, sft.get(id)?)));
    let pairs: Vec<(f64, f64)> = both.map(|(policy, sft)| (policy.1 - sft.1, policy.0 - sft.0)).collect();
    if pairs.len() < 3 {
        return Ok(Value::missing("fewer than three questions"));
    }
    let failed = || StudyError::stats("differences at equal length");
    let Some(adjusted) = adjust(&pairs).map_err(failed())? else {
        return Ok(Value::missing("all answers changed their length equally"));
    };
    let interval = adjusted.at_zero.interval(LEVEL).map_err(failed())?;
    let (value, low, high) = (adjusted.at_zero.value, interval.low, interval.high);
    Ok(Value::Difference { value, low, high, decimals: SCORE_DECIMALS })
}

fn length(characters: Option<f64>) -> Value {
    match characters {
        Some(value) => Value::Number { value, decimals: 1 },
        None => Value::missing("no answers"),
    }
}
