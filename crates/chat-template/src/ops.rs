//! Python's operators.

use crate::ast::BinaryOp;
use crate::error::{Problem, Result, value_error};
use crate::format;
use crate::limits::Budget;
use crate::value::{Value, range_len};

/// `left op right`.
pub(crate) fn binary(op: BinaryOp, left: &Value, right: &Value, budget: &mut Budget) -> Result<Value> {
    let (left, right) = (left.defined()?, right.defined()?);
    match (op, left, right) {
        (BinaryOp::Add, Value::Str(a), Value::Str(b)) => {
            budget.bytes((a.len() + b.len()) as u128)?;
            Ok(Value::str([&**a, &**b].concat()))
        }
        (BinaryOp::Add, Value::List(a), Value::List(b)) => {
            budget.values(a.items.len() + b.items.len())?;
            Value::list([&a.items[..], &b.items].concat())
        }
        (BinaryOp::Add, Value::Tuple(a), Value::Tuple(b)) => {
            budget.values(a.items.len() + b.items.len())?;
            Value::tuple([&a.items[..], &b.items].concat())
        }
        (BinaryOp::Mod, Value::Str(format), values) => {
            Ok(Value::str(format::percent(format, values, budget)?))
        }
        (BinaryOp::Mul, sequence @ (Value::Str(_) | Value::List(_) | Value::Tuple(_)), count)
        | (BinaryOp::Mul, count, sequence @ (Value::Str(_) | Value::List(_) | Value::Tuple(_)))
            if count.as_int().is_some() =>
        {
            repeat(sequence, count.as_int().unwrap_or(0), budget)
        }
        _ => match (left.as_int(), right.as_int(), left.as_float(), right.as_float()) {
            (Some(a), Some(b), ..) => int(op, a, b),
            (_, _, Some(a), Some(b)) => float(op, a, b),
            _ => {
                let (a, b) = (left.type_name(), right.type_name());
                value_error(format!("unsupported operand type(s) for {}: '{a}' and '{b}'", op.symbol()))
            }
        },
    }
}

fn repeat(sequence: &Value, count: i128, budget: &mut Budget) -> Result<Value> {
    let times = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    let charged = |size: usize| (size as u128).saturating_mul(times as u128);
    match sequence {
        Value::Str(text) => {
            budget.bytes(charged(text.len()))?;
            Ok(Value::str(text.repeat(if text.is_empty() { 0 } else { times })))
        }
        Value::List(seq) | Value::Tuple(seq) => {
            budget.bytes(charged(seq.items.len() * size_of::<Value>()))?;
            let count = seq.items.len() * if seq.items.is_empty() { 0 } else { times };
            let items = seq.items.iter().cycle().take(count).cloned().collect();
            if matches!(sequence, Value::List(_)) { Value::list(items) } else { Value::tuple(items) }
        }
        other => Ok(other.clone()),
    }
}

const TOO_LARGE: Problem = Problem::Limit("it computes a number of more than 38 digits");

fn int(op: BinaryOp, a: i128, b: i128) -> Result<Value> {
    let zero = || Problem::Value("division by zero".to_owned());
    let number = match op {
        BinaryOp::Add => a.checked_add(b),
        BinaryOp::Sub => a.checked_sub(b),
        BinaryOp::Mul => a.checked_mul(b),
        BinaryOp::Div if b == 0 => return Err(zero()),
        BinaryOp::Div => return Ok(Value::Float(a as f64 / b as f64)),
        BinaryOp::FloorDiv | BinaryOp::Mod if b == 0 => return Err(zero()),
        BinaryOp::FloorDiv => {
            let quotient = a.checked_div(b).ok_or(TOO_LARGE)?;
            // Rust rounds to zero, Python down.
            Some(quotient - i128::from(a % b != 0 && (a < 0) != (b < 0)))
        }
        BinaryOp::Mod => {
            a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }
        BinaryOp::Pow if b < 0 && a == 0 => return Err(zero()),
        BinaryOp::Pow if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
        BinaryOp::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)).or(match a {
            0 | 1 => Some(a),
            -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
            _ => None,
        }),
    };
    number.map(Value::Int).ok_or(TOO_LARGE)
}

