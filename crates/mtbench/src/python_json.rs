//! JSON as Python's `json.dumps` writes it by default: the format of FastChat's files.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::{Serialize, ser::Error};
use serde_json::ser::{Formatter, Serializer};

/// Returns the bytes of Python's `json.dumps(value)`: `", "` and `": "` between items, everything but printable ASCII
/// escaped, numbers as Python's `repr` writes them.
pub(crate) fn to_string(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Python))?;
    Ok(String::from_utf8(bytes).expect("the formatter writes ASCII only"))
}

/// Replaces `NaN`, `Infinity` and `-Infinity` outside of strings by `null`. Python writes them; JSON has no such numbers.
pub(crate) fn without_nan(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    let (mut in_string, mut rest) = (false, text);
    while let Some(first) = rest.chars().next() {
        let constant = ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| rest.starts_with(name));
        let length = match (in_string, first, constant) {
            (false, _, Some(name)) => {
                cleaned.push_str("null");
                rest = &rest[name.len()..];
                continue;
            }
            // A line break ends a string that was never closed, so that it spoils its own line only.
            (_, '\n', _) => {
                in_string = false;
                1
            }
            (true, '\\', _) => {
                1 + rest[1..].chars().next().filter(|next| *next != '\n').map_or(0, char::len_utf8)
            }
            (_, '"', _) => {
                in_string = !in_string;
                1
            }
            _ => first.len_utf8(),
        };
        cleaned.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(cleaned)
}

/// Writes a finite number. `serde_json` by itself would write NaN as `null`, which no reader expects.
pub(crate) fn finite<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        value.serialize(serializer)
    } else {
        Err(S::Error::custom(format!("{value} is no number")))
    }
}

/// As [`finite`], for a number that may be absent.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
pub(crate) fn finite_or_absent<S: serde::Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => finite(value, serializer),
        None => serializer.serialize_none(),
    }
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(repr(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, escaped) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = escaped.chars();
            let first = chars.next().expect("`find` stopped at a character");
            for unit in first.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

fn separate<W: ?Sized + Write>(writer: &mut W, first: bool) -> io::Result<()> {
    if first { Ok(()) } else { writer.write_all(b", ") }
}

/// A finite float as Python's `repr` writes it: the shortest digits that read back the same, an exponent of two or more
/// digits below 1e-4 and from 1e16.
fn repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes an integer exponent");
    if (-4..16).contains(&exponent) {
        format!("{value:?}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn floats_are_written_as_python_writes_them() {
        // Each right-hand side is what CPython prints for `repr` of the left.
        for (value, python) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (7.0, "7.0"),
            (7.5, "7.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000_012_5, "1.25e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1.5e300, "1.5e+300"),
            (1e-300, "1e-300"),
            (1_686_286_924.844_282, "1686286924.844282"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ] {
            assert_eq!(repr(value), python);
        }
    }

    #[test]
    fn nan_outside_of_strings_is_null() {
        let text = "{\"a\": NaN, \"NaN \\\" NaN\": [-Infinity, Infinity]}\n\"open\nNaN";
        let cleaned = "{\"a\": null, \"NaN \\\" NaN\": [null, null]}\n\"open\nnull";
        assert_eq!(without_nan(text), cleaned);
        assert!(matches!(without_nan("[1.5]"), Cow::Borrowed(_)));
    }

    #[test]
    fn strings_and_separators_are_written_as_python_writes_them() {
        let value = json!({"a": ["π", "😀\u{7f}\u{1}\n\t\r\u{8}\u{c}", "\"\\/<"], "b": {}, "c": [], "d": [1, -2, null, true]});
        assert_eq!(
            to_string(&value).unwrap(),
            r#"{"a": ["\u03c0", "\ud83d\ude00\u007f\u0001\n\t\r\b\f", "\"\\/<"], "b": {}, "c": [], "d": [1, -2, null, true]}"#
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_ascii_and_reads_back(text: String, number in proptest::num::f64::NORMAL) {
            let value = json!([text, number]);
            let line = to_string(&value).unwrap();
            prop_assert!(line.bytes().all(|b| matches!(b, b' '..=b'~')));
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
