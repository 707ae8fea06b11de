//! Question ids: a whole number, or a label of any other kind.
//!
//! Inside, every id is a `u64`, which statistics and random streams take as a key. A whole number is its own key. Any
//! other id (`"abc"`, `-1`, `81.5`) gets a key from 2⁶³ on, derived from its text by BLAKE3, and a table of the process
//! keeps what the file writes. As in Python, `81.0` equals `81` and `"81"` does not.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use serde::{Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// The first key of a label.
const FIRST_LABEL: u64 = 1 << 63;

/// Whole numbers beyond this are not exact as floats.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The labels that this process has read, by key.
static LABELS: RwLock<BTreeMap<u64, Value>> = RwLock::new(BTreeMap::new());

/// Returns the id of a question as people know it: `81`, or the text of a label.
///
/// ```
/// # let line = r#"{"question_id": "abc", "category": "stem", "turns": ["Why is the sky blue?"]}"#;
/// let question: mtbench::Question = serde_json::from_str(line)?;
/// assert_eq!(mtbench::question_label(question.question_id), "abc");
/// assert_eq!(mtbench::question_label(81), "81");
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn question_label(question_id: u64) -> String {
    match written(question_id) {
        Value::String(text) => text,
        number => number.to_string(),
    }
}

/// Whether the id is a whole number, and not a label.
pub(crate) fn is_number(question_id: u64) -> bool {
    question_id < FIRST_LABEL
}

/// Orders ids as a file of answers has them: numbers by value, then labels by text.
pub(crate) fn order(question_id: u64) -> impl Ord {
    let label = if is_number(question_id) { String::new() } else { question_label(question_id) };
    (Reverse(is_number(question_id)), label, question_id)
}

pub(crate) fn serialize<S: Serializer>(question_id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    written(*question_id).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Id)
}

/// What the file writes.
fn written(question_id: u64) -> Value {
    let labels = LABELS.read().unwrap_or_else(PoisonError::into_inner);
    labels.get(&question_id).cloned().unwrap_or_else(|| question_id.into())
}

struct Id;

impl Id {
    fn label<E: de::Error>(value: Value) -> Result<u64, E> {
        let digest = blake3::hash(value.to_string().as_bytes());
        let (head, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        let key = FIRST_LABEL | u64::from_le_bytes(*head);
        let mut labels = LABELS.write().unwrap_or_else(PoisonError::into_inner);
        match labels.get(&key) {
            Some(other) if *other != value => {
                Err(E::custom(format!("{value} and {other} have the same hash: change one of the two ids")))
            }
            _ => {
                labels.insert(key, value);
                Ok(key)
            }
        }
    }
}

impl de::Visitor<'_> for Id {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a string")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        if number < FIRST_LABEL { Ok(number) } else { Self::label(number.into()) }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).or_else(|_| Self::label(number.into()))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: whole, not negative, exact"
    )]
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
        if number.fract() == 0.0 && (0.0..EXACT).contains(&number) {
            return Ok(number as u64);
        }
        Self::label(number.into())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        Self::label(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> u64 {
        deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn numbers_are_their_own_keys_and_labels_survive() {
        assert_eq!([read("81"), read("81.0"), read("0")], [81, 81, 0]);
        for label in [r#""abc""#, r#""81""#, "-1", "81.5", "18446744073709551615"] {
            let key = read(label);
            assert!(key >= FIRST_LABEL, "{label}");
            assert_eq!(key, read(label), "the key is the same each time");
            let mut text = Vec::new();
            serialize(&key, &mut serde_json::Serializer::new(&mut text)).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), label);
        }
        assert_eq!(question_label(read(r#""a b""#)), "a b");
        assert!(deserialize(&mut serde_json::Deserializer::from_str("null")).is_err());
    }

    #[test]
    fn numbers_come_before_labels() {
        let mut ids = [read(r#""b""#), 9, read(r#""a""#), 80];
        ids.sort_by_key(|id| order(*id));
        assert_eq!(ids.map(question_label), ["9", "80", "a", "b"]);
    }
}
