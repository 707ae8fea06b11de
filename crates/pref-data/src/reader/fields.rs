//! Fields of a row, taken with errors that name them.

use serde_json::{Map, Value};

use crate::error::DataError;
use crate::message::{Message, TemplateContext};
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::Text;
use crate::text::json_kind;

/// A row of a file of any kind.
pub(super) type Row = Map<String, Value>;

pub(super) fn fault(place: &Place, field: impl Into<String>, problem: FieldProblem) -> DataError {
    DataError::Field { place: place.clone(), field: field.into(), problem }
}

/// Returns the value of a field that must be there. JSON's `null` counts as missing.
pub(super) fn required<'a>(place: &Place, row: &'a Row, field: &str) -> Result<&'a Value, DataError> {
    optional(row, field).ok_or_else(|| fault(place, field, FieldProblem::Missing))
}

pub(super) fn optional<'a>(row: &'a Row, field: &str) -> Option<&'a Value> {
    row.get(field).filter(|value| !value.is_null())
}

/// Returns the record's identifier: the label in `id`, or the number of the line or row.
pub(super) fn id(place: &Place, row: &Row) -> String {
    label(row, "id").filter(|id| !id.is_empty()).unwrap_or_else(|| place.number.to_string())
}

/// Returns a value that only names something: text, or the JSON of another value.
pub(super) fn label(row: &Row, field: &str) -> Option<String> {
    optional(row, field).map(label_of)
}

pub(super) fn label_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn string(place: &Place, field: &str, value: &Value) -> Result<String, DataError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong_type(place, field, "text", other)),
    }
}

pub(super) fn number(place: &Place, field: &str, value: &Value) -> Result<f64, DataError> {
    value.as_f64().ok_or_else(|| wrong_type(place, field, "a number", value))
}

pub(super) fn list<'a>(place: &Place, field: &str, value: &'a Value) -> Result<&'a [Value], DataError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| wrong_type(place, field, "a list", value))
}

pub(super) fn object<'a>(place: &Place, field: &str, value: &'a Value) -> Result<&'a Row, DataError> {
    value.as_object().ok_or_else(|| wrong_type(place, field, "an object", value))
}

/// Reads text or messages.
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
    fault(place, field, FieldProblem::WrongType { expected, found: json_kind(value) })
}

/// Reads a message `{role, content}`, or `ShareGPT`'s `{from, value}`.
pub(super) fn message(place: &Place, field: &str, value: &Value) -> Result<Message, DataError> {
    let Value::Object(message) = value else {
        return Err(wrong_type(place, field, "a message {role, content}", value));
    };
    let message = match message.get("from") {
        Some(Value::String(from)) if optional(message, "role").is_none() => {
            share_gpt(place, field, message, from)?
        }
        _ => message.clone(),
    };
    check_content(place, field, &message)?;
    Message::from_fields(message).map_err(|(key, problem)| fault(place, format!("{field}.{key}"), problem))
}

/// The roles of `ShareGPT`'s `from`, by the name that chat templates have for them.
const SHARE_GPT: [(&str, &[&str]); 4] = [
    ("user", &["human", "user"]),
    ("assistant", &["gpt", "assistant", "chatgpt", "model"]),
    ("system", &["system"]),
    ("tool", &["tool", "observation", "function_response"]),
];

fn share_gpt(place: &Place, field: &str, message: &Row, from: &str) -> Result<Row, DataError> {
    let role = SHARE_GPT.into_iter().find(|(_, names)| names.contains(&from)).map(|(role, _)| role);
    let role = role.ok_or_else(|| {
        fault(place, format!("{field}.from"), FieldProblem::UnknownSender { from: from.to_owned() })
    })?;
    let mut out = Row::new();
    out.insert("role".to_owned(), role.into());
    for (key, value) in message.iter().filter(|(key, _)| !["from", "role"].contains(&key.as_str())) {
        out.insert(if key == "value" { "content" } else { key }.to_owned(), value.clone());
    }
    Ok(out)
}

/// Checks that the content is text, a list of parts that are text, or missing because of another key.
fn check_content(place: &Place, field: &str, message: &Row) -> Result<(), DataError> {
    match message.get("content") {
        None | Some(Value::Null) => {
            let says = |(key, value): (&String, &Value)| key != "role" && !value.is_null();
            let is_empty = !message.iter().any(says);
            let missing = || fault(place, format!("{field}.content"), FieldProblem::Missing);
            // A missing role is the first thing to say.
            if is_empty && message.contains_key("role") { Err(missing()) } else { Ok(()) }
        }
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => {
            for (index, part) in parts.iter().enumerate() {
                if let Some((key, found)) = not_text(part) {
                    let field = format!("{field}.content[{index}]{key}");
                    return Err(fault(place, field, FieldProblem::NotText { found }));
                }
            }
            Ok(())
        }
        Some(other) => {
            Err(wrong_type(place, &format!("{field}.content"), "text or a list of text parts", other))
        }
    }
}

/// Returns the key and the content of a part of a message that is not text: another type, or images, video or audio.
fn not_text(part: &Value) -> Option<(String, String)> {
    /// Keys that hold no text, in the parts of several libraries.
    const MEDIA: [&str; 11] = [
        "image",
        "images",
        "image_url",
        "input_image",
        "video",
        "videos",
        "video_url",
        "audio",
        "audios",
        "audio_url",
        "input_audio",
    ];
    let Value::Object(part) = part else {
        return (!part.is_string()).then(|| (String::new(), json_kind(part).to_owned()));
    };
    match part.get("type") {
        Some(Value::String(kind)) if kind != "text" => return Some((".type".to_owned(), kind.clone())),
        _ => {}
    }
    let media = MEDIA.into_iter().find(|key| optional(part, key).is_some());
    if let Some(key) = media {
        return Some((format!(".{key}"), key.to_owned()));
    }
    let has_text = part.get("text").is_some_and(Value::is_string);
    (!has_text).then(|| (String::new(), "an object without `text`".to_owned()))
}

/// Returns what the chat template sees besides the messages. JSON's `null` counts as missing.
pub(super) fn context(row: &Row) -> TemplateContext {
    let value = |field: &str| optional(row, field).cloned();
    TemplateContext {
        tools: value("tools"),
        chat_template_kwargs: value("chat_template_kwargs"),
        documents: value("documents"),
    }
}
