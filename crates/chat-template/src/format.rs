//! Python's `%` formatting and `str.format`.

use crate::error::{Result, value_error};
use crate::limits::Budget;
use crate::text;
use crate::value::Value;

/// How one value is laid out.
#[derive(Clone, Debug)]
struct Spec {
    fill: char,
    /// `<`, `>`, `^` or `=`; of the value's type where it is not given.
    align: Option<char>,
    /// `+`, `-` or a space.
    sign: char,
    alternate: bool,
    width: usize,
    /// `,` or `_`.
    grouping: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self> {
        let chars: Vec<char> = text.chars().collect();
        let is_align = |at: usize| chars.get(at).is_some_and(|c| matches!(c, '<' | '>' | '^' | '='));
        let (mut at, mut fill, mut align) = (0, ' ', None);
        if is_align(1) {
            (fill, align, at) = (chars[0], Some(chars[1]), 2);
        } else if is_align(0) {
            (align, at) = (Some(chars[0]), 1);
        }
        let mut take = |wanted: &[char]| {
            let found = chars.get(at).copied().filter(|c| wanted.contains(c));
            at += usize::from(found.is_some());
            found
        };
        let sign = take(&['+', '-', ' ']).unwrap_or('-');
        let alternate = take(&['#']).is_some();
        if take(&['0']).is_some() && align.is_none() {
            (fill, align) = ('0', Some('='));
        }
        let mut rest = &chars[at..];
        let width = number(&mut rest)?.unwrap_or(0);
        let mut grouping = None;
        if let Some((&c @ (',' | '_'), after)) = rest.split_first() {
            (grouping, rest) = (Some(c), after);
        }
        let mut precision = None;
        if let Some(('.', after)) = rest.split_first() {
            rest = after;
            precision = Some(match number(&mut rest)? {
                Some(precision) => precision,
                None => return value_error("Format specifier missing precision"),
            });
        }
        let kind = match rest {
            [] => None,
            [kind] => Some(*kind),
            _ => return value_error("Invalid format specifier"),
        };
        Ok(Self { fill, align, sign, alternate, width, grouping, precision, kind })
    }

    fn pad(&self, text: &str, default: char, budget: &mut Budget) -> Result<String> {
        let missing = self.width.saturating_sub(text.chars().count());
        budget.bytes(missing as u128 * 4 + text.len() as u128)?;
        let fill = |count: usize| self.fill.to_string().repeat(count);
        Ok(match self.align.unwrap_or(default) {
            '<' => text.to_owned() + &fill(missing),
            '^' => fill(missing / 2) + text + &fill(missing - missing / 2),
            '=' => {
                let digits = text.find(|c: char| !matches!(c, '+' | '-' | ' ')).unwrap_or(0);
                text[..digits].to_owned() + &fill(missing) + &text[digits..]
            }
            _ => fill(missing) + text,
        })
    }

