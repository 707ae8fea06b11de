//! Python's values, as far as templates have them.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::error::{Problem, Result, value_error};
use crate::limits::{Budget, VALUE_BYTES};
use crate::text;

/// A value. All are immutable; what changes is in the interpreter's tables and has an index here.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, with the error of using it.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    List(Arc<Seq>),
    Tuple(Arc<Seq>),
    Dict(Arc<Dict>),
    /// Start, stop, step.
    Range(Arc<[i128; 3]>),
    /// `dict.keys()`, `values()` or `items()`, with that name.
    View(&'static str, Arc<Seq>),
    /// A value and the name of one of its methods.
    Method(Arc<(Value, &'static str)>),
    Function(Function),
    /// An iterator, which can be walked through once.
    Iterator(usize),
    Namespace(usize),
    Macro(usize),
    Loop(usize),
    Cycler(usize),
    Joiner(usize),
}

const _: () = assert!(size_of::<Value>() == VALUE_BYTES, "the limits count the bytes of a value");

/// A list's or a tuple's items.
#[derive(Debug, Default)]
pub(crate) struct Seq {
    pub(crate) items: Vec<Value>,
    size: u32,
    depth: u32,
}

/// A dict's entries, in the order of insertion.
#[derive(Debug, Default)]
pub(crate) struct Dict {
    pub(crate) entries: Vec<(Value, Value)>,
    size: u32,
    depth: u32,
    /// Whether the keys that a template looks at are noted.
    pub(crate) watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

/// Nested values in one, and the deepest nesting: a list of itself twice, forty times over, is a short program.
const MAX_SIZE: u32 = 1 << 20;
const MAX_DEPTH: u32 = 150;

fn measure<'a>(values: impl Iterator<Item = &'a Value>) -> Result<(u32, u32)> {
    let (mut size, mut depth) = (1_u32, 0);
    for value in values {
        let (inner, level) = match value {
            Value::List(seq) | Value::Tuple(seq) | Value::View(_, seq) => (seq.size, seq.depth),
            Value::Dict(dict) => (dict.size, dict.depth),
            Value::Method(method) => match &method.0 {
                Value::List(seq) | Value::Tuple(seq) => (seq.size, seq.depth),
                Value::Dict(dict) => (dict.size, dict.depth),
                _ => (1, 0),
            },
            _ => (1, 0),
        };
        size = size.saturating_add(inner);
        depth = depth.max(level);
    }
    if size > MAX_SIZE || depth >= MAX_DEPTH {
        return Err(Problem::Limit("it nests lists too deeply"));
    }
    Ok((size, depth + 1))
}

impl Seq {
    pub(crate) fn new(items: Vec<Value>) -> Result<Arc<Self>> {
        let (size, depth) = measure(items.iter())?;
        Ok(Arc::new(Self { items, size, depth }))
    }
}

impl Dict {
    /// Of several entries with one key the last one's value counts, in the place of the first.
    pub(crate) fn new(entries: Vec<(Value, Value)>, budget: &mut Budget) -> Result<Arc<Self>> {
        let mut unique: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if matches!(key, Value::List(_) | Value::Dict(_)) {
                return value_error(format!("unhashable type: '{}'", key.type_name()));
            }
            budget.steps(unique.len() as u64 / 4)?;
            match unique.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => unique.push((key, value)),
            }
        }
        let (size, depth) = measure(unique.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Arc::new(Self { entries: unique, size, depth, watched: false }))
    }

    pub(crate) fn get(&self, key: &Value) -> Option<&Value> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub(crate) fn get_str(&self, key: &str) -> Option<&Value> {
        let is_key = |known: &Value| matches!(known, Value::Str(known) if &**known == key);
        self.entries.iter().find(|(known, _)| is_key(known)).map(|(_, value)| value)
    }
}

