//! GitHub-flavored pipe tables.

use super::layout::{Layout, Note, caption, flat_header, is_marked, one_line};
use super::value::Shown;
use super::{Align, Table};

const MARK: Note<'static> =
    Note { sign: String::new(), words: "Bold: the interval of the difference excludes 0." };

pub(super) fn render(table: &Table) -> String {
    let layout = Layout::new(table);
    let mut markdown = format!("**{}**\n", escape(&caption(table)));
    if !layout.columns.is_empty() {
        let headers: Vec<_> = layout.columns.iter().map(|column| escape(&flat_header(column))).collect();
        let rows: Vec<Vec<_>> =
            layout.rows.iter().map(|row| row.iter().map(|shown| cell(&layout, shown)).collect()).collect();
        let aligns: Vec<_> = layout.columns.iter().map(|column| column.align).collect();
        markdown.push('\n');
        markdown.push_str(&pipe_table(&headers, &rows, &aligns));
    }
    for Note { sign, words } in layout.notes(table, MARK) {
        let gap = if sign.is_empty() { "" } else { " " };
        markdown.push_str(&format!("\n{sign}{gap}{}\n", escape_line_start(&escape(words))));
    }
    markdown
}

/// Aligns the source too, since it is also read without rendering.
fn pipe_table(headers: &[String], rows: &[Vec<String>], aligns: &[Align]) -> String {
    let widths: Vec<_> = (0..headers.len())
        .map(|at| {
            rows.iter().map(|row| &row[at]).chain([&headers[at]]).map(|text| width(text)).max().unwrap_or(0)
        })
        .map(|widest| widest.max(3))
        .collect();
    let rule: Vec<_> = widths
        .iter()
        .zip(aligns)
        .map(|(&width, align)| match align {
            Align::Left => format!(":{}", "-".repeat(width - 1)),
            Align::Center => format!(":{}:", "-".repeat(width - 2)),
            Align::Right => format!("{}:", "-".repeat(width - 1)),
        })
        .collect();
    [headers, &rule]
        .into_iter()
        .chain(rows.iter().map(Vec::as_slice))
        .map(|cells| pipe_line(cells, &widths, aligns))
        .collect()
}

fn pipe_line(cells: &[String], widths: &[usize], aligns: &[Align]) -> String {
    let mut line = String::from("|");
    for ((cell, &width), align) in cells.iter().zip(widths).zip(aligns) {
        match align {
            Align::Left => line.push_str(&format!(" {cell:<width$} |")),
            Align::Center => line.push_str(&format!(" {cell:^width$} |")),
            Align::Right => line.push_str(&format!(" {cell:>width$} |")),
        }
    }
    line.push('\n');
    line
}

fn cell(layout: &Layout<'_>, shown: &Shown<'_>) -> String {
    match shown {
        Shown::Words(words) => escape(words),
        Shown::Number(number) => number.clone(),
        Shown::Missing(reason) => layout.missing(reason),
        Shown::Interval { value, low, high, .. } => {
            let text = format!("{value} [{low}, {high}]");
            if is_marked(shown) { format!("**{text}**") } else { text }
        }
    }
}

/// Returns text without markup, pipes and line breaks, for a cell.
fn escape(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for character in one_line(words).trim().chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '~' | '#' | '$' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Escapes the first character of a paragraph that starts like a list.
fn escape_line_start(words: &str) -> String {
    let digits = words.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &words[digits..];
    if digits > 0 && rest.starts_with(['.', ')']) {
        return format!("{}\\{rest}", &words[..digits]);
    }
    if words.starts_with(['-', '+', '=']) { format!("\\{words}") } else { words.to_owned() }
}

fn width(text: &str) -> usize {
    text.chars().count()
}
