//! Text from outside, made safe to print.

use std::borrow::Cow;

/// Replaces control characters, except line breaks and tabs, and characters that reorder text, by escapes such as
/// `\u{1b}`. A terminal would obey them.
///
/// ```
/// assert_eq!(llm_client::printable("\u{1b}[31mred\u{202e}"), "\\u{1b}[31mred\\u{202e}");
/// assert_eq!(llm_client::printable("plain – 😀\n"), "plain – 😀\n");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn is_unsafe(c: char) -> bool {
    let reorders =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_lines = matches!(c, '\u{2028}' | '\u{2029}');
    (c.is_control() && !matches!(c, '\n' | '\t')) || reorders || breaks_lines
}

/// As [`printable`], in one line of at most `longest` characters.
pub(crate) fn one_line(text: &str, longest: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = printable(&words.join(" ")).into_owned();
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Returns `url` with its user name, password and query masked, whether it is well-formed or not.
///
/// ```
/// assert_eq!(llm_client::masked_url("http://me:secret@host/v1?key=1"), "http://***@host/v1?***");
/// ```
pub fn masked_url(url: &str) -> String {
    let (url, query) = match url.split_once('?') {
        Some((url, _)) => (url, "?***"),
        None => (url, ""),
    };
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}***@{host}{query}"),
        None => format!("{url}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_short_and_has_no_escapes() {
        assert_eq!(one_line(" a\r\n\tb\u{7}\u{9b} ", 80), "a b\\u{7}\\u{9b}");
        assert_eq!(one_line("😀😀😀", 2), "😀😀…");
    }

    #[test]
    fn no_password_survives_in_a_bad_address() {
        for url in ["ftp://a:secret@x", "a:secret@x/y", "http://a:se/secret@x", "http://x/?token=secret#f"] {
            assert!(!masked_url(url).contains("secret"), "{url}");
        }
        assert_eq!(masked_url("https://x:8000/v1"), "https://x:8000/v1");
    }
}
