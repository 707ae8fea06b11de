//! Jinja's filters.

mod items;
mod numbers;

use crate::args::{CallArgs, int_argument, text_argument};
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
