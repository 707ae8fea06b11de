//! Rows of this crate's own records.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Row, context, fault, id, label, required, text, wrong_type};
use super::pairs::format_of;
use crate::error::DataError;
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::{Label, PreferenceRecord};

const FIELDS: [&str; 8] =
    ["id", "prompt", "responses", "labels", "domain", "tools", "chat_template_kwargs", "documents"];

pub(super) fn record(place: &Place, row: &Row) -> Result<PreferenceRecord, DataError> {
    if let Some(unknown) = row.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        let columns: Vec<String> = row.keys().cloned().collect();
        let has_pairs = row.contains_key("chosen") && row.contains_key("rejected");
        let others = || format_of(&columns).filter(|format| *format != "sandbox");
        let format = if has_pairs { Some("pairs") } else { others() };
        return Err(fault(place, unknown, FieldProblem::Unknown { format }));
    }
    required(place, row, "id")?;
    let responses = match required(place, row, "responses")? {
        Value::Array(items) => items,
        other => return Err(wrong_type(place, "responses", "a list of responses", other)),
    };
    let responses = responses.iter().enumerate();
    let responses = responses.map(|(index, item)| text(place, &format!("responses[{index}]"), item));
    Ok(PreferenceRecord {
        id: id(place, row),
        prompt: text(place, "prompt", required(place, row, "prompt")?)?,
        responses: responses.collect::<Result<_, _>>()?,
        labels: labels(place, required(place, row, "labels")?)?,
        domain: label(row, "domain"),
        context: context(row),
    })
}

fn labels(place: &Place, value: &Value) -> Result<BTreeMap<String, Label>, DataError> {
    let Value::Object(labels) = value else {
        return Err(wrong_type(place, "labels", "an object of annotators and their labels", value));
    };
    let label = |(annotator, value): (&String, &Value)| {
        let label = serde_json::from_value(value.clone()).map_err(|_| {
            let expected = "the index of the preferred response, or \"tie\"";
            wrong_type(place, &format!("labels.{annotator}"), expected, value)
        });
        Ok((annotator.clone(), label?))
    };
    labels.iter().map(label).collect()
}
