//! Data frames of inspect_ai's `samples_df`, written as CSV, JSON or parquet.

use serde_json::{Map, Value};

use super::{Context, Found, required, score, text};
use crate::place::Row;

pub(super) fn scores(row: &Row, context: &Context<'_>) -> Result<Vec<Found>, String> {
    let arm = match text(row, "model").or_else(|| used_model(row)) {
        Some(model) => model,
        None if context.has_arm => String::new(),
        None => {
            return Err(
                "has no model: write the frame as `samples_df(logs, columns=EvalModel + SampleSummary)`, \
                        or name the arm as ARM=FILE"
                    .to_owned(),
            );
        }
    };
    let id = required(row, "id")?;
    let task = ["task_name", "task_display_name"].into_iter().find_map(|column| text(row, column));
    let has_failed = text(row, "error").is_some();
    let mut found = Vec::new();
    for (column, scorer) in row.keys().filter_map(|key| Some((key, key.strip_prefix("score_")?))) {
        let score = match row.get(column) {
            _ if has_failed => None,
            Some(Value::String(text)) => {
                grade(text.trim()).map_or_else(|| score(row, column), |grade| Ok(Some(grade)))?
            }
            // Scorers that return several values have one column each, with objects here.
            Some(Value::Object(_) | Value::Array(_)) => continue,
            _ => score(row, column)?,
        };
        found.push(Found {
            arm: arm.clone(),
            question: task.as_ref().map_or_else(|| id.clone(), |task| format!("{task}/{id}")),
            sample: Some(required(row, "epoch")?),
            scorer: Some(scorer.to_owned()),
            category: text(row, "metadata_category"),
            score,
            ..Found::default()
        });
    }
    if found.is_empty() {
        return Err("no column `score_NAME` has scores".to_owned());
    }
    Ok(found)
}

/// Returns the value of a grade, as inspect_ai's `value_to_float`: correct, partial, incorrect, no answer.
fn grade(text: &str) -> Option<f64> {
    Some(match text {
        "C" => 1.0,
        "P" => 0.5,
        "I" | "N" => 0.0,
        _ => match text.to_lowercase().as_str() {
            "yes" | "true" => 1.0,
            "no" | "false" => 0.0,
            _ => return None,
        },
    })
}

/// Returns the model of a frame without the column `model`: the only one whose use it records.
fn used_model(row: &Row) -> Option<String> {
    let usage: Map<String, Value> = match row.get("model_usage")? {
        Value::String(text) => serde_json::from_str(text).ok()?,
        Value::Object(usage) => usage.clone(),
        _ => return None,
    };
    let mut models = usage.keys();
    models.next().filter(|_| models.next().is_none()).cloned()
}
