//! Beside a table of scores: how long the answers are and how far the policies went, so that better is told from longer.

use std::collections::BTreeMap;

use report::table::{Align, Column, Table, Value};
use stats::{MeanEstimate, adjust};

use super::{DECIMALS, is_baseline, mean_value};
use crate::analysis::{Analysis, LEVEL, Scorer, Scorers};
use crate::cell::{Cell, Subject};
use crate::error::StudyError;
use crate::grid::Question;

/// Length, KL divergence and the score at equal length of every trained policy of a question, seeds taken together.
pub(crate) fn beside(analysis: &Analysis<'_>, question: Question) -> Result<Table, StudyError> {
    let scorers = Scorers::of(analysis.recipe);
    let shown = scorers.shown();
    let judge = &scorers.judge;
    let of_sft = by_question(analysis, judge, &is_baseline);
    let sft_length = analysis.mean_length(judge, &is_baseline);
    let mut rows = vec![vec![Value::text("SFT (baseline)")]];
    for scorer in &shown {
        rows[0].push(mean_value(analysis, scorer, &is_baseline)?);
    }
    rows[0].push(length(sft_length));
    rows[0].extend(["–"; 4].map(Value::text));
    for condition in conditions(analysis) {
        let keep = |subject: &Subject| is_condition(analysis, subject, &condition);
        let mut row = vec![Value::text(condition_name(analysis, &condition))];
        for scorer in &shown {
            row.push(mean_value(analysis, scorer, &keep)?);
        }
        let of_policy = analysis.mean_length(judge, &keep);
        row.push(length(of_policy));
        row.push(match of_policy.zip(sft_length) {
            Some((policy, sft)) if sft > 0.0 => Value::Number { value: policy / sft, decimals: DECIMALS },
            _ => Value::missing("no answers"),
        });
        row.push(match analysis.held_out(&keep, |metrics| metrics.kl) {
            Some(value) => Value::Number { value, decimals: DECIMALS },
            None => Value::missing("not measured"),
        });
        row.extend(differences(&by_question(analysis, judge, &keep), &of_sft)?);
        rows.push(row);
    }
    Ok(Table {
        id: format!("table-{}-length", question.tables()[0]),
        title: "Better, or longer: answer lengths and distance from the reference".into(),
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
            "Length: characters an answer to the benchmark. KL: nats an answer from the reference, estimated from answers to \
             held-out prompts."
                .to_owned(),
            "At equal length: where a straight line through the questions, score gained against characters gained over SFT, crosses \
             no characters gained; brackets are 95% t-intervals over questions. It is an adjustment and no experiment (what makes \
             answers longer may make them better too), and reaches beyond the data where hardly any answer kept its length."
                .to_owned(),
            analysis.interval_note(),
        ],
    })
}

/// The trained policies of a grid, seeds taken together, in its order.
fn conditions(analysis: &Analysis<'_>) -> Vec<Cell> {
    let mut conditions: Vec<Cell> = Vec::new();
    for evaluated in analysis.evaluated {
        if let Subject::Trained { cell, checkpoint } = &evaluated.subject
            && *checkpoint == analysis.last_checkpoint()
        {
            let condition = Cell { seed: 0, ..cell.clone() };
            if !conditions.contains(&condition) {
                conditions.push(condition);
            }
        }
    }
    conditions
}

fn is_condition(analysis: &Analysis<'_>, subject: &Subject, condition: &Cell) -> bool {
    match subject {
        Subject::Baseline { .. } => false,
        Subject::Trained { cell, checkpoint } => {
            *checkpoint == analysis.last_checkpoint()
                && *cell == Cell { seed: cell.seed, ..condition.clone() }
        }
    }
}

/// A condition in words; β where the study has several.
fn condition_name(analysis: &Analysis<'_>, condition: &Cell) -> String {
    match analysis.recipe.study.betas.as_slice() {
        [only] if *only == condition.beta => condition.data_and_epochs(),
        _ => format!("{}, β = {}", condition.data_and_epochs(), condition.beta.get()),
    }
}

/// Mean score and mean length of selected answers, by question.
fn by_question(
    analysis: &Analysis<'_>,
    scorer: &Scorer,
    keep: &dyn Fn(&Subject) -> bool,
) -> BTreeMap<u64, (f64, f64)> {
    let mut sums: BTreeMap<u64, (f64, f64, f64)> = BTreeMap::new();
    for (_, score) in analysis.scored(scorer, keep) {
        if let Some(value) = score.score {
            let (scores, characters, count) = sums.entry(score.question_id).or_default();
            *scores += value;
            *characters += score.characters as f64;
            *count += 1.0;
        }
    }
    sums.into_iter().map(|(id, (scores, characters, n))| (id, (scores / n, characters / n))).collect()
}

/// The mean difference over the questions that both answered, and what is left of it at equal length.
fn differences(
    policy: &BTreeMap<u64, (f64, f64)>,
    sft: &BTreeMap<u64, (f64, f64)>,
) -> Result<[Value; 2], StudyError> {
    let both = policy.iter().filter_map(|(id, policy)| Some((policy, sft.get(id)?)));
    let pairs: Vec<(f64, f64)> = both.map(|(policy, sft)| (policy.1 - sft.1, policy.0 - sft.0)).collect();
    if pairs.len() < 3 {
        let few = || Value::missing("fewer than three questions");
        return Ok([few(), few()]);
    }
    let failed = || StudyError::stats("differences at equal length");
    let gained: Vec<f64> = pairs.iter().map(|(_, score)| *score).collect();
    let all = MeanEstimate::of(&gained).map_err(failed())?;
    let adjusted = adjust(&pairs).map_err(failed())?;
    let show = |estimate: &MeanEstimate| -> Result<Value, StudyError> {
        let interval = estimate.interval(LEVEL).map_err(failed())?;
        let (low, high) = (interval.low, interval.high);
        Ok(Value::Difference { value: estimate.value, low, high, decimals: DECIMALS })
    };
    Ok([
        show(&all)?,
        match adjusted {
            Some(adjusted) => show(&adjusted.at_zero)?,
            None => Value::missing("all answers changed their length by as much"),
        },
    ])
}

fn length(characters: Option<f64>) -> Value {
    match characters {
        Some(value) => Value::Number { value, decimals: 1 },
        None => Value::missing("no answers"),
    }
}