    fn signed(&self, negative: bool, digits: &str) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            _ => "",
        };
        sign.to_owned() + digits
    }

    fn format(&self, value: &Value, budget: &mut Budget) -> Result<String> {
        let digits = self.precision.unwrap_or(0);
        budget.bytes(digits as u128)?;
        if digits > MAX_DIGITS && !matches!(value, Value::Str(_)) {
            return value_error("precision too big");
        }
        match (value, self.kind) {
            (Value::Str(text), None | Some('s')) => {
                let cut: String = match self.precision {
                    Some(most) => text.chars().take(most).collect(),
                    None => text.to_string(),
                };
                self.pad(&cut, '<', budget)
            }
            (Value::Int(_) | Value::Bool(_), None) if self.precision.is_some() => {
                value_error("Precision not allowed in integer format specifier")
            }
            (Value::Int(_) | Value::Bool(_), None | Some('d' | 'b' | 'o' | 'x' | 'X' | 'c' | 'n')) => {
                let number = value.as_int().unwrap_or_default();
                let text = self.int(number)?;
                self.pad(&text, '>', budget)
            }
            (
                Value::Int(_) | Value::Bool(_) | Value::Float(_),
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%'),
            )
            | (Value::Float(_), None) => {
                let number = value.as_float().unwrap_or_default();
                let text = self.signed(number.is_sign_negative(), &self.float(number.abs()));
                self.pad(&text, '>', budget)
            }
            (_, Some(kind)) => {
                let found = value.type_name();
                value_error(format!("Unknown format code '{kind}' for object of type '{found}'"))
            }
            (other, None) => {
                let found = other.type_name();
                value_error(format!("unsupported format string passed to {found}.__format__"))
            }
        }
    }

    fn int(&self, number: i128) -> Result<String> {
        let size = number.unsigned_abs();
        let (prefix, digits) = match self.kind {
            Some('b') => ("0b", format!("{size:b}")),
            Some('o') => ("0o", format!("{size:o}")),
            Some('x') => ("0x", format!("{size:x}")),
            Some('X') => ("0X", format!("{size:X}")),
            Some('c') => match u32::try_from(size).ok().and_then(char::from_u32) {
                Some(c) => ("", c.to_string()),
                None => return value_error("%c arg not in range(0x110000)"),
            },
            _ => ("", size.to_string()),
        };
        let digits = self.group(&digits);
        let prefix = if self.alternate { prefix } else { "" };
        Ok(self.signed(number < 0, &format!("{prefix}{digits}")))
    }

    fn float(&self, number: f64) -> String {
        let precision = self.precision.unwrap_or(6);
        if !number.is_finite() {
            return if number.is_nan() { "nan" } else { "inf" }.to_owned();
        }
        let text = match self.kind {
            Some('f' | 'F') => format!("{number:.precision$}"),
            Some('%') => format!("{:.precision$}%", number * 100.0),
            Some('e') => exponent(number, precision),
            Some('E') => exponent(number, precision).to_uppercase(),
            Some('g') => general(number, precision, self.alternate),
            Some('G') => general(number, precision, self.alternate).to_uppercase(),
            _ => match self.precision {
                None => text::float(number),
                Some(precision) => {
                    let text = general(number, precision, false);
                    if text.contains(['.', 'e']) { text } else { text + ".0" }
                }
            },
        };
        let whole = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        self.group(&text[..whole]) + &text[whole..]
    }

    fn group(&self, digits: &str) -> String {
        let Some(separator) = self.grouping else { return digits.to_owned() };
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.push(separator);
            }
            out.push(digit);
        }
        out
    }
}

/// Digits that a number is written with at most.
const MAX_DIGITS: usize = 10_000;

fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn general(number: f64, precision: usize, keep_zeros: bool) -> String {
    let precision = precision.max(1);
    let rounded = format!("{number:.*e}", precision - 1);
    let power: i64 = rounded.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if power < -4 || power >= precision as i64 {
        let text = exponent(number, precision - 1);
        let (mantissa, power) = text.split_once('e').unwrap_or((&text, "+00"));
        return format!("{}e{power}", trim(mantissa));
    }
    let decimals = usize::try_from(precision as i64 - 1 - power).unwrap_or(0);
    trim(&format!("{number:.decimals$}"))
}

fn number(chars: &mut &[char]) -> Result<Option<usize>> {
    let end = chars.iter().position(|c| !c.is_ascii_digit()).unwrap_or(chars.len());
    let (digits, rest) = chars.split_at(end);
    *chars = rest;
    if digits.is_empty() {
        return Ok(None);
    }
    match digits.iter().collect::<String>().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => value_error("Too many decimal digits in format string"),
    }
}

