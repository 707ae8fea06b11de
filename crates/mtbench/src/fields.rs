//! Fields of FastChat's rows, read as leniently as FastChat reads them.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use crate::rating::Rating;

/// Reads a turn's number: `1`, or `1.0` as pandas writes it.
pub(crate) fn turn<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    struct Turn;
    impl de::Visitor<'_> for Turn {
        type Value = u8;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the number of a turn, from 1")
        }

        fn visit_u64<E: de::Error>(self, turn: u64) -> Result<u8, E> {
            let small = u8::try_from(turn).ok().filter(|turn| *turn > 0);
            small.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(turn), &self))
        }

        fn visit_f64<E: de::Error>(self, turn: f64) -> Result<u8, E> {
            let whole = (1..=u8::MAX).find(|whole| f64::from(*whole) == turn);
            whole.ok_or_else(|| E::invalid_value(de::Unexpected::Float(turn), &self))
        }
    }
    deserializer.deserialize_any(Turn)
}

/// Reads a time stamp. Anything but a number is none: no figure depends on it.
pub(crate) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_f64())
}

/// Reads a label of any type as text.
pub(crate) fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

/// Reads a score as pandas does: −1 and null are no rating, text that holds a number is that number.
pub(crate) fn score<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rating>, D::Error> {
    let number = |value: Value| Rating::deserialize(value).ok();
    let rating = match Value::deserialize(deserializer)? {
        Value::Null => None,
        Value::String(text) => serde_json::from_str(text.trim()).ok().and_then(number),
        value @ Value::Number(_) => number(value),
        other => return Err(de::Error::custom(format!("{other} is no score"))),
    };
    Ok(rating.filter(|rating| rating.value() != MISSING_SCORE))
}

/// The score that FastChat writes where there is no rating.
pub(crate) const MISSING: i64 = -1;
const MISSING_SCORE: f64 = -1.0;

/// The turns of a question or an answer: texts, or Arena-Hard's objects with a `content`.
pub(crate) fn turns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let turns = Vec::<Turn>::deserialize(deserializer)?;
    Ok(turns.into_iter().map(|Turn(text)| text).collect())
}

struct Turn(String);

impl<'de> Deserialize<'de> for Turn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> de::Visitor<'de> for Text {
            type Value = Turn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Turn, E> {
                Ok(Turn(text.to_owned()))
            }

            fn visit_map<M: de::MapAccess<'de>>(self, map: M) -> Result<Turn, M::Error> {
                let fields = Map::deserialize(de::value::MapAccessDeserializer::new(map))?;
                match fields.get("content") {
                    Some(Value::String(text)) => Ok(Turn(text.clone())),
                    _ => Err(de::Error::custom("expected a string, or an object with the string `content`")),
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}
