//! lm-evaluation-harness's `--log_samples`: one file a task, in a folder with the model's name.

use serde_json::Value;

use super::{Context, Found, required, score, text};
use crate::place::Row;

/// Columns that are no metrics. Files of older versions do not list their metrics.
const OTHERS: [&str; 12] = [
    "doc_id",
    "doc",
    "target",
    "arguments",
    "resps",
    "filtered_resps",
    "filter",
    "metrics",
    "doc_hash",
    "prompt_hash",
    "target_hash",
    "schema_version",
];

pub(super) fn scores(row: &Row, context: &Context<'_>) -> Result<Vec<Found>, String> {
    let folder = context.path.parent().and_then(|folder| folder.file_name());
    let arm = folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if arm.is_empty() && !context.has_arm {
        return Err(
            "the model is the name of the file's folder, and there is none: write ARM=FILE".to_owned()
        );
    }
    let name = context.path.file_name().unwrap_or_default().to_string_lossy();
    let task = task(&name).to_owned();
    let filter = text(row, "filter").filter(|filter| filter != "none");
    let listed = row.get("metrics").and_then(Value::as_array);
    let metrics: Vec<&str> = match listed {
        Some(metrics) => metrics.iter().filter_map(Value::as_str).collect(),
        None => row.keys().map(String::as_str).filter(|key| !OTHERS.contains(key)).collect(),
    };
    let mut found = Vec::new();
    for metric in metrics {
        // Metrics over a whole corpus have lists in place of scores.
        if matches!(row.get(metric), None | Some(Value::Array(_) | Value::Object(_))) {
            continue;
        }
        found.push(Found {
            arm: arm.clone(),
            question: format!("{task}/{}", required(row, "doc_id")?),
            scorer: Some(match &filter {
                Some(filter) => format!("{metric},{filter}"),
                None => metric.to_owned(),
            }),
            category: Some(task.clone()),
            score: score(row, metric)?,
            fingerprint: text(row, "doc_hash"),
            ..Found::default()
        });
    }
    if found.is_empty() {
        return Err("no metric has a score for each sample".to_owned());
    }
    Ok(found)
}

/// Returns the task of `samples_TASK_DATE.jsonl`; the date is `2026-01-31T12-00-00.000000`.
fn task(name: &str) -> &str {
    let stem = name.strip_suffix(".jsonl").unwrap_or(name);
    let stem = stem.strip_prefix("samples_").unwrap_or(stem);
    match stem.rsplit_once('_') {
        Some((task, date)) if date.starts_with(|c: char| c.is_ascii_digit()) && date.contains('T') => task,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::task;

    #[test]
    fn the_task_is_in_the_name_of_the_file() {
        assert_eq!(task("samples_gsm8k_cot_2026-11-30T04-29-44.607616.jsonl"), "gsm8k_cot");
        assert_eq!(task("samples_mmlu_law.jsonl"), "mmlu_law");
    }
}
