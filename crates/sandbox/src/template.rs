//! Sentences with named gaps: one template both formats and parses a sentence.

/// The characters that end a gap's value.
const DELIMITERS: [char; 8] = [' ', ',', '.', '(', ')', ':', '?', '\n'];

/// Values of gaps, in the order in which the template names them.
pub(crate) type Values<'a> = Vec<(&'static str, &'a str)>;

/// `template` with every `{gap}` filled from `values`.
///
/// A gap without a value stays as it is; the families' own tests fill every template.
pub(crate) fn fill(template: &'static str, values: &[(&'static str, String)]) -> String {
    let mut out = String::with_capacity(template.len() + 16);
    for piece in pieces(template) {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Gap(name) => match values.iter().find(|(gap, _)| *gap == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push('{');
                    out.push_str(name);
                    out.push('}');
                }
            },
        }
    }
    out
}

/// The values of the gaps if the whole of `text` reads like `template`, letter case aside.
///
/// A gap is one word: a non-empty run without spaces and punctuation.
pub(crate) fn read<'a>(template: &'static str, text: &'a str) -> Option<Values<'a>> {
    let mut values = Values::new();
    let mut rest = text;
    for piece in pieces(template) {
        match piece {
            Piece::Literal(literal) => {
                let head = rest.get(..literal.len())?;
                if !head.eq_ignore_ascii_case(literal) {
                    return None;
                }
                rest = &rest[literal.len()..];
            }
            Piece::Gap(name) => {
                let end = rest.find(DELIMITERS).unwrap_or(rest.len());
                if end == 0 {
                    return None;
                }
                values.push((name, &rest[..end]));
                rest = &rest[end..];
            }
        }
    }
    rest.is_empty().then_some(values)
}

/// Returns the value of `gap` in `values`.
pub(crate) fn value<'a>(values: &Values<'a>, gap: &str) -> Option<&'a str> {
    values.iter().find(|(name, _)| *name == gap).map(|(_, value)| *value)
}

/// The names of the gaps of `template`, in their order.
pub(crate) fn gaps(template: &'static str) -> impl Iterator<Item = &'static str> {
    pieces(template).filter_map(|piece| match piece {
        Piece::Gap(name) => Some(name),
        Piece::Literal(_) => None,
    })
}

enum Piece {
    Literal(&'static str),
    Gap(&'static str),
}

fn pieces(template: &'static str) -> impl Iterator<Item = Piece> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let gap = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        if let Some((name, tail)) = gap {
            rest = tail;
            return Some(Piece::Gap(name));
        }
        // An unclosed opening brace is text, so the search starts at the second character.
        let from = rest.chars().next().map_or(0, char::len_utf8);
        let end = rest[from..].find('{').map_or(rest.len(), |at| at + from);
        let (literal, tail) = rest.split_at(end);
        rest = tail;
        Some(Piece::Literal(literal))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_read_back() {
        let template = "def {name}({x}, {y}): return {x} {op} {y}";
        let values = [("name", "f"), ("x", "a"), ("y", "b"), ("op", "+")].map(|(gap, v)| (gap, v.to_owned()));
        let text = fill(template, &values);
        assert_eq!(text, "def f(a, b): return a + b");
        let read = read(template, &text).expect("reads its own text");
        assert_eq!(value(&read, "op"), Some("+"));
        assert_eq!(value(&read, "name"), Some("f"));
    }

    #[test]
    fn other_texts_do_not_match() {
        for text in ["", "It is", "It is ", "It is Au.", "It is Au, a gas", "Is it Au", "It is €"] {
            let matched = read("It is {what}", text).is_some();
            assert_eq!(matched, text == "It is €", "{text:?}");
        }
        assert!(read("it IS {what}", "It is Au").is_some(), "case is ignored");
    }
}
