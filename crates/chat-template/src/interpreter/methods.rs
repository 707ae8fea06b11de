//! The methods of Python's `str`.

use std::sync::Arc;

use crate::args::{CallArgs, int_argument, text_argument};
use crate::error::{Result, value_error};
use crate::format;
use crate::interpreter::Interpreter;
use crate::text;
use crate::value::Value;

pub(crate) const STR_METHODS: [&str; 41] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

impl Interpreter<'_> {
    pub(crate) fn str_method(
        &mut self,
        text: &Arc<str>,
        method: &'static str,
        args: CallArgs,
    ) -> Result<Value> {
        self.budget.steps(1 + text.len() as u64 / 64)?;
        match method {
            "format" => self.format(text, args),
            "join" => self.join(text, args),
            "strip" | "lstrip" | "rstrip" => {
                let [chars] = args.bind(method, ["chars"])?;
                let chars = chars.filter(|chars| !matches!(chars, Value::None));
                let chars = chars.as_ref().map(text_argument).transpose()?;
                let ends = [method != "rstrip", method != "lstrip"];
                self.string(strip(text, chars, ends))
            }
            "split" | "rsplit" => self.split(text, method, args),
            "splitlines" => {
                let [keep_ends] = args.bind(method, ["keepends"])?;
                self.strings(&text::lines(text, keep_ends.is_some_and(|keep| keep.is_true())))
            }
            "partition" | "rpartition" => self.partition(text, method, args),
            "startswith" | "endswith" => self.is_at_end(text, method, args),
            "find" | "rfind" | "index" | "rindex" | "count" => self.search(text, method, args),
            "replace" => {
                let [old, new, count] = args.bind(method, ["old", "new", "count"])?;
                let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
                let count = count.as_ref().map(int_argument).transpose()?.unwrap_or(-1);
                self.replace(text, text_argument(&old)?, text_argument(&new)?, count)
            }
            "removeprefix" | "removesuffix" => {
                let [part] = args.bind(method, ["prefix"])?;
                let part = part.unwrap_or(Value::None);
                let part = text_argument(&part)?;
                let rest =
                    if method == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
                self.string(rest.unwrap_or(text))
            }
            "center" | "ljust" | "rjust" | "zfill" => {
                let [width, fill] = args.bind(method, ["width", "fillchar"])?;
                let width = int_argument(&width.unwrap_or(Value::None))?;
                let fill = fill.as_ref().map(text_argument).transpose()?.unwrap_or(" ");
                self.pad(text, method, width, fill)
            }
            "expandtabs" => self.expand_tabs(text, args),
            _ => {
                let [] = args.bind(method, [])?;
                self.plain(text, method)
            }
        }
    }

    fn format(&mut self, text: &Arc<str>, args: CallArgs) -> Result<Value> {
        let CallArgs { positional, keyword } = args;
        // The budget is lent to the formatting, which asks this interpreter for parts.
        let mut budget = std::mem::replace(&mut self.budget, crate::limits::Budget::new());
        let mut part = |value: &Value, name: &str, is_attr: bool| {
            if is_attr {
                self.get_attr(value, name)
            } else {
                let key = name.parse().map_or_else(|_| Value::str(name), Value::Int);
                self.get_item(value, &key)
            }
        };
        let formatted = format::str_format(text, &positional, &keyword, &mut part, &mut budget);
        self.budget = budget;
        Ok(Value::str(formatted?))
    }

    fn join(&mut self, text: &Arc<str>, args: CallArgs) -> Result<Value> {
        let [items] = args.bind("join", ["iterable"])?;
        let items = self.iterate(&items.unwrap_or(Value::None))?;
        let mut out = String::new();
        for (index, item) in items.iter().enumerate() {
            let item = text_argument(item)?;
            self.budget.bytes((text.len() + item.len()) as u128)?;
            out.push_str(if index > 0 { text } else { "" });
            out.push_str(item);
        }
        Ok(Value::str(out))
    }

    fn split(&mut self, text: &Arc<str>, method: &'static str, args: CallArgs) -> Result<Value> {
        let [separator, most] = args.bind(method, ["sep", "maxsplit"])?;
        let most = most.as_ref().map(int_argument).transpose()?.unwrap_or(-1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let separator = separator.filter(|separator| !matches!(separator, Value::None));
        let parts = match separator.as_ref().map(text_argument).transpose()? {
            Some("") => return value_error("empty separator"),
            Some(separator) if method == "split" => text.splitn(most.saturating_add(1), separator).collect(),
            Some(separator) => reversed(text.rsplitn(most.saturating_add(1), separator).collect()),
            None => words(text, most, method == "rsplit"),
        };
        self.strings(&parts)
    }

    fn partition(&mut self, text: &Arc<str>, method: &'static str, args: CallArgs) -> Result<Value> {
        let [separator] = args.bind(method, ["sep"])?;
        let separator = separator.unwrap_or(Value::None);
        let separator = text_argument(&separator)?;
        if separator.is_empty() {
            return value_error("empty separator");
        }
        let parts = if method == "partition" {
            text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b])
        } else {
            text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b])
        };
        self.budget.bytes(text.len() as u128)?;
        Value::tuple(parts.map(Value::str).to_vec())
    }

    /// Evaluates `startswith` and `endswith`.
    fn is_at_end(&mut self, text: &Arc<str>, method: &'static str, args: CallArgs) -> Result<Value> {
        let [part, start, end] = args.bind(method, ["prefix", "start", "end"])?;
        let window = self.window(text, start, end)?;
        let part = part.unwrap_or(Value::None);
        let matches = |part: &Value| {
            let part = text_argument(part)?;
            let Some((window, _)) = &window else { return Ok(false) };
            Ok(if method == "startswith" { window.starts_with(part) } else { window.ends_with(part) })
        };
        Ok(Value::Bool(match &part {
            Value::Tuple(parts) => {
                let mut any = false;
                for part in &parts.items {
                    any |= matches(part)?;
                }
                any
            }
            part => matches(part)?,
        }))
    }

    fn expand_tabs(&mut self, text: &Arc<str>, args: CallArgs) -> Result<Value> {
        let [size] = args.bind("expandtabs", ["tabsize"])?;
        let size = usize::try_from(size.as_ref().map(int_argument).transpose()?.unwrap_or(8)).unwrap_or(0);
        self.budget.bytes((text.matches('\t').count() as u128).saturating_mul(size as u128))?;
        let (mut out, mut column) = (String::new(), 0);
        for c in text.chars() {
            match c {
                '\t' if size == 0 => {}
                '\t' => {
                    let missing = size - column % size;
                    out.push_str(&" ".repeat(missing));
                    column += missing;
                }
                c => {
                    out.push(c);
                    column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                }
            }
        }
        self.string(&out)
    }

    /// Methods without arguments.
    fn plain(&mut self, text: &str, method: &str) -> Result<Value> {
        let changed = match method {
            "capitalize" => text::capitalize(text),
            "casefold" => text.to_lowercase().replace('ß', "ss"),
            "lower" => text.to_lowercase(),
            "title" => text::title(text),
            "upper" => text.to_uppercase(),
            "swapcase" => {
                let swap = |c: char| {
                    if c.is_uppercase() {
                        c.to_lowercase().collect()
                    } else {
                        c.to_uppercase().collect::<String>()
                    }
                };
                text.chars().map(swap).collect()
            }
            _ => return Ok(Value::Bool(is(text, method))),
        };
        self.string(&changed)
    }

    pub(crate) fn string(&mut self, text: &str) -> Result<Value> {
        self.budget.bytes(text.len() as u128)?;
        Ok(Value::str(text))
    }

    fn strings(&mut self, parts: &[&str]) -> Result<Value> {
        self.budget.values(parts.len())?;
        self.budget.bytes(parts.iter().map(|part| part.len() as u128 + 16).sum())?;
        Value::list(parts.iter().map(|part| Value::str(*part)).collect())
    }

    pub(crate) fn pad(&mut self, text: &str, method: &str, width: i128, fill: &str) -> Result<Value> {
        if fill.chars().count() != 1 {
            return value_error("The fill character must be exactly one character long");
        }
        let length = text.chars().count();
        let missing =
            usize::try_from(width - length as i128).unwrap_or(if width < 0 { 0 } else { usize::MAX });
        let missing = if width <= length as i128 { 0 } else { missing };
        self.budget.bytes((missing as u128).saturating_mul(4) + text.len() as u128)?;
        let fill = |count: usize| fill.repeat(count);
        Ok(Value::str(match method {
            "ljust" => text.to_owned() + &fill(missing),
            "rjust" => fill(missing) + text,
            "zfill" => {
                let sign = usize::from(text.starts_with(['+', '-']));
                text[..sign].to_owned() + &"0".repeat(missing) + &text[sign..]
            }
            _ => {
                // CPython puts the odd one before where the width is odd.
                let left = missing / 2 + (missing & (length + missing) & 1);
                fill(left) + text + &fill(missing - left)
            }
        }))
    }

    pub(crate) fn replace(&mut self, text: &str, old: &str, new: &str, count: i128) -> Result<Value> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
        let found = found.min(count);
        self.budget.bytes((found as u128).saturating_mul(new.len() as u128) + text.len() as u128)?;
        Ok(Value::str(text.replacen(old, new, count)))
    }

    /// The part of `text` from `start` to `end` in characters, and where it begins; none where it begins behind the end.
    fn window<'a>(
        &mut self,
        text: &'a str,
        start: Option<Value>,
        end: Option<Value>,
    ) -> Result<Option<(&'a str, usize)>> {
        if start.is_none() && end.is_none() {
            return Ok(Some((text, 0)));
        }
        let length = text.chars().count() as i128;
        let bound = |value: Option<Value>, default: i128| match value {
            None | Some(Value::None) => Ok(default),
            Some(value) => {
                let at = int_argument(&value)?;
                Ok(if at < 0 { at.saturating_add(length).max(0) } else { at })
            }
        };
        let (start, end) = (bound(start, 0)?, bound(end, length)?.min(length));
        if start > end {
            return Ok(None);
        }
        let byte = |at: i128| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
        };
        Ok(Some((&text[byte(start)..byte(end)], usize::try_from(start).unwrap_or(0))))
    }

    fn search(&mut self, text: &str, method: &str, args: CallArgs) -> Result<Value> {
        let [part, start, end] = args.bind(method, ["sub", "start", "end"])?;
        let part = part.unwrap_or(Value::None);
        let part = text_argument(&part)?;
        let window = self.window(text, start, end)?;
        let Some((window, offset)) = window else {
            return match method {
                "count" => Ok(Value::Int(0)),
                "index" | "rindex" => value_error("substring not found"),
                _ => Ok(Value::Int(-1)),
            };
        };
        if method == "count" {
            let count =
                if part.is_empty() { window.chars().count() + 1 } else { window.matches(part).count() };
            return Ok(Value::Int(count as i128));
        }
        let found = if method.starts_with('r') { window.rfind(part) } else { window.find(part) };
        match found {
            Some(byte) => Ok(Value::Int((offset + window[..byte].chars().count()) as i128)),
            None if method.ends_with("index") => value_error("substring not found"),
            None => Ok(Value::Int(-1)),
        }
    }
}

