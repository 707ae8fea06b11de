//! One row of JSON: wanted columns as values, the others by name only.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::DataError;
use crate::place::Place;
use crate::reader::fields::Row;
use crate::reader::rows::Wanted;

/// More values than any row has. A value takes more memory than the two bytes that it may have in a file.
const MOST_VALUES: usize = 1 << 20;

/// Why a row is not the object that it should be.
#[derive(Debug)]
pub(super) struct RowError {
    problem: String,
    field: Option<String>,
    column: usize,
    /// Lines between the start of the row and the problem.
    pub(super) lines_down: usize,
}

impl RowError {
    pub(super) fn at(&self, place: Place) -> DataError {
        let field = self.field.as_ref().map_or_else(String::new, |field| format!("field `{field}`: "));
        let column = if self.column > 0 { format!(" (column {})", self.column) } else { String::new() };
        DataError::Json { place, problem: format!("{field}{}{column}", self.problem) }
    }
}

/// Parses a row. Columns that are not wanted are null in it, whatever they hold.
///
/// NaN and Infinity, as Python writes them, are null.
pub(super) fn parse(text: &[u8], wanted: &Wanted<'_>) -> Result<Row, RowError> {
    if values(text) > MOST_VALUES {
        let problem = format!("has more than {MOST_VALUES} values");
        return Err(RowError { problem, field: None, column: 0, lines_down: 0 });
    }
    let row = parse_json(text, wanted);
    match (&row, without_nan(text)) {
        (Err(_), Cow::Owned(without)) => parse_json(&without, wanted),
        _ => row,
    }
}

/// Returns an upper bound on the values of a row, exact where it is large.
fn values(text: &[u8]) -> usize {
    let all = text.iter().filter(|&&byte| byte == b',').count();
    if all <= MOST_VALUES {
        return all;
    }
    let mut strings = Strings::default();
    text.iter().filter(|&&byte| !strings.contain(byte) && byte == b',').count()
}

fn parse_json(text: &[u8], wanted: &Wanted<'_>) -> Result<Row, RowError> {
    let field = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(text);
    let row = RowSeed { wanted, field: &field }.deserialize(&mut json);
    row.and_then(|row| json.end().map(|()| row)).map_err(|error| {
        let said = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        let is_repr = text.starts_with(b"{'");
        RowError {
            problem: match said.strip_suffix(&position) {
                _ if is_repr => "is Python's text of a dict, not JSON (write it with json.dumps)".to_owned(),
                Some(problem) if problem.ends_with("hex escape") => {
                    "has half of a surrogate pair, which is not Unicode".to_owned()
                }
                Some(problem) => problem.to_owned(),
                None => said,
            },
            field: field.take(),
            column: if is_repr { 0 } else { error.column() },
            lines_down: error.line().saturating_sub(1),
        }
    })
}

/// Reads an object, and leaves in `field` the name of the value that is being read.
struct RowSeed<'a> {
    wanted: &'a Wanted<'a>,
    field: &'a RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.wanted.column(&name) && row.contains_key(&name) {
                self.field.replace(Some(name));
                return Err(A::Error::custom("occurs twice in the row; which one counts is not clear"));
            }
            let value = if self.wanted.column(&name) {
                map.next_value::<Value>()
            } else {
                map.next_value::<IgnoredAny>().map(|_| Value::Null)
            };
            let value = value.inspect_err(|_| drop(self.field.replace(Some(name.clone()))))?;
            row.insert(name, value);
        }
        Ok(row)
    }
}

/// Tells the bytes of strings from the others.
#[derive(Default)]
struct Strings {
    is_inside: bool,
    is_escaped: bool,
}

impl Strings {
    /// Returns whether the next byte belongs to a string.
    fn contain(&mut self, byte: u8) -> bool {
        let was_inside = self.is_inside;
        if byte == b'"' && !self.is_escaped {
            self.is_inside = !was_inside;
        }
        self.is_escaped = was_inside && byte == b'\\' && !self.is_escaped;
        was_inside || self.is_inside
    }
}

/// The numbers that Python writes and JSON does not have.
const NOT_JSON: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// Returns the text with null for NaN and the infinities outside of strings.
fn without_nan(text: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Vec<u8> = Vec::new();
    let (mut strings, mut copied, mut at) = (Strings::default(), 0, 0);
    while at < text.len() {
        let found = if strings.contain(text[at]) {
            None
        } else {
            NOT_JSON.into_iter().find(|name| text[at..].starts_with(name))
        };
        match found {
            Some(name) => {
                out.extend(&text[copied..at]);
                out.extend(b"null");
                at += name.len();
                copied = at;
            }
            None => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Format;

    fn problem(text: &str, columns: &[&str]) -> String {
        let wanted = Wanted { format: Format::Pairs, columns: Some(columns) };
        let error = parse(text.as_bytes(), &wanted).expect_err("a bad row");
        format!("{:?} {} {}", error.field, error.problem, error.column)
    }

    fn row(text: &str, columns: &[&str]) -> String {
        let wanted = Wanted { format: Format::Pairs, columns: Some(columns) };
        Value::Object(parse(text.as_bytes(), &wanted).expect("a good row")).to_string()
    }

    #[test]
    fn numbers_of_python_are_null() {
        let text = r#"{"a": [NaN, -Infinity, Infinity, 1], "b": "NaN \" NaN"}"#;
        assert_eq!(row(text, &["a", "b"]), r#"{"a":[null,null,null,1],"b":"NaN \" NaN"}"#);
    }

    #[test]
    fn columns_that_are_not_wanted_hold_anything() {
        let text = r#"{"a": "x", "b": [1e999, "\ud83d", NaN, {"c": {}}]}"#;
        assert_eq!(row(text, &["a"]), r#"{"a":"x","b":null}"#);
        assert!(problem(text, &["b"]).starts_with("Some(\"b\") number out of range"));
    }

    #[test]
    fn a_problem_is_named_once_with_its_field() {
        assert_eq!(
            problem(r#"{"a": "\ud83d"}"#, &["a"]),
            "Some(\"a\") has half of a surrogate pair, which is not Unicode 14"
        );
        let twice = r#"{"a": "x", "b": 1, "b": 2, "a": "y"}"#;
        assert!(problem(twice, &["a"]).starts_with("Some(\"a\") occurs twice in the row"));
        assert!(problem("{'a': 1}", &["a"]).contains("Python's text of a dict"));
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(problem(&deep, &["a"]).contains("recursion limit exceeded"));
        let wide = format!("{{\"a\": [0{}]}}", ",0".repeat(MOST_VALUES + 1));
        assert!(problem(&wide, &["a"]).contains("more than 1048576 values"));
        let text = format!("{{\"a\": \"{}\"}}", ",".repeat(MOST_VALUES + 1));
        assert_eq!(row(&text, &[]), r#"{"a":null}"#);
    }
}
