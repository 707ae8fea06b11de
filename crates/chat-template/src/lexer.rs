//! A template's source as tokens, cut as Jinja cuts it with `trim_blocks` and `lstrip_blocks`.

use std::sync::Arc;

use crate::error::{Problem, Result};
use crate::text::is_space;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Data(Arc<str>),
    BlockBegin,
    BlockEnd,
    PrintBegin,
    PrintEnd,
    Name(Arc<str>),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
}

/// Longer ones first.
const OPERATORS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";", "!",
];

/// The tokens of `source`, each with its line; or what is wrong, and where.
pub(crate) fn tokens(source: &str) -> std::result::Result<Vec<(Token, usize)>, (Problem, usize)> {
    // Jinja reads all kinds of line ends alike and drops the last one.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new(), line_starts: true };
    match lexer.run() {
        Ok(()) => Ok(lexer.tokens),
        Err(problem) => Err((problem, lexer.line)),
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<(Token, usize)>,
    /// Whether what was read so far ends with a line, so that a block that follows may be indented.
    line_starts: bool,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = &self.source[self.at..];
            let Some((start, tag)) = next_tag(rest) else {
                self.data(rest);
                break;
            };
            let after = &rest[start + 2..];
            let sign = after.chars().next().filter(|c| matches!(c, '-' | '+'));
            let text = self.before_tag(&rest[..start], tag, sign);
            self.data(text);
            self.advance(start + 2 + sign.map_or(0, char::len_utf8));
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Print => self.code(Token::PrintBegin)?,
                Tag::Block => match self.raw_begin() {
                    Some(length) => self.raw(length)?,
                    None => self.code(Token::BlockBegin)?,
                },
            }
        }
        Ok(())
    }

    /// The text before a tag, without what the tag takes away.
    fn before_tag<'t>(&self, text: &'t str, tag: Tag, sign: Option<char>) -> &'t str {
        match sign {
            Some('-') => text.trim_end_matches(is_space),
            None if tag != Tag::Print => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let is_indent = line < text.len() && text[line..].chars().all(is_space);
                if is_indent && (line > 0 || self.line_starts) { &text[..line] } else { text }
            }
            _ => text,
        }
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.tokens.push((Token::Data(text.into()), self.line));
        }
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.source[self.at..self.at + bytes].matches('\n').count();
        self.at += bytes;
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Goes behind a tag's end and what it trims: after `-` all space, after `+` nothing, else `newline`.
    fn close(&mut self, end: &str, newline: bool) -> bool {
        let rest = self.rest();
        let length = if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(end)) {
            rest.len() - after.trim_start_matches(is_space).len()
        } else if newline && rest.strip_prefix('+').is_some_and(|rest| rest.starts_with(end)) {
            1 + end.len()
        } else if let Some(after) = rest.strip_prefix(end) {
            end.len() + usize::from(newline && after.starts_with('\n'))
        } else {
            return false;
        };
        self.line_starts = rest[..length].ends_with('\n');
        self.advance(length);
        true
    }

    fn comment(&mut self) -> Result<()> {
        let missing = || Problem::Syntax("a comment is not closed with `#}`".to_owned());
        let end = self.rest().find("#}").ok_or_else(missing)?;
        let sign = self.rest()[..end].ends_with(['-', '+']);
        self.advance(end - usize::from(sign));
        self.close("#}", true);
        Ok(())
    }

    /// The length of `raw %}`, where that follows.
    fn raw_begin(&self) -> Option<usize> {
        let rest = self.rest();
        let after = rest.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
        match after.strip_prefix("-%}") {
            Some(after) => Some(rest.len() - after.trim_start_matches(is_space).len()),
            None => Some(rest.len() - after.strip_prefix("%}")?.len()),
        }
    }

    fn raw(&mut self, length: usize) -> Result<()> {
        self.advance(length);
        let rest = self.rest();
        let mut from = 0;
        loop {
            let missing = || Problem::Syntax("`raw` is not closed with `endraw`".to_owned());
            let start = rest[from..].find("{%").ok_or_else(missing)? + from;
            let inside = &rest[start + 2..];
            let sign = inside.chars().next().filter(|c| matches!(c, '-' | '+'));
            let inside = &inside[usize::from(sign.is_some())..];
            let Some(after) = inside.trim_start_matches(is_space).strip_prefix("endraw") else {
                from = start + 2;
                continue;
            };
            let after = after.trim_start_matches(is_space);
            let text = self.before_tag(&rest[..start], Tag::Block, sign);
            self.data(text);
            self.advance(rest.len() - after.len());
            if self.close("%}", true) {
                return Ok(());
            }
            return Err(missing());
        }
    }

    /// The tokens of a tag up to its end.
    fn code(&mut self, begin: Token) -> Result<()> {
        let is_block = begin == Token::BlockBegin;
        self.push(begin);
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let rest = self.rest();
            let space = rest.len() - rest.trim_start_matches(is_space).len();
            self.advance(space);
            if open.is_empty() && self.close(if is_block { "%}" } else { "}}" }, is_block) {
                self.push(if is_block { Token::BlockEnd } else { Token::PrintEnd });
                return Ok(());
            }
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Err(Problem::Syntax("a tag is not closed".to_owned()));
            };
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphanumeric() {
                let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Token::Name(rest[..end].into()));
                self.advance(end);
            } else if matches!(first, '"' | '\'') {
                self.string(first)?;
            } else {
                let operator = OPERATORS.into_iter().find(|op| rest.starts_with(op));
                let Some(operator) = operator.filter(|op| *op != "!") else {
                    return Err(Problem::Syntax(format!("unexpected character {first:?}")));
                };
                match operator {
                    "(" | "[" | "{" => open.push(operator),
                    ")" | "]" | "}" => {
                        let expected = open.pop().map(|open| {
                            [")", "]", "}"][["(", "[", "{"].iter().position(|o| *o == open).unwrap_or(0)]
                        });
                        if expected != Some(operator) {
                            return Err(Problem::Syntax(format!("unexpected `{operator}`")));
                        }
                    }
                    _ => {}
                }
                self.push(Token::Op(operator));
                self.advance(operator.len());
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest();
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let bad = || Problem::Syntax("a number is too large or malformed".to_owned());
        for (prefix, base) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
            if let Some(after) = rest.strip_prefix(prefix) {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                let number = i128::from_str_radix(&after[..end].replace('_', ""), base).map_err(|_| bad())?;
                self.push(Token::Int(number));
                self.advance(2 + end);
                return Ok(());
            }
        }
        let mut end = digits(rest);
        let mut is_float = false;
        let after = &rest[end..];
        // `1.2` is a float unless a dot precedes it, as in `a.1.2`.
        let follows_dot = matches!(self.tokens.last(), Some((Token::Op("."), _)));
        if !follows_dot && after.starts_with('.') && after[1..].starts_with(|c: char| c.is_ascii_digit()) {
            end += 1 + digits(&after[1..]);
            is_float = true;
        }
        let exponent = &rest[end..];
        if !follows_dot && exponent.starts_with(['e', 'E']) {
            let sign = usize::from(exponent[1..].starts_with(['+', '-']));
            let length = digits(&exponent[1 + sign..]);
            if length > 0 {
                end += 1 + sign + length;
                is_float = true;
            }
        }
        let text = rest[..end].replace('_', "");
        let token = if is_float {
            Token::Float(text.parse().map_err(|_| bad())?)
        } else {
            Token::Int(text.parse().map_err(|_| bad())?)
        };
        self.push(token);
        self.advance(end);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest[1..].find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or_else(|| Problem::Syntax("a string is not closed".to_owned()))? + 1;
        self.push(Token::Str(unescape(&rest[1..end])?));
        self.advance(end + 1);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Block,
    Print,
    Comment,
}

