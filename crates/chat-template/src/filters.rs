//! Jinja's filters.

use std::cmp::Ordering;

use crate::calls::{CallArgs, int_argument, text_argument};
use crate::error::{Problem, Result, value_error};
use crate::format;
use crate::interpreter::Interpreter;
use crate::json::Layout;
use crate::text;
use crate::value::Value;

/// All filters, by name.
pub(crate) const FILTERS: [&str; 48] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
];

impl Interpreter<'_> {
    pub(crate) fn filter(&mut self, name: &str, value: Value, args: CallArgs) -> Result<Value> {
        match name {
            "capitalize" | "lower" | "upper" | "title" | "trim" | "center" | "indent" | "truncate"
            | "wordcount" | "replace" | "format" | "e" | "escape" | "forceescape" | "safe" | "string"
            | "striptags" | "urlencode" => self.text_filter(name, &value, args),
            "abs" | "float" | "int" | "round" => self.number_filter(name, &value, args),
            "map" | "select" | "reject" | "selectattr" | "rejectattr" => self.choose(name, &value, args),
            "sort" | "unique" | "min" | "max" | "groupby" | "dictsort" | "sum" => {
                self.order(name, &value, args)
            }
            "default" | "d" => {
                let [default, falsy] = args.bind(name, ["default_value", "boolean"])?;
                let replaced = matches!(value, Value::Undefined(_))
                    || (falsy.is_some_and(|falsy| falsy.is_true()) && !value.is_true());
                Ok(if replaced { default.unwrap_or_else(|| Value::str("")) } else { value })
            }
            "tojson" => self.tojson(&value, args),
            "length" | "count" => {
                let [] = args.bind(name, [])?;
                self.length(&value)
            }
            "list" => {
                let items = self.iterate(&value)?;
                Value::list(items)
            }
            "items" => match &value {
                Value::Undefined(_) => self.iterator(Vec::new()),
                Value::Dict(_) => {
                    let view = self.call_attr(&value, "items", CallArgs::default())?;
                    let items = self.iterate(&view)?;
                    self.iterator(items)
                }
                _ => value_error("Can only get item pairs from a mapping."),
            },
            "first" => {
                let mut items = self.iterate(&value)?.into_iter();
                Ok(items.next().unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
            }
            "last" => match value {
                Value::Iterator(_) => value_error("'generator' object is not reversible"),
                value => {
                    let last = self.iterate(&value)?.pop();
                    Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
                }
            },
            "reverse" => match &value {
                Value::Str(text) => {
                    let reversed: String = text.chars().rev().collect();
                    self.string(&reversed)
                }
                value => {
                    let mut items = self.iterate(value)?;
                    items.reverse();
                    self.iterator(items)
                }
            },
            "join" => {
                let [separator, attribute] = args.bind(name, ["d", "attribute"])?;
                let separator = separator.unwrap_or_else(|| Value::str("")).to_str(&mut self.budget)?;
                let mut out = String::new();
                for (index, item) in self.iterate(&value)?.into_iter().enumerate() {
                    let item = self.attribute(item, attribute.as_ref(), None)?;
                    self.budget.bytes(separator.len() as u128)?;
                    out.push_str(if index > 0 { &separator } else { "" });
                    self.note_all(&item);
                    item.write_str(&mut out, &mut self.budget)?;
                }
                Ok(Value::str(out))
            }
            "attr" => {
                let [attribute] = args.bind(name, ["name"])?;
                let attribute = attribute.unwrap_or(Value::None).to_str(&mut self.budget)?;
                // Items do not count, unlike with a dot.
                match value {
                    Value::Dict(_) => {
                        Ok(Value::undefined(format!("'dict object' has no attribute '{attribute}'")))
                    }
                    value => self.get_attr(&value, &attribute),
                }
            }
            "batch" | "slice" => self.pieces(name, &value, args),
            "random" | "pprint" | "wordwrap" | "urlize" | "xmlattr" | "filesizeformat" => {
                Err(Problem::Syntax(format!("the filter `{name}` is not supported in chat templates")))
            }
            _ => Err(Problem::Syntax(format!("No filter named '{name}'."))),
        }
    }

    fn length(&mut self, value: &Value) -> Result<Value> {
        Ok(Value::Int(match value {
            Value::Undefined(_) => 0,
            Value::Str(text) => {
                self.budget.steps(text.len() as u64 / 64)?;
                text.chars().count() as i128
            }
            Value::List(seq) | Value::Tuple(seq) | Value::View(_, seq) => seq.items.len() as i128,
            Value::Dict(dict) => dict.entries.len() as i128,
            Value::Range(range) => crate::value::range_len(range),
            Value::Loop(index) => self.loops[*index].items.len() as i128,
            other => return value_error(format!("object of type '{}' has no len()", other.type_name())),
        }))
    }

    fn text_filter(&mut self, name: &str, value: &Value, mut args: CallArgs) -> Result<Value> {
        self.note_all(value);
        let text = match (name, value) {
            // These call methods of what they get.
            ("indent" | "truncate", Value::Str(text)) => text.clone(),
            ("indent" | "truncate", other) => {
                other.defined()?;
                return value_error(format!("'{name}' needs a str, not '{}'", other.type_name()));
            }
            _ => value.to_str(&mut self.budget)?,
        };
        match name {
            "lower" | "upper" | "capitalize" => {
                let method = ["lower", "upper", "capitalize"].into_iter().find(|method| *method == name);
                self.str_method(&text, method.unwrap_or("lower"), args)
            }
            "trim" => self.str_method(&text, "strip", args),
            "title" => {
                let titled = title(&text);
                self.string(&titled)
            }
            "center" => {
                let [width] = args.bind(name, ["width"])?;
                let width = width.as_ref().map_or(Ok(80), int_argument)?;
                self.pad(&text, "center", width, " ")
            }
            "replace" => {
                let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
                let [old, new] = [old, new].map(|part| part.unwrap_or(Value::None).to_str(&mut self.budget));
                let count = count.filter(|count| !matches!(count, Value::None));
                let count = count.as_ref().map_or(Ok(-1), int_argument)?;
                self.replace(&text, &old?, &new?, count)
            }
            "format" => {
                let values = if args.keyword.is_empty() {
                    Value::tuple(std::mem::take(&mut args.positional))?
                } else if args.positional.is_empty() {
                    let entries =
                        args.keyword.into_iter().map(|(name, value)| (Value::Str(name), value)).collect();
                    Value::Dict(crate::value::Dict::new(entries, &mut self.budget)?)
                } else {
                    return value_error("can't handle positional and keyword arguments at the same time");
                };
                Ok(Value::str(format::percent(&text, &values, &mut self.budget)?))
            }
            "indent" => self.indent(&text, args),
            "truncate" => self.truncate(&text, args),
            "wordcount" => {
                let mut count = 0;
                let mut inside = false;
                for c in text.chars() {
                    let is_word = c == '_' || c.is_alphanumeric();
                    count += i128::from(is_word && !inside);
                    inside = is_word;
                }
                Ok(Value::Int(count))
            }
            "e" | "escape" | "forceescape" => {
                self.budget.bytes(text.len() as u128 * 5)?;
                let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                Ok(Value::str(escaped.replace('\'', "&#39;").replace('"', "&#34;")))
            }
            "urlencode" => {
                self.budget.bytes(text.len() as u128 * 3)?;
                let mut out = String::new();
                for byte in text.bytes() {
                    if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
                        out.push(char::from(byte));
                    } else {
                        out.push_str(&format!("%{byte:02X}"));
                    }
                }
                Ok(Value::str(out))
            }
            "striptags" => {
                let mut out = String::new();
                let mut rest = &*text;
                while let Some((before, after)) = rest.split_once('<') {
                    out.push_str(before);
                    rest = after.split_once('>').map_or("", |(_, rest)| rest);
                }
                out.push_str(rest);
                let words: Vec<&str> = out.split(text::is_space).filter(|word| !word.is_empty()).collect();
                let joined = words.join(" ");
                self.string(&joined)
            }
            // `safe` marks text that is not escaped anyway.
            _ => Ok(Value::Str(text)),
        }
    }

    fn indent(&mut self, text: &str, args: CallArgs) -> Result<Value> {
        let [width, first, blank] = args.bind("indent", ["width", "first", "blank"])?;
        let indent = match width {
            Some(Value::Str(text)) => text.to_string(),
            width => {
                let width = width.as_ref().map_or(Ok(4), int_argument)?;
                self.budget.bytes(width.max(0).unsigned_abs())?;
                " ".repeat(usize::try_from(width).unwrap_or(0))
            }
        };
        let [first, blank] = [first, blank].map(|flag| flag.is_some_and(|flag| flag.is_true()));
        let with_end = text.to_owned() + "\n";
        let lines = text::lines(&with_end, false);
        self.budget
            .bytes((lines.len() as u128).saturating_mul(indent.len() as u128 + 1) + text.len() as u128)?;
        let mut out = String::new();
        for (index, line) in lines.iter().enumerate() {
            out.push_str(if index > 0 { "\n" } else { "" });
            if if index == 0 { first } else { blank || !line.is_empty() } {
                out.push_str(&indent);
            }
            out.push_str(line);
        }
        Ok(Value::str(out))
    }

    fn truncate(&mut self, text: &str, args: CallArgs) -> Result<Value> {
        let names = ["length", "killwords", "end", "leeway"];
        let [length, kill_words, end, leeway] = args.bind("truncate", names)?;
        let length = length.as_ref().map_or(Ok(255), int_argument)?;
        let end = end.map_or(Ok("...".into()), |end| end.to_str(&mut self.budget))?;
        let leeway = leeway.filter(|leeway| !matches!(leeway, Value::None));
        let leeway = leeway.as_ref().map_or(Ok(5), int_argument)?;
        let end_length = end.chars().count() as i128;
        if length < end_length {
            return value_error(format!("expected length >= {end_length}, got {length}"));
        }
        if leeway < 0 {
            return value_error(format!("expected leeway >= 0, got {leeway}"));
        }
        if text.chars().count() as i128 <= length.saturating_add(leeway) {
            return self.string(text);
        }
        let kept = usize::try_from(length - end_length).unwrap_or(usize::MAX);
        let cut: String = text.chars().take(kept).collect();
        let cut = match kill_words.is_some_and(|kill| kill.is_true()) {
            true => &*cut,
            false => cut.rsplit_once(' ').map_or(&*cut, |(words, _)| words),
        };
        let truncated = cut.to_owned() + &end;
        self.string(&truncated)
    }

    fn number_filter(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<Value> {
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

    fn tojson(&mut self, value: &Value, args: CallArgs) -> Result<Value> {
        self.note_all(value);
        let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
        let [ascii, indent, separators, sort_keys] = args.bind("tojson", names)?;
        let indent = match indent {
            None | Some(Value::None) => None,
            Some(Value::Str(text)) => Some(text.to_string()),
            Some(width) => {
                let width = int_argument(&width)?.max(0);
                self.budget.bytes(width.unsigned_abs())?;
                Some(" ".repeat(usize::try_from(width).unwrap_or(0)))
            }
        };
        let [item, key] = match separators {
            None | Some(Value::None) => {
                [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()]
            }
            Some(pair) => match &self.iterate(&pair)?[..] {
                [item, key] => [text_argument(item)?.to_owned(), text_argument(key)?.to_owned()],
                _ => return value_error("separators must be two strings"),
            },
        };
        let flag = |value: Option<Value>| value.is_some_and(|value| value.is_true());
        let most = self.budget.bytes_left();
        let layout = Layout { ascii: flag(ascii), indent, item, key, sort_keys: flag(sort_keys), most };
        self.budget.steps(value.size())?;
        let text = layout.dumps(value)?;
        self.budget.bytes(text.len() as u128)?;
        Ok(Value::str(text))
    }

    /// `item.a.b` for the attribute `"a.b"`, by items first.
    fn attribute(
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

    fn choose(&mut self, name: &str, value: &Value, mut args: CallArgs) -> Result<Value> {
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

    fn order(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<Value> {
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
    fn pieces(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<Value> {
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

/// Jinja's `title`: words begin after a hyphen, a bracket or space, and at apostrophes they go on.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut starts = true;
    for c in text.chars() {
        let separates = text::is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
        if starts {
            out.extend(c.to_uppercase())
        } else {
            out.extend(c.to_lowercase())
        }
        starts = separates;
    }
    out
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