/// `format % values`.
pub(crate) fn percent(format: &str, values: &Value, budget: &mut Budget) -> Result<String> {
    budget.bytes(format.len() as u128 * 5)?;
    let chars: Vec<char> = format.chars().collect();
    let mut rest = &chars[..];
    let mut args = Arguments { values, used: 0 };
    let mut out = String::new();
    while let Some((&c, after)) = rest.split_first() {
        rest = after;
        if c != '%' {
            out.push(c);
            continue;
        }
        let keyed = if rest.first() == Some(&'(') { Some(args.keyed(&mut rest)?) } else { None };
        let mut spec = Spec {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            grouping: None,
            precision: None,
            kind: None,
        };
        while let Some((&flag @ ('#' | '0' | '-' | ' ' | '+'), after)) = rest.split_first() {
            match flag {
                '#' => spec.alternate = true,
                '-' => spec.align = Some('<'),
                '0' => spec.fill = '0',
                '+' => spec.sign = '+',
                _ if spec.sign == '-' => spec.sign = ' ',
                _ => {}
            }
            rest = after;
        }
        spec.width = args.count(&mut rest)?.unwrap_or(0);
        if let Some(('.', after)) = rest.split_first() {
            rest = after;
            spec.precision = Some(args.count(&mut rest)?.unwrap_or(0));
        }
        while let Some(('h' | 'l' | 'L', after)) = rest.split_first() {
            rest = after;
        }
        let Some((&kind, after)) = rest.split_first() else { return value_error("incomplete format") };
        rest = after;
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match keyed {
            Some(value) => value,
            None => args.next()?,
        };
        out.push_str(&convert(spec, kind, &value, budget)?);
    }
    args.finish()?;
    Ok(out)
}

/// The values of a `%` formatting.
struct Arguments<'a> {
    values: &'a Value,
    used: usize,
}

impl Arguments<'_> {
    fn next(&mut self) -> Result<Value> {
        let value = match self.values {
            Value::Tuple(seq) => seq.items.get(self.used),
            value => Some(value).filter(|_| self.used == 0),
        };
        self.used += 1;
        match value {
            Some(value) => Ok(value.clone()),
            None => value_error("not enough arguments for format string"),
        }
    }

    /// The value that `(name)` names.
    fn keyed(&mut self, rest: &mut &[char]) -> Result<Value> {
        let Value::Dict(dict) = self.values else { return value_error("format requires a mapping") };
        let Some(end) = rest.iter().position(|c| *c == ')') else {
            return value_error("incomplete format key");
        };
        let name: String = rest[1..end].iter().collect();
        *rest = &rest[end + 1..];
        match dict.get_str(&name) {
            Some(value) => Ok(value.clone()),
            None => value_error(format!("KeyError: {name:?}")),
        }
    }

    /// A width or a precision: digits, or `*` for the next value.
    fn count(&mut self, rest: &mut &[char]) -> Result<Option<usize>> {
        let Some(('*', after)) = rest.split_first() else { return number(rest) };
        *rest = after;
        match self.next()?.as_int().and_then(|count| usize::try_from(count).ok()) {
            Some(count) => Ok(Some(count)),
            None => value_error("* wants int"),
        }
    }

    fn finish(&self) -> Result<()> {
        let left = match self.values {
            Value::Tuple(seq) => self.used < seq.items.len(),
            Value::Dict(_) | Value::List(_) => false,
            _ => self.used == 0,
        };
        if left { value_error("not all arguments converted during string formatting") } else { Ok(()) }
    }
}