fn float(op: BinaryOp, a: f64, b: f64) -> Result<Value> {
    let divides = matches!(op, BinaryOp::Div | BinaryOp::FloorDiv | BinaryOp::Mod);
    if divides && b == 0.0 {
        return value_error("float division by zero");
    }
    let rest = || {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    Ok(Value::Float(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::FloorDiv => ((a - rest()) / b).round(),
        BinaryOp::Mod => rest(),
        BinaryOp::Pow => a.powf(b),
    }))
}

/// `item in container`, where that needs no iterator.
pub(crate) fn contains(container: &Value, item: &Value, budget: &mut Budget) -> Result<Option<bool>> {
    let size = container.size();
    budget.steps(size / 8)?;
    Ok(Some(match container {
        Value::Str(text) => match item.defined()? {
            Value::Str(part) => text.contains(&**part),
            other => {
                let found = other.type_name();
                return value_error(format!("'in <string>' requires string as left operand, not {found}"));
            }
        },
        Value::List(seq) | Value::Tuple(seq) | Value::View(_, seq) => {
            budget.steps(item.size().min(size))?;
            seq.items.contains(item)
        }
        Value::Dict(dict) => dict.get(item).is_some(),
        Value::Range(range) => {
            let [start, _, step] = **range;
            item.as_int().is_some_and(|item| {
                let offset = (item - start) / step;
                (item - start) % step == 0 && (0..range_len(range)).contains(&offset)
            })
        }
        Value::Undefined(_) => false,
        _ => return Ok(None),
    }))
}

/// `value[start:stop:step]`.
pub(crate) fn slice(value: &Value, parts: [Option<Value>; 3], budget: &mut Budget) -> Result<Value> {
    let mut bounds = [None; 3];
    for (bound, part) in bounds.iter_mut().zip(&parts) {
        *bound = match part {
            None | Some(Value::None) => None,
            Some(part) => match part.defined()?.as_int() {
                Some(number) => Some(number),
                None => {
                    return value_error("slice indices must be integers or None or have an __index__ method");
                }
            },
        };
    }
    let [start, stop, step] = bounds;
    let step = step.unwrap_or(1);
    if step == 0 {
        return value_error("slice step cannot be zero");
    }
    // A conversation has no million messages: such a step only tries what an interpreter bears.
    budget.steps(u64::try_from(step.unsigned_abs()).unwrap_or(u64::MAX))?;
    match value.defined()? {
        Value::Str(text) => {
            budget.bytes(text.len() as u128 * 5)?;
            let chars: Vec<char> = text.chars().collect();
            let picked = indices(chars.len(), start, stop, step);
            Ok(Value::str(picked.map(|index| chars[index]).collect::<String>()))
        }
        Value::List(seq) | Value::Tuple(seq) => {
            budget.values(seq.items.len())?;
            let picked = indices(seq.items.len(), start, stop, step);
            let items = picked.map(|index| seq.items[index].clone()).collect();
            if matches!(value, Value::List(_)) { Value::list(items) } else { Value::tuple(items) }
        }
        Value::Range(range) => {
            let items = range_items(range, budget)?;
            let picked = indices(items.len(), start, stop, step);
            Value::list(picked.map(|index| items[index].clone()).collect())
        }
        other => value_error(format!("'{}' object is not subscriptable", other.type_name())),
    }
}

/// All numbers of a range.
pub(crate) fn range_items(range: &[i128; 3], budget: &mut Budget) -> Result<Vec<Value>> {
    let count = usize::try_from(range_len(range)).unwrap_or(usize::MAX);
    budget.values(count)?;
    Ok((0..count as i128).map(|index| Value::Int(range[0] + index * range[2])).collect())
}

fn indices(
    length: usize,
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
) -> impl Iterator<Item = usize> {
    let length = length as i128;
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamp = |bound: i128| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high);
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (start, stop) = (start.map_or(first, clamp), stop.map_or(last, clamp));
    let distance = if step > 0 { stop - start } else { start - stop };
    let size = step.unsigned_abs();
    let count = if distance > 0 { (distance as u128).div_ceil(size) } else { 0 };
    (0..count).map(move |index| {
        let offset = step * index as i128;
        usize::try_from(start + offset).unwrap_or(0)
    })
}
