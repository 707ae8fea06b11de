//! Filters that choose, order and group items.

use std::cmp::Ordering;

use crate::args::{CallArgs, int_argument, text_argument};
use crate::error::{Result, value_error};
use crate::interpreter::Interpreter;
use crate::value::Value;

impl Interpreter<'_> {
    /// `item.a.b` for the attribute `"a.b"`, by items first.
    pub(crate) fn attribute(
        &mut self,
        item: Value,
        attribute: Option<&Value>,
        default: Option<&Value>,
    ) -> Result<Value> {
        let parts: Vec<Value> = match attribute {
            None | Some(Value::None) => return Ok(item),
            Some(Value::Str(path)) => {
                let part = |part: &str| match part.parse() {
                    Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
                    _ => Value::str(part),
                };
                path.split('.').map(part).collect()
            }
            Some(other) => vec![other.clone()],
        };
        let mut value = item;
        for part in parts {
            value = self.get_item(&value, &part)?;
            if let (Value::Undefined(_), Some(default)) = (&value, default) {
                value = default.clone();
            }
        }
        Ok(value)
    }

    pub(crate) fn choose(&mut self, name: &str, value: &Value, mut args: CallArgs) -> Result<Value> {
        if name != "map" && !value.is_true() {
            return self.iterator(Vec::new());
        }
        let items = self.iterate(value)?;
        let mut out = Vec::with_capacity(items.len());
        if name == "map" {
            if args.positional.is_empty()
                && let Some(attribute) = args.take("attribute")
            {
                let default = args.take("default");
                for item in items {
                    out.push(self.attribute(item, Some(&attribute), default.as_ref())?);
                }
                return self.iterator(out);
            }
            if args.positional.is_empty() {
                return value_error("map requires a filter argument");
            }
            let filter = args.positional.remove(0).to_str(&mut self.budget)?;
            for item in items {
                out.push(self.filter(&filter, item, args.clone())?);
            }
            return self.iterator(out);
        }
        let by_attribute = name.ends_with("attr");
        if by_attribute && args.positional.is_empty() {
            return value_error("Missing parameter for attribute name");
        }
        let attribute = by_attribute.then(|| args.positional.remove(0));
        let test = if args.positional.is_empty() {
            None
        } else {
            Some(args.positional.remove(0).to_str(&mut self.budget)?)
        };
        for item in items {
            let looked_at = self.attribute(item.clone(), attribute.as_ref(), None)?;
            let passes = match &test {
                Some(test) => self.test(test, &looked_at, args.clone())?,
                None => looked_at.is_true(),
            };
            if passes == name.starts_with("select") {
                out.push(item);
            }
        }
        self.iterator(out)
    }

    pub(crate) fn order(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<Value> {
        match name {
            "sum" => {
                let [attribute, start] = args.bind(name, ["attribute", "start"])?;
                let mut sum = start.unwrap_or(Value::Int(0));
                for item in self.iterate(value)? {
                    let item = self.attribute(item, attribute.as_ref(), None)?;
                    sum = crate::ops::binary(crate::ast::BinaryOp::Add, &sum, &item, &mut self.budget)?;
                }
                Ok(sum)
            }
            "dictsort" => {
                let [case, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"])?;
                let at = match by.as_ref().map_or(Ok("key"), text_argument)? {
                    "key" => 0,
                    "value" => 1,
                    _ => return value_error("You can only sort by either \"key\" or \"value\""),
                };
                let view = self.call_attr(value, "items", CallArgs::default())?;
                let items = self.iterate(&view)?;
                self.sorted(items, Some(&Value::Int(at)), &case, &reverse).and_then(Value::list)
            }
            "sort" => {
                let [reverse, case, attribute] =
                    args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
                let mut items = self.iterate(value)?;
                // Of several attributes the first counts most, and sorting keeps the order of equals.
                let attributes: Vec<Option<Value>> = match &attribute {
                    Some(Value::Str(names)) => names.split(',').map(|name| Some(Value::str(name))).collect(),
                    other => vec![other.clone()],
                };
                for attribute in attributes.iter().rev() {
                    items = self.sorted(items, attribute.as_ref(), &case, &reverse)?;
                }
                Value::list(items)
            }
            "groupby" => {
                let [attribute, default, case] =
                    args.bind(name, ["attribute", "default", "case_sensitive"])?;
                self.group(value, attribute.as_ref(), default.as_ref(), &case)
            }
            _ => {
                let [case, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
                let items = self.iterate(value)?;
                let keys = self.keys(&items, attribute.as_ref(), None, &case)?;
                if name == "unique" {
                    let mut kept: Vec<usize> = Vec::new();
                    for (index, key) in keys.iter().enumerate() {
                        self.budget.steps(kept.len() as u64 / 4 + key.size())?;
                        if !kept.iter().any(|kept| keys[*kept] == *key) {
                            kept.push(index);
                        }
                    }
                    return self.iterator(kept.into_iter().map(|index| items[index].clone()).collect());
                }
                let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
                let mut best = 0;
                for index in 1..items.len() {
                    if keys[index].order(&keys[best])? == Some(wanted) {
                        best = index;
                    }
                }
                let missing = || Value::undefined("No aggregated item, sequence was empty.");
                Ok(items.get(best).cloned().unwrap_or_else(missing))
            }
        }
    }

    /// What items are compared by.
    fn keys(
        &mut self,
        items: &[Value],
        attribute: Option<&Value>,
        default: Option<&Value>,
        case_sensitive: &Option<Value>,
    ) -> Result<Vec<Value>> {
        let ignores_case = !case_sensitive.as_ref().is_some_and(Value::is_true);
        let mut keys = Vec::with_capacity(items.len());
        for item in items {
            keys.push(match self.attribute(item.clone(), attribute, default)? {
                Value::Str(text) if ignores_case => {
                    let lower = text.to_lowercase();
                    self.string(&lower)?
                }
                key => key,
            });
        }
        Ok(keys)
    }

    fn sorted(
        &mut self,
        items: Vec<Value>,
        attribute: Option<&Value>,
        case_sensitive: &Option<Value>,
        reverse: &Option<Value>,
    ) -> Result<Vec<Value>> {
        let keys = self.keys(&items, attribute, None, case_sensitive)?;
        let size = keys.iter().map(Value::size).sum::<u64>();
        self.budget.steps(size.saturating_mul(u64::from(items.len().checked_ilog2().unwrap_or(0)) + 1))?;
        let mut keyed: Vec<(Value, Value)> = keys.into_iter().zip(items).collect();
        let mut fault = Ok(());
        keyed.sort_by(|(a, _), (b, _)| {
            let order = match a.order(b) {
                Ok(order) => order.unwrap_or(Ordering::Equal),
                Err(problem) => {
                    fault = Err(problem);
                    Ordering::Equal
                }
            };
            if reverse.as_ref().is_some_and(Value::is_true) { order.reverse() } else { order }
        });
        fault?;
        Ok(keyed.into_iter().map(|(_, item)| item).collect())
    }

    fn group(
        &mut self,
        value: &Value,
        attribute: Option<&Value>,
        default: Option<&Value>,
        case_sensitive: &Option<Value>,
    ) -> Result<Value> {
        let items = self.iterate(value)?;
        let keys = self.keys(&items, attribute, default, case_sensitive)?;
        let pairs = keys.into_iter().zip(items).map(|(key, item)| Value::tuple(vec![key, item]));
        let pairs = pairs.collect::<Result<Vec<_>>>()?;
        let sorted = self.sorted(pairs, Some(&Value::Int(0)), &Some(Value::Bool(true)), &None)?;
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for pair in sorted {
            let Value::Tuple(pair) = pair else { continue };
            let (key, item) = (&pair.items[0], pair.items[1].clone());
            match groups.last_mut().filter(|(last, _)| last == key) {
                Some((_, group)) => group.push(item),
                None => groups.push((key.clone(), vec![item])),
            }
        }
        let mut out = Vec::new();
        for (_, group) in groups {
            // The key as the first item has it, with its case.
            let key = self.attribute(group[0].clone(), attribute, default)?;
            out.push(Value::tuple(vec![key, Value::list(group)?])?);
        }
        Value::list(out)
    }

    /// `batch` and `slice`.
    pub(crate) fn pieces(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<Value> {
        let [count, fill] = args.bind(name, ["count", "fill_with"])?;
        let count = int_argument(&count.unwrap_or(Value::None))?;
        let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
            return value_error(format!("{name} needs a number above 0"));
        };
        let fill = fill.filter(|fill| !matches!(fill, Value::None));
        let items = self.iterate(value)?;
        self.budget.values(count.saturating_add(items.len()))?;
        let mut pieces: Vec<Vec<Value>> = Vec::new();
        if name == "batch" {
            pieces.extend(items.chunks(count).map(<[Value]>::to_vec));
            if let (Some(last), Some(fill)) = (pieces.last_mut(), fill) {
                last.resize(count, fill);
            }
        } else {
            let (size, larger) = (items.len() / count, items.len() % count);
            let mut rest = items.into_iter();
            for index in 0..count {
                let mut piece: Vec<Value> = rest.by_ref().take(size + usize::from(index < larger)).collect();
                piece.extend(fill.clone().filter(|_| index >= larger));
                pieces.push(piece);
            }
        }
        let pieces = pieces.into_iter().map(Value::list).collect::<Result<Vec<_>>>()?;
        self.iterator(pieces)
    }
}