fn convert(mut spec: Spec, kind: char, value: &Value, budget: &mut Budget) -> Result<String> {
    let is_text = matches!(kind, 's' | 'r' | 'a');
    if is_text || kind == 'c' && value.as_str().is_some() {
        let mut text = String::new();
        if kind == 'r' || kind == 'a' {
            value.write_repr(&mut text, budget.bytes_left())?;
        } else {
            value.write_str(&mut text, budget)?;
        }
        spec.fill = ' ';
        spec.kind = Some('s');
        spec.align = spec.align.or(Some('>'));
        return spec.format(&Value::str(text), budget);
    }
    if spec.fill == '0' {
        if spec.align.is_some() { spec.fill = ' ' } else { spec.align = Some('=') }
    }
    let value = value.defined()?;
    let number = match (kind, value.as_int(), value.as_float()) {
        ('d' | 'i' | 'u', Some(number), _) => Value::Int(number),
        ('d' | 'i' | 'u', None, Some(number)) if number.is_finite() => Value::Int(number.trunc() as i128),
        ('o' | 'x' | 'X' | 'c', Some(number), _) => Value::Int(number),
        ('e' | 'E' | 'f' | 'F' | 'g' | 'G', _, Some(number)) => Value::Float(number),
        ('d' | 'i' | 'u' | 'o' | 'x' | 'X' | 'c' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G', ..) => {
            let found = value.type_name();
            return value_error(format!("%{kind} format: a real number is required, not {found}"));
        }
        _ => return value_error(format!("unsupported format character '{kind}'")),
    };
    spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
    spec.format(&number, budget)
}

/// What `str.format` asks of its caller: a part of a value, by attribute or by item.
pub(crate) type Part<'a> = dyn FnMut(&Value, &str, bool) -> Result<Value> + 'a;

/// `format.format(*positional, **keyword)`.
pub(crate) fn str_format(
    format: &str,
    positional: &[Value],
    keyword: &[(std::sync::Arc<str>, Value)],
    part: &mut Part<'_>,
    budget: &mut Budget,
) -> Result<String> {
    let mut fields = Fields { positional, keyword, automatic: 0 };
    fields.format(format, part, budget, 0)
}

struct Fields<'a> {
    positional: &'a [Value],
    keyword: &'a [(std::sync::Arc<str>, Value)],
    automatic: usize,
}

impl Fields<'_> {
    fn format(
        &mut self,
        format: &str,
        part: &mut Part<'_>,
        budget: &mut Budget,
        level: usize,
    ) -> Result<String> {
        if level > 2 {
            return value_error("Max string recursion exceeded");
        }
        budget.bytes(format.len() as u128)?;
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return value_error("Single '}' encountered in format string");
            }
            let mut depth = 1;
            let end = rest.find(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                depth == 0
            });
            let Some(end) = end else { return value_error("expected '}' before end of string") };
            let field = &rest[..end];
            rest = &rest[end + 1..];
            let (name, spec) = field.split_once(':').unwrap_or((field, ""));
            let (name, conversion) = name.split_once('!').unwrap_or((name, ""));
            let mut value = self.value(name, part)?;
            let mut text = String::new();
            match conversion {
                "" => {}
                "s" => value = Value::Str(value.to_str(budget)?),
                "r" | "a" => {
                    value.write_repr(&mut text, budget.bytes_left())?;
                    value = Value::str(text);
                }
                other => return value_error(format!("Unknown conversion specifier {other}")),
            }
            let spec = self.format(spec, part, budget, level + 1)?;
            match &*spec {
                // What has no layout of its own is printed.
                "" => value.write_str(&mut out, budget)?,
                spec => out.push_str(&Spec::parse(spec)?.format(&value, budget)?),
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&mut self, name: &str, part: &mut Part<'_>) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let index = if first.is_empty() {
            self.automatic += 1;
            Some(self.automatic - 1)
        } else {
            first.parse().ok()
        };
        let found = match index {
            Some(index) => self.positional.get(index),
            None => self.keyword.iter().find(|(name, _)| &**name == first).map(|(_, value)| value),
        };
        let Some(mut value) = found.cloned() else {
            return value_error(format!("the format names {first:?}, which is not given"));
        };
        while !rest.is_empty() {
            let is_attr = rest.starts_with('.');
            let after = &rest[1..];
            let end = after.find(if is_attr { &['.', '['][..] } else { &[']'][..] }).unwrap_or(after.len());
            value = part(&value, &after[..end], is_attr)?;
            rest = &after[end..];
            rest = rest.strip_prefix(']').unwrap_or(rest);
        }
        Ok(value)
    }
}
