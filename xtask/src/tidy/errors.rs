//! An error whose text repeats its source prints the cause twice, since a report prints the source as well.

use super::ending;
use crate::tracked::{Files, Violations};

pub(super) fn sources_are_printed_once(files: &Files) -> Violations {
    ending(files, &[".rs"]).flat_map(|(path, text)| repeated(path, text)).collect()
}

fn repeated(path: &str, text: &str) -> Violations {
    const MARK: &str = "#[error(";
    let mut broken = Violations::new();
    for (at, _) in text.match_indices(MARK) {
        let Some((message, after)) = balanced(&text[at + MARK.len() - 1..], '(', ')') else { continue };
        let fields = fields(after);
        let is_repeated = |name: &str| {
            let argument = message.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
            if name.parse::<usize>().is_ok() { message.contains(&format!("{{{name}")) } else { argument }
        };
        if let Some(source) = sources(fields).into_iter().find(|name| is_repeated(name)) {
            let line = text[..at].lines().count() + 1;
            broken.push(format!(
                "{path}:{line}: the text repeats its source `{source}`, which a report prints as well"
            ));
        }
    }
    broken
}

/// The text between the bracket at the start of `text` and its partner, strings skipped, and what follows.
fn balanced(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        if !quoted && c == open {
            depth += 1;
        } else if !quoted && c == close {
            depth -= 1;
            if depth == 0 {
                return Some((&text[open.len_utf8()..at], &text[at + close.len_utf8()..]));
            }
        }
    }
    None
}

/// The fields of the variant or struct that follows an attribute; empty for one without.
fn fields(after: &str) -> &str {
    let mut rest = after.trim_start_matches(']').trim_start();
    // Comments and further attributes.
    while let Some(line) = rest.lines().next().filter(|line| line.starts_with("//") || line.starts_with("#["))
    {
        rest = rest[line.len()..].trim_start();
    }
    match rest.find(['{', '(', ',', ';', '}']) {
        Some(at) if rest[at..].starts_with('{') => {
            balanced(&rest[at..], '{', '}').map_or("", |(inner, _)| inner)
        }
        Some(at) if rest[at..].starts_with('(') => {
            balanced(&rest[at..], '(', ')').map_or("", |(inner, _)| inner)
        }
        _ => "",
    }
}

/// The names of the fields that are sources, or their numbers.
fn sources(fields: &str) -> Vec<String> {
    let code: Vec<&str> =
        fields.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect();
    let code = code.join(" ");
    let mut names = Vec::new();
    for (index, field) in code.split(',').enumerate() {
        let marked = ["#[source]", "#[from]"].iter().any(|mark| field.contains(mark));
        let bare = field.rsplit(']').next().unwrap_or(field).trim().trim_start_matches("pub ");
        let name =
            bare.split_once(':').filter(|(_, kind)| !kind.starts_with(':')).map(|(name, _)| name.trim());
        match name {
            Some("source") => names.push("source".to_owned()),
            Some(name) if marked => names.push(name.to_owned()),
            None if marked => names.push(index.to_string()),
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_its_source_is_named() {
        for variant in [
            "#[error(\"cannot read {path}: {source}\")]\nRead { path: String, source: io::Error },",
            "#[error(\"cannot read {}: {source}\", path.display())]\n/// Doc.\nRead {\n /// The file.\n path: PathBuf,\n #[source]\n source: io::Error,\n}",
            "#[error(\"bad: {}\", cause.to_string())]\nBad { #[source] cause: io::Error },",
            "#[error(\"bad: {0}\")]\nBad(#[from] io::Error),",
            "#[error(\"bad: {source:?}\")]\nstruct Bad { pub source: io::Error }",
        ] {
            assert_eq!(repeated("a.rs", variant).len(), 1, "{variant}");
        }
    }

    #[test]
    fn other_texts_pass() {
        for variant in [
            "#[error(\"cannot read {path}\")]\nRead { path: String, source: io::Error },",
            "#[error(transparent)]\nRead(#[from] io::Error),",
            "#[error(\"{0} is too large\")]\nLarge(u32),\n#[error(\"cannot read\")]\nRead { source: io::Error },",
            "#[error(\"{path}: {problem}\")]\nLine { path: String, problem: String },",
        ] {
            assert_eq!(repeated("a.rs", variant), Vec::<String>::new(), "{variant}");
        }
    }
}
