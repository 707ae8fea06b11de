//! Control tokens in the text of messages.

use std::cell::Cell;

/// Private characters around a control token that is to be encoded as text: those of transformers.
const START: char = '\u{f0000}';
const END: char = '\u{f0001}';

/// The control tokens of a tokenizer and its template, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct ControlTokens {
    tokens: Vec<String>,
    /// The first bytes of all.
    starts: Vec<u8>,
}

/// A piece of a marked text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text in which control tokens are tokens.
    Template(&'a str),
    /// A control token that is text.
    Text(&'a str),
}

impl ControlTokens {
    pub(super) fn new(mut tokens: Vec<String>) -> Self {
        tokens.retain(|token| !token.is_empty());
        tokens.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        tokens.dedup();
        let mut starts: Vec<u8> = tokens.iter().map(|token| token.as_bytes()[0]).collect();
        starts.sort_unstable();
        starts.dedup();
        Self { tokens, starts }
    }

    /// Returns the first control token in `text` with its position.
    fn find<'t>(&'t self, text: &str) -> Option<(usize, &'t str)> {
        let places = text.bytes().enumerate().filter(|(_, byte)| self.starts.contains(byte));
        // Of several at one place the longest, which comes first.
        places.map(|(at, _)| at).find_map(|at| {
            let rest = &text.as_bytes()[at..];
            let token = self.tokens.iter().find(|token| rest.starts_with(token.as_bytes()))?;
            Some((at, token.as_str()))
        })
    }

    /// Adds the control tokens in `text` to `count`; with `wrap` returns the text with markers around them, and without
    /// markers that it had itself.
    pub(super) fn mark(&self, text: &str, wrap: bool, count: &Cell<usize>) -> Option<String> {
        let clean = wrap && text.contains([START, END]);
        let cleaned = if clean { text.replace([START, END], "") } else { String::new() };
        let text = if clean { &cleaned } else { text };
        let mut out = String::new();
        let mut rest = text;
        while let Some((at, token)) = self.find(rest) {
            count.set(count.get() + 1);
            let (before, after) = (&rest[..at], &rest[at + token.len()..]);
            out.extend([before, START.encode_utf8(&mut [0; 4]), token, END.encode_utf8(&mut [0; 4])]);
            rest = after;
        }
        let changed = !out.is_empty() || clean;
        out.push_str(rest);
        (wrap && changed).then_some(out)
    }

    /// Splits a marked text into pieces. A marker without its counterpart only separates.
    pub(super) fn pieces<'a>(&self, text: &'a str, added: &[String]) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find([START, END]) {
            pieces.push(Piece::Template(&rest[..at]));
            let marker = rest[at..].chars().next().map_or(1, char::len_utf8);
            let after = &rest[at + marker..];
            let end = after.find(END).filter(|_| rest[at..].starts_with(START));
            rest = match end.filter(|end| added.iter().any(|token| token == &after[..*end])) {
                Some(end) => {
                    pieces.push(Piece::Text(&after[..end]));
                    &after[end + END.len_utf8()..]
                }
                None => after,
            };
        }
        pieces.push(Piece::Template(rest));
        pieces
    }
}

/// Returns a marked text without its markers.
pub(super) fn without_markers(text: &str) -> String {
    text.replace([START, END], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_tokens_in_text_are_marked_and_counted() {
        let tokens = ControlTokens::new(["<s>", "<s>x", "</s>"].map(str::to_owned).to_vec());
        let count = Cell::new(0);
        let marked = tokens.mark("a<s>xb</s>\u{f0001}", true, &count).expect("it holds tokens");
        assert_eq!(marked, "a\u{f0000}<s>x\u{f0001}b\u{f0000}</s>\u{f0001}");
        assert_eq!(count.get(), 2);
        let added = ["<s>x".to_owned(), "</s>".to_owned()];
        let expected = [Piece::Template("a"), Piece::Text("<s>x"), Piece::Template("b"), Piece::Text("</s>")];
        assert_eq!(tokens.pieces(&marked, &added)[..4], expected);
        assert_eq!(tokens.mark("plain", true, &count), None);
        assert_eq!(tokens.mark("<s>", false, &count), None);
        assert_eq!(count.get(), 3);
    }
}
