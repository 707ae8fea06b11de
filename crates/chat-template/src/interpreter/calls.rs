//! Attributes, items, iteration and calls.

use std::sync::Arc;

use crate::args::{CallArgs, int_argument, text_argument};
use crate::error::{Problem, Result, value_error};
use crate::interpreter::Interpreter;
use crate::ops;
use crate::value::{Dict, Function, Value};

/// The largest `range` that Jinja's sandbox makes.
const MAX_RANGE: i128 = 100_000;

const LIST_METHODS: [&str; 3] = ["copy", "count", "index"];
const DICT_METHODS: [&str; 6] = ["copy", "fromkeys", "get", "items", "keys", "values"];
/// Methods that the sandbox forbids.
const LIST_CHANGES: [&str; 8] = ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"];
const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

fn method_of(value: &Value, name: &str) -> Option<&'static str> {
    let methods: &[&'static str] = match value {
        Value::Str(_) => &crate::interpreter::methods::STR_METHODS,
        Value::List(_) => &LIST_METHODS,
        Value::Tuple(_) | Value::Range(_) => &LIST_METHODS[1..],
        Value::Dict(_) => &DICT_METHODS,
        Value::Loop(_) => &["cycle", "changed"],
        Value::Cycler(_) => &["next", "reset"],
        Value::Function(Function::Dict) => &["fromkeys"],
        Value::Int(_) | Value::Bool(_) => &["bit_length"],
        Value::Float(_) => &["is_integer"],
        _ => &[],
    };
    methods.iter().find(|method| **method == name).copied()
}

fn is_forbidden(value: &Value, name: &str) -> bool {
    name.starts_with("__")
        || match value {
            Value::List(_) => LIST_CHANGES.contains(&name),
            Value::Dict(_) => DICT_CHANGES.contains(&name),
            _ => false,
        }
}

