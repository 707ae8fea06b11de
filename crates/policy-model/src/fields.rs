//! Typed access to the keys of a `config.json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::PolicyError;

/// The keys of one `config.json`; `null` counts as absent.
pub(crate) struct Fields<'a> {
    pub(crate) raw: &'a Map<String, Value>,
    pub(crate) path: &'a Path,
}

impl<'a> Fields<'a> {
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.raw.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn bad(&self, field: &str, expected: impl Into<String>) -> PolicyError {
        PolicyError::invalid_field(self.path, field, self.raw.get(field).unwrap_or(&Value::Null), expected)
    }

    pub(crate) fn missing(&self, field: &'static str) -> PolicyError {
        PolicyError::MissingField { path: self.path.to_owned(), field }
    }

    /// Reads a required field of at most `largest`.
    pub(crate) fn size(&self, field: &'static str, largest: usize) -> Result<usize, PolicyError> {
        match self.positive_or(field, 0)? {
            0 => Err(self.missing(field)),
            value if value <= largest => Ok(value),
            _ => Err(self.bad(field, format!("at most {largest}"))),
        }
    }

    pub(crate) fn positive_or(&self, field: &str, default: usize) -> Result<usize, PolicyError> {
        let usable = |value: &Value| value.as_u64().filter(|v| (1..=1 << 31).contains(v)).map(|v| v as usize);
        match self.get(field) {
            None => Ok(default),
            Some(value) => usable(value).ok_or_else(|| self.bad(field, "a positive integer below 2^31")),
        }
    }

    pub(crate) fn number_or(&self, field: &str, default: f64) -> Result<f64, PolicyError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|v| v.is_finite() && *v >= 0.0)
                .ok_or_else(|| self.bad(field, "a number that is not negative")),
        }
    }

    /// Reads a number above 0.
    pub(crate) fn scale_or(&self, field: &str, default: f64) -> Result<f64, PolicyError> {
        match self.number_or(field, default)? {
            0.0 => Err(self.bad(field, "a number above 0")),
            scale => Ok(scale),
        }
    }

    /// Reads a bound of scores: an absent key has the default of the family's class, an explicit null switches it off.
    pub(crate) fn soft_cap(&self, field: &str, default: Option<f64>) -> Result<Option<f64>, PolicyError> {
        match self.raw.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.scale_or(field, 1.0).map(Some),
        }
    }

    pub(crate) fn flag(&self, field: &str) -> Result<bool, PolicyError> {
        self.flag_or(field, false)
    }

    pub(crate) fn flag_or(&self, field: &str, default: bool) -> Result<bool, PolicyError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.bad(field, "true or false")),
        }
    }

    /// Checks that a key which changes the mathematics is absent or has its only implemented value.
    pub(crate) fn unchanged(
        &self,
        field: &str,
        same: impl Fn(&Value) -> bool,
        expected: &str,
    ) -> Result<(), PolicyError> {
        match self.get(field) {
            Some(value) if !same(value) => {
                Err(self.bad(field, format!("{expected}; nothing else is implemented")))
            }
            _ => Ok(()),
        }
    }

    /// Reads a list with an entry for each layer.
    pub(crate) fn per_layer<T>(
        &self,
        field: &str,
        layers: usize,
        entries: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, PolicyError> {
        let list = match self.get(field) {
            None => return Ok(None),
            Some(Value::Array(list)) if list.len() == layers => list,
            Some(_) => {
                return Err(self.bad(field, format!("a list with an entry for each of the {layers} layers")));
            }
        };
        let parsed: Option<Vec<T>> = list.iter().map(parse).collect();
        parsed.map(Some).ok_or_else(|| self.bad(field, format!("a list of {entries}")))
    }
}