impl Value {
    pub(crate) fn str(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    pub(crate) fn undefined(message: impl Into<Arc<str>>) -> Self {
        Self::Undefined(message.into())
    }

    pub(crate) fn list(items: Vec<Self>) -> Result<Self> {
        Ok(Self::List(Seq::new(items)?))
    }

    pub(crate) fn tuple(items: Vec<Self>) -> Result<Self> {
        Ok(Self::Tuple(Seq::new(items)?))
    }

    /// A JSON value as Python's parser reads it.
    pub(crate) fn from_json(json: &Json) -> Result<Self> {
        Ok(match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64().map(i128::from).or(number.as_u64().map(i128::from))
            {
                Some(number) => Self::Int(number),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::str(text.as_str()),
            Json::Array(items) => Self::list(items.iter().map(Self::from_json).collect::<Result<_>>()?)?,
            Json::Object(fields) => Self::Dict(Self::dict_from_json(fields.iter(), false)?),
        })
    }

    pub(crate) fn dict_from_json<'a>(
        fields: impl Iterator<Item = (&'a String, &'a Json)>,
        watched: bool,
    ) -> Result<Arc<Dict>> {
        let entry = |(key, value): (&String, &Json)| Ok((Self::str(key.as_str()), Self::from_json(value)?));
        let entries: Vec<(Self, Self)> = fields.map(entry).collect::<Result<_>>()?;
        let (size, depth) = measure(entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Arc::new(Dict { entries, size, depth, watched }))
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(seq) | Self::Tuple(seq) | Self::View(_, seq) => !seq.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Range(range) => range_len(range) > 0,
            _ => true,
        }
    }

    /// A number as Python's arithmetic takes it: booleans are integers.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            value => value.as_int().map(|number| number as f64),
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An error where the value is undefined.
    pub(crate) fn defined(&self) -> Result<&Self> {
        match self {
            Self::Undefined(message) => value_error(message.to_string()),
            value => Ok(value),
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::View(name, _) => name,
            Self::Method(_) | Self::Function(_) => "function",
            Self::Iterator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
        }
    }

    /// How many values comparing or printing the value touches.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::List(seq) | Self::Tuple(seq) | Self::View(_, seq) => u64::from(seq.size),
            Self::Dict(dict) => u64::from(dict.size),
            Self::Str(text) => 1 + text.len() as u64 / 256,
            _ => 1,
        }
    }

    /// Appends `str(value)`.
    pub(crate) fn write_str(&self, out: &mut String, budget: &mut Budget) -> Result<()> {
        match self {
            Self::Str(text) => {
                budget.bytes(text.len() as u128)?;
                out.push_str(text);
            }
            Self::Undefined(_) => {}
            value => {
                let before = out.len();
                value.write_repr(out, before.saturating_add(budget.bytes_left()))?;
                budget.steps(value.size())?;
                budget.bytes((out.len() - before) as u128)?;
            }
        }
        Ok(())
    }

    /// `str(value)`.
    pub(crate) fn to_str(&self, budget: &mut Budget) -> Result<Arc<str>> {
        if let Self::Str(text) = self {
            return Ok(text.clone());
        }
        let mut out = String::new();
        self.write_str(&mut out, budget)?;
        Ok(out.into())
    }

    /// Appends `repr(value)`, and fails where that makes `out` longer than `most`.
    pub(crate) fn write_repr(&self, out: &mut String, most: usize) -> Result<()> {
        if out.len() > most {
            return Err(Problem::Limit("it makes too much text"));
        }
        match self {
            Self::Undefined(_) => out.push_str("Undefined"),
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(number) => out.push_str(&number.to_string()),
            Self::Float(number) => out.push_str(&text::float(*number)),
            Self::Str(value) => text::repr(value, out),
            Self::List(seq) => write_items(out, most, ["[", "]"], &seq.items)?,
            Self::Tuple(seq) => {
                let close = if seq.items.len() == 1 { ",)" } else { ")" };
                write_items(out, most, ["(", close], &seq.items)?;
            }
            Self::View(name, seq) => {
                out.push_str(name);
                write_items(out, most, ["([", "])"], &seq.items)?;
            }
            Self::Dict(dict) => {
                out.push('{');
                for (index, (key, value)) in dict.entries.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    key.write_repr(out, most)?;
                    out.push_str(": ");
                    value.write_repr(out, most)?;
                }
                out.push('}');
            }
            Self::Range(range) => {
                let [start, stop, step] = **range;
                let step = if step == 1 { String::new() } else { format!(", {step}") };
                out.push_str(&format!("range({start}, {stop}{step})"));
            }
            other => out.push_str(&format!("<{}>", other.type_name())),
        }
        Ok(())
    }

    /// Python's order, where it has one.
    pub(crate) fn order(&self, other: &Self) -> Result<Option<Ordering>> {
        self.defined()?;
        other.defined()?;
        Ok(match (self, other) {
            (Self::Str(a), Self::Str(b)) => Some(a.cmp(b)),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (x, y) in a.items.iter().zip(&b.items) {
                    if x != y {
                        return x.order(y);
                    }
                }
                Some(a.items.len().cmp(&b.items.len()))
            }
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => Some(a.cmp(&b)),
                _ => match (self.as_float(), other.as_float()) {
                    (Some(a), Some(b)) => a.partial_cmp(&b),
                    _ => {
                        let (a, b) = (self.type_name(), other.type_name());
                        return value_error(format!(
                            "'<' not supported between instances of '{a}' and '{b}'"
                        ));
                    }
                },
            },
        })
    }
}

/// Python's `==`.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                Arc::ptr_eq(a, b) || a.items == b.items
            }
            (Self::View(a, x), Self::View(b, y)) => a == b && x.items == y.items,
            (Self::Dict(a), Self::Dict(b)) => {
                Arc::ptr_eq(a, b)
                    || (a.entries.len() == b.entries.len()
                        && a.entries.iter().all(|(key, value)| b.get(key) == Some(value)))
            }
            (Self::Range(a), Self::Range(b)) => a == b,
            (Self::Function(a), Self::Function(b)) => a == b,
            (Self::Iterator(a), Self::Iterator(b))
            | (Self::Namespace(a), Self::Namespace(b))
            | (Self::Macro(a), Self::Macro(b))
            | (Self::Loop(a), Self::Loop(b))
            | (Self::Cycler(a), Self::Cycler(b))
            | (Self::Joiner(a), Self::Joiner(b)) => a == b,
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((self.as_float(), other.as_float()), (Some(a), Some(b)) if a == b),
            },
        }
    }
}

fn write_items(out: &mut String, most: usize, brackets: [&str; 2], items: &[Value]) -> Result<()> {
    out.push_str(brackets[0]);
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        item.write_repr(out, most)?;
    }
    out.push_str(brackets[1]);
    Ok(())
}

pub(crate) fn range_len(&[start, stop, step]: &[i128; 3]) -> i128 {
    if step > 0 { (stop - start + step - 1).max(0) / step } else { (start - stop - step - 1).max(0) / -step }
}
