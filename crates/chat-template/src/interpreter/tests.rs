//! Jinja's tests, as in `value is defined`.

use crate::args::{CallArgs, int_argument, text_argument};
use crate::ast::CompareOp;
use crate::error::{Problem, Result, value_error};
use crate::interpreter::Interpreter;
use crate::value::Value;

impl Interpreter<'_> {
    pub(crate) fn test(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<bool> {
        let compare = match name {
            "eq" | "equalto" | "==" => Some(CompareOp::Eq),
            "ne" | "!=" => Some(CompareOp::Ne),
            "lt" | "lessthan" | "<" => Some(CompareOp::Lt),
            "le" | "<=" => Some(CompareOp::Le),
            "gt" | "greaterthan" | ">" => Some(CompareOp::Gt),
            "ge" | ">=" => Some(CompareOp::Ge),
            "in" => Some(CompareOp::In),
            _ => None,
        };
        if compare.is_some() || matches!(name, "divisibleby" | "sameas") {
            let [Some(other)] = args.bind(name, ["other"])? else {
                return value_error(format!("the test '{name}' needs a value to compare with"));
            };
            return match (compare, name) {
                (Some(op), _) => self.compare(op, value, &other),
                (None, "sameas") => Ok(is_same(value, &other)),
                (None, _) => Ok(self.remainder(value, int_argument(&other)?)? == 0),
            };
        }
        let [] = args.bind(name, [])?;
        Ok(match name {
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_float().is_some(),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" => matches!(
                value,
                Value::Str(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
                    | Value::Undefined(_)
            ),
            "iterable" => matches!(
                value,
                Value::Str(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
                    | Value::View(..)
                    | Value::Iterator(_)
                    | Value::Loop(_)
                    | Value::Undefined(_)
            ),
            "callable" => matches!(
                value,
                Value::Function(_)
                    | Value::Method(_)
                    | Value::Macro(_)
                    | Value::Loop(_)
                    | Value::Joiner(_)
                    | Value::Undefined(_)
            ),
            "odd" => self.remainder(value, 2)? == 1,
            "even" => self.remainder(value, 2)? == 0,
            "lower" | "upper" => {
                let text = value.to_str(&mut self.budget)?;
                let method = if name == "lower" { "islower" } else { "isupper" };
                self.str_method(&text, method, CallArgs::default())?.is_true()
            }
            // Nothing is escaped here.
            "escaped" => false,
            "filter" => crate::interpreter::filters::FILTERS.contains(&text_argument(value)?),
            "test" => TESTS.contains(&text_argument(value)?),
            _ => return Err(Problem::Syntax(format!("No test named '{name}'."))),
        })
    }

    fn remainder(&mut self, value: &Value, divisor: i128) -> Result<i128> {
        match value.defined()?.as_int() {
            Some(_) if divisor == 0 => value_error("integer modulo by zero"),
            Some(number) => Ok(number.rem_euclid(divisor)),
            None => value_error(format!("a number is expected, not '{}'", value.type_name())),
        }
    }
}

/// All tests, by name.
const TESTS: [&str; 37] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
];

/// `value is other` of Python.
fn is_same(value: &Value, other: &Value) -> bool {
    use std::sync::Arc;
    match (value, other) {
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Arc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Arc::ptr_eq(a, b),
        _ => value.type_name() == other.type_name() && value == other,
    }
}
