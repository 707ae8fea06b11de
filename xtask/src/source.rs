//! Rust source as text: what is code in it, without comments, strings and tests.

/// Replaces comments and the content of string and character literals by spaces. Line breaks stay.
pub(crate) fn without_comments_and_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let joined = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match hidden(rest, joined) {
            Some(length) => {
                out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
                rest = &rest[length..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// Returns the length of the comment or literal at the start of `text`, if one starts there. `joined` says that an
/// identifier ends just before, so that a letter starts no raw string.
fn hidden(text: &str, joined: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    if text.starts_with('"') {
        return Some(string(text));
    }
    if text.starts_with('\'') {
        return character(text);
    }
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r')).filter(|_| !joined)?;
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let content = raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| opening + at + end.len()))
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'"' && !escaped {
            return at + 1;
        }
        // The opening quote counts as escaped.
        escaped = byte == b'\\' && !escaped;
    }
    text.len()
}

/// Returns the length of a character literal, or `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut inner = text[1..].char_indices();
    let (_, first) = inner.next()?;
    if first == '\\' {
        // The escaped character itself may be a quote.
        inner.next()?;
        return inner.find(|(_, c)| *c == '\'').map(|(at, _)| at + 2);
    }
    inner.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 2)
}

/// Returns the part of a file before its test module, which comes last.
pub(crate) fn before_tests(text: &str) -> &str {
    let is_module = |rest: &str| {
        let header =
            rest.trim_start().strip_prefix("mod ").and_then(|rest| rest.split(['{', ';', '\n']).next());
        header.is_some_and(|name| rest.trim_start()["mod ".len() + name.len()..].starts_with('{'))
    };
    const MARK: &str = "#[cfg(test)]";
    let found = text.match_indices(MARK).find(|(at, _)| is_module(&text[at + MARK.len()..]));
    found.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        for (text, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"a("b\"c", 'd', '\'', '"')"#, "a(      ,    ,     ,    )"),
            (r##"a(r#"b"c"#, br"d")"##, "a(        ,      )"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("for\"x\"", "for   "),
        ] {
            assert_eq!(without_comments_and_strings(text), expected, "{text}");
        }
    }

    #[test]
    fn the_test_module_is_cut_off() {
        assert_eq!(before_tests("fn f() {}\n#[cfg(test)]\nmod tests {\n use x;\n}\n"), "fn f() {}\n");
        let declared = "#[cfg(test)]\nmod tests;\nuse crate::a;\n";
        assert_eq!(before_tests(declared), declared);
    }
}
