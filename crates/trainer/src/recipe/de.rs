//! A serde deserializer for TOML values that keeps the path to an error.
//!
//! toml's own errors are text about a document. This deserializer returns structured errors: the kind, the known keys
//! or the expected type, and the path of the key. Messages then point at the line or the override that set the key, and
//! suggest the nearest known key. The known keys are the fields of the types themselves.

use std::fmt::{self, Display};

use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use toml::{Table, Value};

/// A deserialization error and the key that caused it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// The path of the key, outermost section first.
    pub(super) path: Vec<String>,
    pub(super) kind: ProblemKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ProblemKind {
    /// The table at `path` has no such key.
    UnknownKey { key: String, known: &'static [&'static str] },
    /// The table at `path` lacks a key.
    MissingKey { key: &'static str },
    /// The value at `path` has the wrong type.
    WrongType { found: String, expected: String },
    /// The value at `path` is not a variant of its enum.
    UnknownValue { found: String, known: &'static [&'static str] },
    /// A constructor rejected the value at `path`.
    Refused { reason: String },
}

impl Problem {
    fn new(kind: ProblemKind) -> Self {
        Self { path: Vec::new(), kind }
    }

    fn under(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.path.join("."), self.kind)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(ProblemKind::Refused { reason: message.to_string() })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(ProblemKind::WrongType { found: found_words(&found), expected: expected_words(expected) })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(ProblemKind::WrongType {
            found: format!("a list of {length}"),
            expected: expected_words(expected),
        })
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(ProblemKind::UnknownValue { found: found.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(ProblemKind::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(ProblemKind::MissingKey { key })
    }
}

fn found_words(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(value) => format!("{value:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// Translates serde's names of Rust types to TOML's terms.
fn expected_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    let words = match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not below 0",
        other if other.starts_with("a nonzero u") => "a whole number, at least 1",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "path string" => "a string",
        other if other.starts_with("struct ") => "a table",
        other if other.starts_with("an array of length ") => {
            return other.replace("an array of length", "a list of");
        }
        other => other,
    };
    words.to_owned()
}

/// Deserializes a whole document.
pub(super) fn from_table<'de, T: de::Deserialize<'de>>(table: &'de Table) -> Result<T, Problem> {
    T::deserialize(TableNode(table))
}

struct TableNode<'de>(&'de Table);

impl<'de> Deserializer<'de> for TableNode<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_map(Entries { rest: self.0.iter(), current: None })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Node<'de>(&'de Value);

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Boolean(value) => visitor.visit_bool(*value),
            // No key accepts a date, and an unquoted string in an override may parse as one.
            Value::Datetime(value) => visitor.visit_string(value.to_string()),
            Value::Array(values) => {
                let mut items = Items { rest: values.iter(), next: 0 };
                let value = visitor.visit_seq(&mut items)?;
                match items.rest.len() {
                    0 => Ok(value),
                    _ => Err(de::Error::invalid_length(values.len(), &"a shorter list")),
                }
            }
            Value::Table(table) => TableNode(table).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    /// A list is no table, although serde would fill the fields of a struct in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match self.0 {
            Value::String(word) => visitor.visit_enum(BorrowedStrDeserializer::new(word)),
            Value::Table(table) => {
                let entries = Entries { rest: table.iter(), current: None };
                visitor.visit_enum(MapAccessDeserializer::new(entries))
            }
            Value::Boolean(value) => Err(de::Error::invalid_type(Unexpected::Bool(*value), &"a string")),
            Value::Integer(value) => Err(de::Error::invalid_type(Unexpected::Signed(*value), &"a string")),
            Value::Float(value) => Err(de::Error::invalid_type(Unexpected::Float(*value), &"a string")),
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"a string")),
            Value::Datetime(_) => Err(de::Error::invalid_type(Unexpected::Other("a date"), &"a string")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map identifier ignored_any
    }
}

struct Entries<'de> {
    rest: toml::map::Iter<'de, String, Value>,
    current: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        self.current = self.rest.next();
        match self.current {
            None => Ok(None),
            Some((key, _)) => seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let (key, value) =
            self.current.ok_or_else(|| <Problem as de::Error>::custom("a value without a key"))?;
        seed.deserialize(Node(value)).map_err(|problem| problem.under(key))
    }
}

struct Items<'de> {
    rest: std::slice::Iter<'de, Value>,
    /// The index of the next item.
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some(value) = self.rest.next() else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        // A table in a list has keys of its own: the index says whose they are.
        let placed = |problem: Problem| match value {
            Value::Table(_) => problem.under(&index.to_string()),
            _ => problem,
        };
        seed.deserialize(Node(value)).map(Some).map_err(placed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}
