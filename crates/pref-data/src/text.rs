//! Small functions on text and JSON.

use serde_json::Value;

/// Returns the longest beginning of whole characters that both texts share.
pub(crate) fn shared_start<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y);
    let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
    &a[..length]
}

/// Returns a number of things: "1 pair", "2 pairs".
pub(crate) fn counted(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

/// Returns names in backticks: "`a`, `b`". Of many only the first are named.
pub(crate) fn quoted(names: &[String]) -> String {
    const NAMED: usize = 20;
    let quoted: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "none".to_owned(),
        all if all > NAMED => format!("{} and {} more", quoted.join(", "), all - NAMED),
        _ => quoted.join(", "),
    }
}

/// Returns the type of a JSON value in words.
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
