//! A record as text for a terminal.

use std::fmt::Write as _;

use pref_data::{Label, PreferenceRecord};

use crate::prompt::{shown, shown_prompt};

/// Returns a record as text: prompt, responses, labels, under the heading `number` of `total`.
///
/// Control characters except line ends and tabs are escaped, so that no response controls the terminal.
///
/// ```
/// let record = pref_data::PreferenceRecord {
///     id: "17".into(),
///     prompt: pref_data::Text::Plain("2 + 2?".into()),
///     responses: ["4", "\u{1b}[2J5"].map(|text| pref_data::Text::Plain(text.into())).to_vec(),
///     labels: [("human".to_owned(), pref_data::Label::Prefers(0))].into(),
///     domain: None,
///     context: Default::default(),
/// };
/// let page = annotate::page(&record, 1, 10);
/// assert!(page.starts_with("── record 17 (1 of 10) ──"));
/// assert!(page.contains("\\u{1b}[2J5"));
/// ```
pub fn page(record: &PreferenceRecord, number: usize, total: usize) -> String {
    let mut out = format!("── record {} ({number} of {total}) ──\n", record.id);
    if let Some(domain) = &record.domain {
        let _ = writeln!(out, "domain: {domain}");
    }
    let _ = write!(out, "\nprompt\n{}\n", indented(&shown_prompt(record)));
    for (index, response) in record.responses.iter().enumerate() {
        let text = shown(response);
        let length = text.chars().count();
        let _ = write!(out, "\nresponse {} ({length} characters)\n{}\n", index + 1, indented(&text));
    }
    let _ = writeln!(out, "\nlabels");
    let width = record.labels.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (annotator, label) in &record.labels {
        let label = match label {
            Label::Prefers(index) => format!("response {}", index + 1),
            Label::Tie => "tie".to_owned(),
        };
        let _ = writeln!(out, "  {annotator:width$}  {label}");
    }
    harmless(&out)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn harmless(text: &str) -> String {
    // Unicode does not count bidirectional overrides as control characters, but they reorder a line.
    let is_risky = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_risky(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