fn strip<'a>(text: &'a str, chars: Option<&str>, [left, right]: [bool; 2]) -> &'a str {
    let matches = |c: char| chars.map_or_else(|| text::is_space(c), |chars| chars.contains(c));
    let text = if left { text.trim_start_matches(matches) } else { text };
    if right { text.trim_end_matches(matches) } else { text }
}

fn reversed(mut parts: Vec<&str>) -> Vec<&str> {
    parts.reverse();
    parts
}

/// `split()` at runs of space, at most `most` times, from the right where `from_right`.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(text, None, [true, true]);
    if from_right {
        while !rest.is_empty() && parts.len() < most {
            let start = rest
                .rfind(text::is_space)
                .map_or(0, |at| at + rest[at..].chars().next().map_or(1, char::len_utf8));
            parts.push(&rest[start..]);
            rest = rest[..start].trim_end_matches(text::is_space);
        }
        if !rest.is_empty() {
            parts.push(strip(&text[..text.find(rest).unwrap_or(0) + rest.len()], None, [true, false]));
        }
        return reversed(parts);
    }
    while !rest.is_empty() && parts.len() < most {
        let end = rest.find(text::is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(text::is_space);
    }
    if !rest.is_empty() {
        // What is left keeps the space at its end.
        let start = text.len() - text.trim_end_matches(text::is_space).len();
        let end = rest.len() + start;
        let from = text.len() - end;
        parts.push(&text[from..]);
    }
    parts
}

/// `str.is…`: whether there is a character and all are of a kind.
fn is(text: &str, method: &str) -> bool {
    let all = |of_kind: fn(char) -> bool| !text.is_empty() && text.chars().all(of_kind);
    match method {
        "isascii" => text.is_ascii(),
        "isspace" => all(text::is_space),
        "isdecimal" => all(text::is_decimal),
        "isdigit" => all(text::is_digit),
        "isnumeric" => all(|c| text::is_digit(c) || c.is_numeric()),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(|c| c.is_alphanumeric() || text::is_digit(c)),
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
        _ => text.chars().any(text::is_cased) && text::title(text) == text,
    }
}
