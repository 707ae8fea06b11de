//! Fields of a row, taken with errors that name them.

use serde_json::{Map, Value};

use crate::error::{DataError, FieldProblem, Place};
use crate::message::{Message, TemplateContext};
use crate::record::Text;
use crate::text::json_kind;

/// A row of a file, whatever its kind.
pub(super) type Row = Map<String, Value>;

pub(super) fn fault(place: &Place, field: impl Into<String>, problem: FieldProblem) -> DataError {
    DataError::Field { place: place.clone(), field: field.into(), problem }
}

/// The value of a field that must be there. JSON's `null` counts as missing.
pub(super) fn required<'a>(place: &Place, row: &'a Row, field: &str) -> Result<&'a Value, DataError> {
    optional(row, field).ok_or_else(|| fault(place, field, FieldProblem::Missing))
}

pub(super) fn optional<'a>(row: &'a Row, field: &str) -> Option<&'a Value> {
    row.get(field).filter(|value| !value.is_null())
}

/// The record's identifier: a string, a whole number, or where there is none the line or row.
pub(super) fn id(place: &Place, row: &Row) -> Result<String, DataError> {
    match optional(row, "id") {
        None => Ok(place.number.to_string()),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        Some(value) => string(place, "id", value),
    }
}

pub(super) fn domain(place: &Place, row: &Row) -> Result<Option<String>, DataError> {
    optional(row, "domain").map(|value| string(place, "domain", value)).transpose()
}

pub(super) fn string(place: &Place, field: &str, value: &Value) -> Result<String, DataError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong_type(place, field, "text", other)),
    }
}

/// A number that is one.
pub(super) fn number(place: &Place, field: &str, value: &Value) -> Result<f64, DataError> {
    value.as_f64().ok_or_else(|| wrong_type(place, field, "a number", value))
}

pub(super) fn list<'a>(place: &Place, field: &str, value: &'a Value) -> Result<&'a [Value], DataError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong_type(place, field, "a list", value))
}

pub(super) fn object<'a>(place: &Place, field: &str, value: &'a Value) -> Result<&'a Row, DataError> {
    value.as_object().ok_or_else(|| wrong_type(place, field, "an object", value))
}

/// Text or messages.
pub(super) fn text(place: &Place, field: &str, value: &Value) -> Result<Text, DataError> {
    match value {
        Value::String(text) => Ok(Text::Plain(text.clone())),
        Value::Array(items) => {
            let messages = items.iter().enumerate();
            let messages = messages.map(|(index, item)| message(place, &format!("{field}[{index}]"), item));
            Ok(Text::Chat(messages.collect::<Result<_, _>>()?))
        }
        other => Err(wrong_type(place, field, "text or a list of messages {role, content}", other)),
    }
}

pub(super) fn wrong_type(place: &Place, field: &str, expected: &'static str, value: &Value) -> DataError {
    let found = json_kind(value);
    fault(place, field, FieldProblem::WrongType { expected, found })
}

fn message(place: &Place, field: &str, value: &Value) -> Result<Message, DataError> {
    let Value::Object(message) = value else {
        return Err(wrong_type(place, field, "a message {role, content}", value));
    };
    Message::from_fields(message.clone())
        .map_err(|(key, problem)| fault(place, format!("{field}.{key}"), problem))
}

/// What the chat template sees beside the messages. JSON's `null` counts as missing.
pub(super) fn context(row: &Row) -> TemplateContext {
    let value = |field: &str| optional(row, field).cloned();
    TemplateContext {
        tools: value("tools"),
        chat_template_kwargs: value("chat_template_kwargs"),
        documents: value("documents"),
    }
}
