//! Small things about text and JSON that several modules need.

use serde_json::Value;

/// The longest beginning of whole characters that both texts share.
pub(crate) fn shared_start<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y);
    let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
    &a[..length]
}

/// A number of things in words: "1 pair", "2 pairs".
pub(crate) fn counted(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// What a JSON value is, in words.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
