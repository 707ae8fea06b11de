//! Evaluates expressions.

use crate::args::CallArgs;
use crate::ast::{Args, CompareOp, Expr};
use crate::error::{Problem, Result, value_error};
use crate::interpreter::Interpreter;
use crate::ops;
use crate::value::{Dict, Value};

impl<'t> Interpreter<'t> {
    pub(crate) fn eval(&mut self, expr: &'t Expr) -> Result<Value> {
        self.budget.enter()?;
        let value = self.eval_inner(expr)?;
        self.budget.leave();
        Ok(value)
    }

    pub(crate) fn eval_all(&mut self, exprs: &'t [Expr]) -> Result<Vec<Value>> {
        self.budget.values(exprs.len())?;
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn eval_inner(&mut self, expr: &'t Expr) -> Result<Value> {
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Name(name) => Ok(self.lookup(name)),
            Expr::Tuple(items) => Value::tuple(self.eval_all(items)?),
            Expr::List(items) => Value::list(self.eval_all(items)?),
            Expr::Dict(entries) => {
                self.budget.values(entries.len() * 2)?;
                let entry = |(key, value): &'t (Expr, Expr)| Ok((self.eval(key)?, self.eval(value)?));
                let entries = entries.iter().map(entry).collect::<Result<_>>()?;
                Ok(Value::Dict(Dict::new(entries, &mut self.budget)?))
            }
            Expr::Cond { test, then, other } => match (self.eval(test)?.is_true(), other) {
                (true, _) => self.eval(then),
                (false, Some(other)) => self.eval(other),
                (false, None) => Ok(Value::undefined(
                    "the inline if-expression evaluated to false and no else section was defined.",
                )),
            },
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { self.eval(right) } else { Ok(left) }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { Ok(left) } else { self.eval(right) }
            }
            Expr::Not(expr) => Ok(Value::Bool(!self.eval(expr)?.is_true())),
            Expr::Neg(expr) => negate(self.eval(expr)?.defined()?),
            Expr::Pos(expr) => plus(&self.eval(expr)?),
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (op, right) in rest {
                    let right = self.eval(right)?;
                    if !self.compare(*op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                ops::binary(*op, &left, &right, &mut self.budget)
            }
            Expr::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    let value = self.eval(part)?;
                    self.note_all(&value);
                    value.write_str(&mut text, &mut self.budget)?;
                }
                Ok(Value::str(text))
            }
            Expr::Attr(value, name) => {
                let value = self.eval(value)?;
                self.get_attr(&value, name)
            }
            Expr::Item(value, key) => {
                let (value, key) = (self.eval(value)?, self.eval(key)?);
                self.get_item(&value, &key)
            }
            Expr::Slice(value, parts) => {
                let value = self.eval(value)?;
                let mut bounds = [None, None, None];
                for (bound, part) in bounds.iter_mut().zip(parts) {
                    if let Some(part) = part {
                        *bound = Some(self.eval(part)?);
                    }
                }
                ops::slice(&value, bounds, &mut self.budget)
            }
            Expr::Call(callee, args) => {
                if let Expr::Attr(value, name) = &**callee {
                    let value = self.eval(value)?;
                    let args = self.args(args)?;
                    return self.call_attr(&value, name, args);
                }
                let callee = self.eval(callee)?;
                let args = self.args(args)?;
                self.call(&callee, args)
            }
            Expr::Filter(value, name, args) => {
                let value = self.eval(value)?;
                let args = self.args(args)?;
                self.filter(name, value, args)
            }
            Expr::Test(value, name, args) => {
                let value = self.eval(value)?;
                let args = self.args(args)?;
                Ok(Value::Bool(self.test(name, &value, args)?))
            }
            Expr::Captured => Ok(self.captured.last().cloned().unwrap_or(Value::None)),
        }
    }

    pub(crate) fn compare(&mut self, op: CompareOp, left: &Value, right: &Value) -> Result<bool> {
        self.budget.steps(left.size().min(right.size()))?;
        Ok(match op {
            CompareOp::Eq => left == right,
            CompareOp::Ne => left != right,
            CompareOp::In => self.contains(right, left)?,
            CompareOp::NotIn => !self.contains(right, left)?,
            CompareOp::Lt => left.order(right)?.is_some_and(|order| order.is_lt()),
            CompareOp::Le => left.order(right)?.is_some_and(|order| order.is_le()),
            CompareOp::Gt => left.order(right)?.is_some_and(|order| order.is_gt()),
            CompareOp::Ge => left.order(right)?.is_some_and(|order| order.is_ge()),
        })
    }

    pub(crate) fn contains(&mut self, container: &Value, item: &Value) -> Result<bool> {
        if let (Value::Dict(dict), Value::Str(key)) = (container, item)
            && dict.watched
        {
            self.seen_keys.insert(key.clone());
        }
        if let Some(found) = ops::contains(container, item, &mut self.budget)? {
            return Ok(found);
        }
        match container {
            Value::Iterator(_) => Ok(self.iterate(container)?.contains(item)),
            other => value_error(format!("argument of type '{}' is not iterable", other.type_name())),
        }
    }

    pub(crate) fn args(&mut self, args: &'t Args) -> Result<CallArgs> {
        let mut positional = self.eval_all(&args.positional)?;
        let mut keyword = Vec::with_capacity(args.keyword.len());
        for (name, expr) in &args.keyword {
            keyword.push((name.clone(), self.eval(expr)?));
        }
        if let Some(list) = &args.list {
            let list = self.eval(list)?;
            positional.extend(self.iterate(&list)?);
        }
        if let Some(dict) = &args.dict {
            match self.eval(dict)? {
                Value::Dict(dict) => {
                    for (key, value) in &dict.entries {
                        let Value::Str(key) = key else { return value_error("keywords must be strings") };
                        keyword.push((key.clone(), value.clone()));
                    }
                }
                other => {
                    let found = other.type_name();
                    return value_error(format!("argument after ** must be a mapping, not {found}"));
                }
            }
        }
        Ok(CallArgs { positional, keyword })
    }
}

fn negate(value: &Value) -> Result<Value> {
    if let Value::Float(number) = value {
        return Ok(Value::Float(-number));
    }
    let Some(number) = value.as_int() else {
        return value_error(format!("bad operand type for unary -: '{}'", value.type_name()));
    };
    let negative = number.checked_neg();
    Ok(Value::Int(negative.ok_or(Problem::Limit("it computes a number of more than 38 digits"))?))
}

fn plus(value: &Value) -> Result<Value> {
    if let Value::Float(number) = value {
        return Ok(Value::Float(*number));
    }
    match value.defined()?.as_int() {
        Some(number) => Ok(Value::Int(number)),
        None => value_error(format!("bad operand type for unary +: '{}'", value.type_name())),
    }
}
