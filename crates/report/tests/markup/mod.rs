//! A reader of markup that is strict where browsers forgive.

/// One start tag.
#[derive(Debug)]
pub(crate) struct Element {
    /// Its name.
    pub(crate) name: String,
    /// Its attributes, unescaped, in order.
    pub(crate) attributes: Vec<(String, String)>,
}

impl Element {
    /// An attribute's value.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// An attribute that is a number.
    pub(crate) fn number(&self, name: &str) -> f64 {
        let value = self.attribute(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}"))
    }
}

/// Elements that HTML never closes.
const VOID: [&str; 1] = ["meta"];

/// All elements in order and all words between tags; panics where a tag is unclosed, a sign unescaped, an attribute
/// repeated.
pub(crate) fn parse(markup: &str) -> (Vec<Element>, Vec<String>) {
    let (mut elements, mut words, mut open) = (Vec::new(), Vec::new(), Vec::<String>::new());
    let mut rest = markup.strip_prefix("<!DOCTYPE html>").unwrap_or(markup);
    while let Some(start) = rest.find('<') {
        words.push(unescape(&rest[..start]));
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closing tag");
            continue;
        }
        let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
        let element = element(tag);
        if element.name == "style" {
            let end = rest.find("</style>").expect("a style ends");
            assert!(!rest[..end].contains(['<', '&']), "{}", &rest[..end]);
        }
        if !closed && !VOID.contains(&element.name.as_str()) {
            open.push(element.name.clone());
        }
        elements.push(element);
    }
    words.push(unescape(rest));
    assert!(open.is_empty(), "unclosed: {open:?}");
    words.retain(|words| !words.trim().is_empty());
    (elements, words)
}

fn element(tag: &str) -> Element {
    let (name, mut rest) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
    assert!(name.starts_with(|sign: char| sign.is_ascii_alphabetic()), "tag {tag:?}");
    let mut attributes: Vec<(String, String)> = Vec::new();
    while !rest.trim().is_empty() {
        let (name, from) = rest.split_once("=\"").unwrap_or_else(|| panic!("attribute {rest:?}"));
        let (value, after) = from.split_once('"').unwrap_or_else(|| panic!("attribute {rest:?}"));
        let name = name.trim();
        assert!(attributes.iter().all(|(known, _)| known != name), "two {name} in {tag:?}");
        attributes.push((name.to_owned(), unescape(value)));
        rest = after;
    }
    Element { name: name.to_owned(), attributes }
}

fn unescape(escaped: &str) -> String {
    let mut words = String::new();
    let mut rest = escaped;
    while let Some((before, from)) = rest.split_once('&') {
        let (name, after) = from.split_once(';').unwrap_or_else(|| panic!("a bare & in {escaped:?}"));
        words.push_str(before);
        words.push_str(match name {
            "amp" => "&",
            "lt" => "<",
            "gt" => ">",
            "quot" => "\"",
            "#39" => "'",
            _ => panic!("entity {name:?}"),
        });
        rest = after;
    }
    words.push_str(rest);
    assert!(!words.contains(|sign: char| sign.is_control() && !matches!(sign, '\n' | '\t')), "{words:?}");
    words
}
