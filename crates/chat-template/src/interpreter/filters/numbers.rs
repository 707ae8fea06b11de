//! Filters that compute numbers.

use std::cmp::Ordering;

use crate::args::{CallArgs, int_argument};
use crate::error::{Problem, Result, value_error};
use crate::interpreter::Interpreter;
use crate::text;
use crate::value::Value;

impl Interpreter<'_> {
    pub(crate) fn number_filter(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<Value> {
        match name {
            "abs" => match value.defined()? {
                Value::Float(number) => Ok(Value::Float(number.abs())),
                other => match other.as_int() {
                    Some(number) => Ok(Value::Int(number.checked_abs().unwrap_or(i128::MAX))),
                    None => value_error(format!("bad operand type for abs(): '{}'", other.type_name())),
                },
            },
            "float" => {
                let [default] = args.bind(name, ["default"])?;
                let number = match value.defined()? {
                    Value::Str(text) => parse_float(text),
                    other => other.as_float(),
                };
                Ok(number.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "int" => {
                let [default, base] = args.bind(name, ["default", "base"])?;
                let base = base.as_ref().map_or(Ok(10), int_argument)?;
                let number = match value.defined()? {
                    Value::Str(text) => parse_int(text, base).or_else(|| truncated(parse_float(text)?)),
                    Value::Float(number) => truncated(*number),
                    other => other.as_int(),
                };
                Ok(number.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
            }
            _ => self.round(value, args),
        }
    }

    fn round(&mut self, value: &Value, args: CallArgs) -> Result<Value> {
        let [precision, method] = args.bind("round", ["precision", "method"])?;
        let precision = precision.as_ref().map_or(Ok(0), int_argument)?.clamp(-400, 400);
        let method = method.map_or(Ok("common".into()), |method| method.to_str(&mut self.budget))?;
        if !matches!(&*method, "common" | "ceil" | "floor") {
            return value_error("method must be common, ceil or floor");
        }
        let Some(number) = value.defined()?.as_float() else {
            return value_error(format!("type {} doesn't define __round__ method", value.type_name()));
        };
        if &*method != "common" {
            let scale = 10_f64.powi(i32::try_from(precision).unwrap_or(0));
            let scaled = number * scale;
            return Ok(Value::Float(if &*method == "ceil" { scaled.ceil() } else { scaled.floor() } / scale));
        }
        match value.as_int() {
            Some(number) if precision >= 0 => Ok(Value::Int(number)),
            Some(number) => {
                let Some(unit) = u32::try_from(-precision).ok().and_then(|power| 10_i128.checked_pow(power))
                else {
                    return Ok(Value::Int(0));
                };
                let (down, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
                let up = match (2 * rest).cmp(&unit) {
                    Ordering::Greater => 1,
                    Ordering::Equal => down.rem_euclid(2),
                    Ordering::Less => 0,
                };
                (down + up)
                    .checked_mul(unit)
                    .map(Value::Int)
                    .ok_or(Problem::Limit("it computes a number of more than 38 digits"))
            }
            None if !number.is_finite() => Ok(Value::Float(number)),
            None => Ok(Value::Float(match usize::try_from(precision) {
                // Correctly rounded decimal digits, half to even.
                Ok(digits) => format!("{number:.digits$}").parse().unwrap_or(number),
                Err(_) => {
                    let unit = 10_f64.powi(i32::try_from(-precision).unwrap_or(400));
                    let rounded = (number / unit).round_ties_even() * unit;
                    if rounded.is_nan() { 0.0_f64.copysign(number) } else { rounded }
                }
            })),
        }
    }
}

fn truncated(number: f64) -> Option<i128> {
    number.is_finite().then_some(number.trunc() as i128)
}

fn clean_number(text: &str) -> Option<String> {
    let text = text.trim_matches(text::is_space);
    let bytes = text.as_bytes();
    // Underscores may only be between digits.
    let at_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    let misplaced = (0..bytes.len())
        .any(|at| bytes[at] == b'_' && !(at_digit(at.checked_sub(1)) && at_digit(Some(at + 1))));
    (!misplaced).then(|| text.replace('_', ""))
}

fn parse_int(text: &str, base: i128) -> Option<i128> {
    let text = clean_number(text)?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    let digits = lower.strip_prefix(prefix).unwrap_or(&lower);
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base))?;
    let number = digits.starts_with(|c: char| c.is_ascii_alphanumeric()).then_some(digits)?;
    let number = i128::from_str_radix(number, base).ok()?;
    Some(if negative { -number } else { number })
}

fn parse_float(text: &str) -> Option<f64> {
    let text = clean_number(text)?;
    let lower = text.to_ascii_lowercase();
    let name = lower.trim_start_matches(['+', '-']);
    let is_name = matches!(name, "inf" | "infinity" | "nan");
    let is_number = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b));
    (is_name || is_number).then(|| lower.parse().ok()).flatten()
}
