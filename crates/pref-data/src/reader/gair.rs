//! Rows of GAIR's preference-dissection: one question, two answers, the labels of 33 annotators.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Row, fault, id, label, object, optional, required, string};
use crate::error::DataError;
use crate::message::{Message, TemplateContext};
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::{Label, PreferenceRecord, Text};

pub(super) const COLUMNS: [&str; 6] =
    ["id", "query", "scenario_auto-j", "response_1", "response_2", "preference_labels"];

/// The labels, in the order of the responses.
const RESPONSES: [&str; 2] = ["response_1", "response_2"];

pub(super) fn record(place: &Place, row: &Row) -> Result<PreferenceRecord, DataError> {
    let query = string(place, "query", required(place, row, "query")?)?;
    let response = |name: &str| {
        let response = object(place, name, required(place, row, name)?)?;
        let field = format!("{name}.content");
        match optional(response, "content") {
            Some(content) => {
                let content = string(place, &field, content)?;
                if content.is_empty() {
                    return Err(fault(place, field, FieldProblem::Empty));
                }
                Ok(Text::Chat(vec![Message::assistant(content)]))
            }
            None => Err(fault(place, field, FieldProblem::Missing)),
        }
    };
    Ok(PreferenceRecord {
        id: id(place, row),
        prompt: Text::Chat(vec![Message::user(query)]),
        responses: RESPONSES.into_iter().map(response).collect::<Result<_, _>>()?,
        labels: labels(place, required(place, row, "preference_labels")?)?,
        domain: label(row, "scenario_auto-j"),
        context: TemplateContext::default(),
    })
}

/// Returns each annotator's label; null is no label.
fn labels(place: &Place, value: &Value) -> Result<BTreeMap<String, Label>, DataError> {
    let given = object(place, "preference_labels", value)?;
    let given = given.iter().filter(|(_, label)| !label.is_null());
    let label = |(annotator, value): (&String, &Value)| {
        let field = format!("preference_labels.{annotator}");
        let text = string(place, &field, value)?;
        match RESPONSES.iter().position(|name| *name == text) {
            Some(index) => Ok((annotator.clone(), Label::Prefers(index))),
            None => {
                let expected = "\"response_1\" or \"response_2\"";
                Err(fault(place, field, FieldProblem::UnknownLabel { found: text, expected }))
            }
        }
    };
    given.map(label).collect()
}