fn next_tag(text: &str) -> Option<(usize, Tag)> {
    let mut from = 0;
    loop {
        let at = text[from..].find('{')? + from;
        match text.as_bytes().get(at + 1) {
            Some(b'%') => return Some((at, Tag::Block)),
            Some(b'{') => return Some((at, Tag::Print)),
            Some(b'#') => return Some((at, Tag::Comment)),
            _ => from = at + 1,
        }
    }
}

/// The text of a string literal, with Python's escapes.
fn unescape(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let Some(c) = after.chars().next() else { break };
        let mut taken = c.len_utf8();
        let hex = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        match c {
            'x' | 'u' | 'U' => {
                let code = after.get(1..1 + hex).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                let bad =
                    || Problem::Syntax(format!("`\\{c}` needs {hex} hexadecimal digits of a character"));
                out.push(code.and_then(char::from_u32).ok_or_else(bad)?);
                taken += hex;
            }
            '0'..='7' => {
                taken = after.find(|c: char| !matches!(c, '0'..='7')).unwrap_or(after.len()).min(3);
                let code = u32::from_str_radix(&after[..taken], 8).ok().and_then(char::from_u32);
                out.push(code.unwrap_or('\u{fffd}'));
            }
            '\n' => {}
            _ => match ["\\\\", "''", "\"\"", "n\n", "t\t", "r\r", "b\u{8}", "f\u{c}", "v\u{b}", "a\u{7}"]
                .into_iter()
                .find(|pair| pair.starts_with(c))
            {
                Some(pair) => out.push_str(&pair[1..]),
                None => out.extend(['\\', c]),
            },
        }
        rest = &after[taken..];
    }
    out.push_str(rest);
    Ok(out)
}
