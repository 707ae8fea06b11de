//! Typed access to the keys of a `config.json`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::PolicyError;

/// The keys of one `config.json`; `null` counts as absent.
pub(crate) struct Fields<'a> {
    pub(crate) raw: &'a Map<String, Value>,
    pub(crate) path: &'a Path,
    /// The keys that were asked for.
    asked: RefCell<BTreeSet<String>>,
}

/// Keys that change what some family computes and that no tensor shows.
const SWITCHES: [&str; 14] = [
    "attention_multiplier",
    "attn_logit_softcapping",
    "clip_qkv",
    "embedding_multiplier",
    "final_logit_softcapping",
    "layer_types",
    "logit_scale",
    "logits_scaling",
    "no_rope_layers",
    "query_pre_attn_scalar",
    "residual_multiplier",
    "rope_local_base_freq",
    "use_bidirectional_attention",
    "use_parallel_residual",
];

impl<'a> Fields<'a> {
    pub(crate) fn new(raw: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { raw, path, asked: RefCell::default() }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(field.to_owned());
        self.raw.get(field).filter(|value| !value.is_null())
    }

    /// Returns the switches of other families that the file sets and nothing has asked for.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        let asked = self.asked.borrow();
        let is_set = |key: &str| match self.raw.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            // The default of every family.
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind != "full_attention"),
            Some(_) => true,
        };
        SWITCHES.into_iter().filter(|key| is_set(key) && !asked.contains(*key)).collect()
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
        match (self.get(field), self.raw.contains_key(field)) {
            (None, false) => Ok(default),
            (None, true) => Ok(None),
            (Some(_), _) => self.scale_or(field, 1.0).map(Some),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_that_nothing_reads_are_named() {
        let json = serde_json::json!({
            "attn_logit_softcapping": 30.0, "final_logit_softcapping": null, "use_parallel_residual": false,
            "logit_scale": 0.5, "layer_types": ["full_attention", "full_attention"], "anything": 1,
        });
        let Value::Object(raw) = json else { unreachable!("an object") };
        let fields = Fields::new(&raw, Path::new("config.json"));
        assert_eq!(fields.ignored(), ["attn_logit_softcapping", "logit_scale"]);
        assert_eq!(fields.scale_or("logit_scale", 1.0).unwrap(), 0.5);
        assert_eq!(fields.ignored(), ["attn_logit_softcapping"]);
    }
}
