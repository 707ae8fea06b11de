//! The models that wrote the responses, from columns that the reader of preferences leaves aside.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use pref_data::Unit;
use serde_json::Value;

use crate::dataset::Dataset;

/// Columns of the models of the chosen and of the rejected response.
const COLUMNS: [[&str; 2]; 4] = [
    ["chosen_model", "rejected_model"],
    ["chosen-model", "rejected-model"],
    ["chosen_source", "rejected_source"],
    ["model_chosen", "model_rejected"],
];

/// Returns the models of the chosen and of the rejected response of each pair; none where the file does not name them.
///
/// JSON Lines are read, with columns of pairs or with the `completions` of UltraFeedback.
pub(crate) fn find(data: &Dataset) -> Vec<Option<[String; 2]>> {
    let lines = models_by_line(data).unwrap_or_default();
    let of_pair = |pair: usize| {
        let labeled = data.pairs[pair];
        let place = data.report.places.of(&data.records[labeled.record].id)?;
        let models = lines.get(&place.number).filter(|_| place.unit == Unit::Line)?;
        Some(
            [labeled.chosen, labeled.rejected]
                .map(|response| models.get(response).cloned().unwrap_or_default()),
        )
    };
    (0..data.pairs.len()).map(of_pair).collect()
}

/// Returns the models of all responses by line; `None` for a file that is not plain JSON Lines.
fn models_by_line(data: &Dataset) -> Option<BTreeMap<usize, Vec<String>>> {
    let extension = data.path.extension()?.to_str()?;
    if !matches!(extension, "jsonl" | "ndjson" | "json") {
        return None;
    }
    let mut models = BTreeMap::new();
    for (number, line) in (1..).zip(BufReader::new(File::open(&data.path).ok()?).lines()) {
        // Most lines of most files name no model: these are not parsed.
        let line = line.ok()?;
        if line.contains("model") || line.contains("source") {
            let row: Value = serde_json::from_str(&line).unwrap_or_default();
            models.extend(models_of(&row).map(|models| (number, models)));
        }
    }
    Some(models)
}

fn models_of(row: &Value) -> Option<Vec<String>> {
    let text = |value: Option<&Value>| Some(value?.as_str()?.to_owned());
    if let Some(completions) = row.get("completions").and_then(Value::as_array) {
        return completions.iter().map(|completion| text(completion.get("model"))).collect();
    }
    COLUMNS.iter().find_map(|names| names.iter().map(|name| text(row.get(name))).collect())
}