impl Interpreter<'_> {
    /// `value.name`: the attribute, or else the item.
    pub(crate) fn get_attr(&mut self, value: &Value, name: &str) -> Result<Value> {
        let value = value.defined()?;
        if let Some(method) = method_of(value, name) {
            return Ok(Value::Method(Arc::new((value.clone(), method))));
        }
        match value {
            Value::Dict(dict) => {
                if let Some(found) = self.dict_get(dict, name)? {
                    return Ok(found);
                }
            }
            Value::Namespace(index) => {
                let fields = &self.namespaces[*index];
                if let Some((_, found)) = fields.iter().find(|(field, _)| &**field == name) {
                    return Ok(found.clone());
                }
            }
            Value::Loop(index) => {
                if let Some(found) = self.loop_attr(*index, name) {
                    return Ok(found);
                }
            }
            Value::Macro(index) if name == "name" => return Ok(Value::Str(self.macro_name(*index))),
            Value::Cycler(index) if name == "current" => {
                let (items, at) = &self.cyclers[*index];
                return Ok(items[*at].clone());
            }
            _ => {}
        }
        let kind = value.type_name();
        Ok(Value::undefined(if is_forbidden(value, name) {
            format!("access to attribute '{name}' of '{kind}' object is unsafe.")
        } else {
            format!("'{kind} object' has no attribute '{name}'")
        }))
    }

    fn dict_get(&mut self, dict: &Arc<Dict>, key: &str) -> Result<Option<Value>> {
        self.budget.steps(dict.entries.len() as u64 / 16)?;
        let found = dict.get_str(key);
        if dict.watched
            && let Some((Value::Str(key), _)) =
                dict.entries.iter().find(|(known, _)| known.as_str() == Some(key))
        {
            self.seen_keys.insert(key.clone());
        }
        Ok(found.cloned())
    }

    /// `value[key]`: the item, or else the attribute.
    pub(crate) fn get_item(&mut self, value: &Value, key: &Value) -> Result<Value> {
        match (value.defined()?, key) {
            (Value::Dict(dict), Value::Str(name)) => {
                if let Some(found) = self.dict_get(dict, name)? {
                    return Ok(found);
                }
            }
            (Value::Dict(dict), key) => {
                self.budget.steps(dict.entries.len() as u64 / 16)?;
                if let Some(found) = dict.get(key) {
                    return Ok(found.clone());
                }
            }
            (Value::List(seq) | Value::Tuple(seq), key) if key.as_int().is_some() => {
                if let Some(index) = index(key.as_int().unwrap_or(0), seq.items.len()) {
                    return Ok(seq.items[index].clone());
                }
            }
            (Value::Str(text), key) if key.as_int().is_some() => {
                self.budget.steps(text.len() as u64 / 256)?;
                let at = key.as_int().unwrap_or(0);
                let count = if text.is_ascii() { text.len() } else { text.chars().count() };
                if let Some(c) = index(at, count).and_then(|index| text.chars().nth(index)) {
                    return Ok(Value::str(c.to_string()));
                }
            }
            (Value::Range(range), key) if key.as_int().is_some() => {
                let items = ops::range_items(range, &mut self.budget)?;
                if let Some(index) = index(key.as_int().unwrap_or(0), items.len()) {
                    return Ok(items[index].clone());
                }
            }
            _ => {}
        }
        match key {
            Value::Str(name) if !matches!(value, Value::Dict(_)) || method_of(value, name).is_some() => {
                self.get_attr(value, name)
            }
            _ => {
                let mut shown = String::new();
                key.write_repr(&mut shown, 1000)?;
                Ok(Value::undefined(format!("'{} object' has no element {shown}", value.type_name())))
            }
        }
    }

    /// The items that iterating gives. An iterator is empty afterwards.
    pub(crate) fn iterate(&mut self, value: &Value) -> Result<Vec<Value>> {
        let items: Vec<Value> = match value {
            Value::Undefined(_) => Vec::new(),
            Value::List(seq) | Value::Tuple(seq) | Value::View(_, seq) => {
                self.budget.values(seq.items.len())?;
                seq.items.clone()
            }
            Value::Dict(dict) => {
                self.note_all(value);
                self.budget.values(dict.entries.len())?;
                dict.entries.iter().map(|(key, _)| key.clone()).collect()
            }
            Value::Str(text) => {
                self.budget.values(text.len())?;
                self.budget.bytes(text.len() as u128 * 24)?;
                let mut bytes = [0; 4];
                text.chars().map(|c| Value::str(&*c.encode_utf8(&mut bytes))).collect()
            }
            Value::Range(range) => ops::range_items(range, &mut self.budget)?,
            Value::Iterator(index) => {
                let items: Vec<Value> = std::mem::take(&mut self.iterators[*index]).collect();
                self.budget.values(items.len())?;
                items
            }
            other => return value_error(format!("'{}' object is not iterable", other.type_name())),
        };
        Ok(items)
    }

    pub(crate) fn iterator(&mut self, items: Vec<Value>) -> Result<Value> {
        self.budget.values(items.len() + 2)?;
        // The items' nesting is measured as a list's is.
        Value::list(items.clone())?;
        self.iterators.push(items.into_iter());
        Ok(Value::Iterator(self.iterators.len() - 1))
    }

    fn loop_attr(&self, index: usize, name: &str) -> Option<Value> {
        let state = &self.loops[index];
        let (at, count) = (state.index as i128, state.items.len() as i128);
        let neighbor = |at: Option<usize>, which: &str| {
            let found = at.and_then(|at| state.items.get(at)).cloned();
            found.unwrap_or_else(|| Value::undefined(format!("there is no {which} item")))
        };
        Some(match name {
            "index" => Value::Int(at + 1),
            "index0" => Value::Int(at),
            "revindex" => Value::Int(count - at),
            "revindex0" => Value::Int(count - at - 1),
            "first" => Value::Bool(at == 0),
            "last" => Value::Bool(at + 1 == count),
            "length" => Value::Int(count),
            "depth" => Value::Int(state.depth as i128 + 1),
            "depth0" => Value::Int(state.depth as i128),
            "previtem" => neighbor(state.index.checked_sub(1), "previous"),
            "nextitem" => neighbor(Some(state.index + 1), "next"),
            _ => return None,
        })
    }

    /// `value.name(…)`.
    pub(crate) fn call_attr(&mut self, value: &Value, name: &str, args: CallArgs) -> Result<Value> {
        match method_of(value.defined()?, name) {
            Some(method) => self.call_method(value, method, args),
            None => {
                let callee = self.get_attr(value, name)?;
                self.call(&callee, args)
            }
        }
    }

    pub(crate) fn call(&mut self, callee: &Value, args: CallArgs) -> Result<Value> {
        match callee.defined()? {
            Value::Function(function) => self.call_function(*function, args),
            Value::Method(method) => self.call_method(&method.0, method.1, args),
            Value::Macro(index) => self.call_macro(*index, args),
            Value::Loop(index) => {
                let [items] = args.bind("loop", ["iterable"])?;
                self.recurse(*index, &items.unwrap_or(Value::None))
            }
            Value::Joiner(index) => {
                let (separator, used) = &mut self.joiners[*index];
                let text = if std::mem::replace(used, true) { separator.clone() } else { "".into() };
                Ok(Value::Str(text))
            }
            other => value_error(format!("'{}' object is not callable", other.type_name())),
        }
    }

    fn call_method(&mut self, value: &Value, method: &'static str, args: CallArgs) -> Result<Value> {
        match value {
            Value::Str(text) => self.str_method(text, method, args),
            Value::List(seq) | Value::Tuple(seq) => self.list_method(value, &seq.items, method, args),
            Value::Range(range) => {
                let items = ops::range_items(range, &mut self.budget)?;
                self.list_method(value, &items, method, args)
            }
            Value::Dict(dict) => self.dict_method(dict, method, args),
            Value::Function(_) => self.dict_of_keys(args),
            Value::Loop(index) if method == "cycle" => {
                if args.positional.is_empty() {
                    return value_error("no items for cycling given");
                }
                Ok(args.positional[self.loops[*index].index % args.positional.len()].clone())
            }
            Value::Loop(index) => {
                let last = self.loops[*index].changed.replace(args.positional.clone());
                Ok(Value::Bool(last != Some(args.positional)))
            }
            Value::Cycler(index) => {
                let (items, at) = &mut self.cyclers[*index];
                let current = items[*at].clone();
                *at = if method == "next" { (*at + 1) % items.len() } else { 0 };
                Ok(if method == "next" { current } else { Value::None })
            }
            Value::Float(number) => Ok(Value::Bool(number.fract() == 0.0)),
            other => {
                Ok(Value::Int(128 - i128::from(other.as_int().unwrap_or(0).unsigned_abs().leading_zeros())))
            }
        }
    }

    fn list_method(&mut self, value: &Value, items: &[Value], method: &str, args: CallArgs) -> Result<Value> {
        if method == "copy" {
            return Ok(value.clone());
        }
        let [wanted] = args.bind(method, ["value"])?;
        let wanted = wanted.unwrap_or(Value::None);
        self.budget.steps(value.size())?;
        if method == "count" {
            return Ok(Value::Int(items.iter().filter(|item| **item == wanted).count() as i128));
        }
        match items.iter().position(|item| *item == wanted) {
            Some(at) => Ok(Value::Int(at as i128)),
            None => value_error("the value is not in the list"),
        }
    }

    fn dict_method(&mut self, dict: &Arc<Dict>, method: &'static str, args: CallArgs) -> Result<Value> {
        if method == "get" {
            let [key, default] = args.bind("get", ["key", "default"])?;
            let key = key.unwrap_or(Value::None);
            let found = match &key {
                Value::Str(key) => self.dict_get(dict, key)?,
                key => dict.get(key).cloned(),
            };
            return Ok(found.or(default).unwrap_or(Value::None));
        }
        self.note_all(&Value::Dict(dict.clone()));
        self.budget.values(dict.entries.len() * 2)?;
        let entries = dict.entries.iter();
        let (name, items) = match method {
            "keys" => ("dict_keys", entries.map(|(key, _)| key.clone()).collect()),
            "values" => ("dict_values", entries.map(|(_, value)| value.clone()).collect()),
            "items" => {
                let pair = |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
                ("dict_items", entries.map(pair).collect::<Result<_>>()?)
            }
            "fromkeys" => return self.dict_of_keys(args),
            _ => return Ok(Value::Dict(dict.clone())),
        };
        Ok(Value::View(name, crate::value::Seq::new(items)?))
    }

    fn dict_of_keys(&mut self, args: CallArgs) -> Result<Value> {
        let [keys, value] = args.bind("fromkeys", ["iterable", "value"])?;
        let keys = self.iterate(&keys.unwrap_or(Value::None))?;
        let value = value.unwrap_or(Value::None);
        let entries = keys.into_iter().map(|key| (key, value.clone())).collect();
        Ok(Value::Dict(Dict::new(entries, &mut self.budget)?))
    }

    fn call_function(&mut self, function: Function, args: CallArgs) -> Result<Value> {
        match function {
            Function::Range => {
                let numbers = args.positional.iter().map(int_argument).collect::<Result<Vec<_>>>()?;
                let range = match numbers[..] {
                    [stop] => [0, stop, 1],
                    [start, stop] => [start, stop, 1],
                    [start, stop, step] if step != 0 => [start, stop, step],
                    _ => return value_error("range takes a stop, a start and a step that is not zero"),
                };
                if numbers.iter().any(|number| number.unsigned_abs() > 1 << 100)
                    || crate::value::range_len(&range) > MAX_RANGE
                {
                    return Err(Problem::Limit("it makes a range of more than 100000 numbers"));
                }
                Ok(Value::Range(Arc::new(range)))
            }
            Function::Dict | Function::Namespace => {
                let mut entries = Vec::new();
                for value in &args.positional {
                    match value.defined()? {
                        Value::Dict(dict) => entries.extend(dict.entries.iter().cloned()),
                        other => {
                            for pair in self.iterate(other)? {
                                match &self.iterate(&pair)?[..] {
                                    [key, value] => entries.push((key.clone(), value.clone())),
                                    _ => return value_error("a dict is made of pairs"),
                                }
                            }
                        }
                    }
                }
                entries.extend(args.keyword.into_iter().map(|(name, value)| (Value::Str(name), value)));
                self.budget.values(entries.len() * 2 + 2)?;
                let dict = Dict::new(entries, &mut self.budget)?;
                if function == Function::Dict { Ok(Value::Dict(dict)) } else { self.namespace(&dict) }
            }
            Function::Cycler if args.positional.is_empty() => {
                value_error("at least one item has to be provided")
            }
            Function::Cycler => {
                self.budget.values(args.positional.len() + 2)?;
                self.cyclers.push((args.positional, 0));
                Ok(Value::Cycler(self.cyclers.len() - 1))
            }
            Function::Joiner => {
                self.budget.values(2)?;
                let [separator] = args.bind("joiner", ["sep"])?;
                let separator = separator.map_or(Ok(", ".into()), |sep| sep.to_str(&mut self.budget))?;
                self.joiners.push((separator, false));
                Ok(Value::Joiner(self.joiners.len() - 1))
            }
            Function::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"])?;
                let message = message.unwrap_or(Value::None).to_str(&mut self.budget)?;
                Err(Problem::Raised(message.to_string()))
            }
            Function::StrftimeNow => {
                let [pattern] = args.bind("strftime_now", ["format"])?;
                self.date(text_argument(&pattern.unwrap_or(Value::None))?)
            }
        }
    }

    fn namespace(&mut self, dict: &Dict) -> Result<Value> {
        let mut fields = Vec::new();
        for (name, value) in &dict.entries {
            match name {
                Value::Str(name) if name.starts_with('_') => {
                    return value_error(format!(
                        "cannot store underscore-prefixed attribute {name:?} on a namespace"
                    ));
                }
                Value::Str(name) => fields.push((name.clone(), value.clone())),
                _ => {}
            }
        }
        self.namespaces.push(fields);
        Ok(Value::Namespace(self.namespaces.len() - 1))
    }
}

/// The place that a Python index names.
fn index(at: i128, length: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(length as i128)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < length)
}
