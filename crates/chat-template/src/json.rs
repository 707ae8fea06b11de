//! Python's `json.dumps`.

use crate::error::{Problem, Result, value_error};
use crate::text;
use crate::value::Value;

/// The arguments of `json.dumps` that transformers' `tojson` takes.
pub(crate) struct Layout {
    pub(crate) ascii: bool,
    pub(crate) indent: Option<String>,
    pub(crate) item: String,
    pub(crate) key: String,
    pub(crate) sort_keys: bool,
    /// The longest text.
    pub(crate) most: usize,
}

impl Layout {
    /// `json.dumps(value, …)`.
    pub(crate) fn dumps(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        self.write(value, 0, &mut out)?;
        Ok(out)
    }

    fn check(&self, out: &str) -> Result<()> {
        if out.len() > self.most { Err(Problem::Limit("it makes too much text")) } else { Ok(()) }
    }

    fn write(&self, value: &Value, level: usize, out: &mut String) -> Result<()> {
        self.check(out)?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Float(number) => out.push_str(&float(*number)),
            Value::Str(text) => self.string(text, out),
            Value::List(seq) | Value::Tuple(seq) => {
                let write = |item: &Value, out: &mut String| self.write(item, level + 1, out);
                self.container(["[", "]"], &seq.items, level, out, write)?;
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries.iter().collect();
                if self.sort_keys {
                    let mut fault = Ok(());
                    entries.sort_by(|(a, _), (b, _)| match a.order(b) {
                        Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
                        Err(problem) => {
                            fault = Err(problem);
                            std::cmp::Ordering::Equal
                        }
                    });
                    fault?;
                }
                let write = |(key, value): &&(Value, Value), out: &mut String| {
                    self.string(&json_key(key)?, out);
                    out.push_str(&self.key);
                    self.write(value, level + 1, out)
                };
                self.container(["{", "}"], &entries, level, out, write)?;
            }
            other => {
                return value_error(format!("Object of type {} is not JSON serializable", other.type_name()));
            }
        }
        Ok(())
    }

    fn container<T>(
        &self,
        brackets: [&str; 2],
        items: &[T],
        level: usize,
        out: &mut String,
        write: impl Fn(&T, &mut String) -> Result<()>,
    ) -> Result<()> {
        out.push_str(brackets[0]);
        for (index, item) in items.iter().enumerate() {
            out.push_str(if index > 0 { &self.item } else { "" });
            self.new_line(level + 1, out)?;
            write(item, out)?;
        }
        if !items.is_empty() {
            self.new_line(level, out)?;
        }
        out.push_str(brackets[1]);
        Ok(())
    }

    fn new_line(&self, level: usize, out: &mut String) -> Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.push('\n');
        for _ in 0..level {
            self.check(out)?;
            out.push_str(indent);
        }
        Ok(())
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        let mut units = [0; 2];
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn float(number: f64) -> String {
    match number {
        n if n.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        n => text::float(n),
    }
}

fn json_key(key: &Value) -> Result<String> {
    Ok(match key {
        Value::Str(text) => text.to_string(),
        Value::None => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => float(*number),
        other => {
            let found = other.type_name();
            return value_error(format!("keys must be str, int, float, bool or None, not {found}"));
        }
    })
}
