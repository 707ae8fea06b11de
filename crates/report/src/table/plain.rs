//! Tables for a terminal.

use super::layout::{Layout, Note, Span, caption, is_marked, one_line};
use super::value::Shown;
use super::{Align, Table};

/// Width of titles and notes.
const WRAP: usize = 100;
/// Width of a cell, which wraps long answers of models.
const WRAP_CELL: usize = 72;
/// The least width of a text column that a narrow table wraps.
const LEAST_CELL: usize = 10;
const GAP: &str = "  ";
const MARK: Note<'static> =
    Note { sign: String::new(), words: "* The interval of the difference excludes 0." };

pub(super) fn render(table: &Table) -> String {
    let layout = Layout::new(table);
    let (cells, widths) = cells_and_widths(&layout, &vec![WRAP_CELL; layout.columns.len()]);
    lines(table, &layout, &cells, widths, WRAP)
}

/// Renders a table in at most `most` columns, if its text columns can be narrow enough: the widest ones wrap.
pub(super) fn render_within(table: &Table, most: usize) -> String {
    let layout = Layout::new(table);
    let mut limits = vec![WRAP_CELL; layout.columns.len()];
    let (mut cells, mut widths) = cells_and_widths(&layout, &limits);
    while span_width(&widths) > most {
        let texts = (0..widths.len()).filter(|&at| layout.columns[at].align == Align::Left);
        let Some(widest) = texts.filter(|&at| limits[at] > LEAST_CELL).max_by_key(|&at| widths[at]) else {
            break;
        };
        limits[widest] = widths[widest].saturating_sub(1).max(LEAST_CELL).min(limits[widest] - 1);
        (cells, widths) = cells_and_widths(&layout, &limits);
    }
    lines(table, &layout, &cells, widths, most)
}

/// Returns the texts of all cells, whose words wrap at the limit of their column, and the widths of columns.
fn cells_and_widths(layout: &Layout<'_>, limits: &[usize]) -> (Vec<Vec<String>>, Vec<usize>) {
    let measures: Vec<_> = (0..layout.columns.len()).map(|at| Measure::new(layout, at, limits[at])).collect();
    let cells: Vec<Vec<String>> = layout
        .rows
        .iter()
        .map(|row| row.iter().zip(&measures).map(|(cell, measure)| measure.cell(layout, cell)).collect())
        .collect();
    let headers = headers(layout);
    let mut widths: Vec<_> = (0..layout.columns.len())
        .map(|at| {
            cells
                .iter()
                .flat_map(|row| row[at].lines())
                .chain([headers[at].as_str()])
                .map(width)
                .max()
                .unwrap_or(0)
                .max(1)
        })
        .collect();
    widen_for_groups(&layout.spans(), &mut widths);
    (cells, widths)
}

fn headers(layout: &Layout<'_>) -> Vec<String> {
    layout.columns.iter().map(|column| one_line(&column.header).into_owned()).collect()
}

fn lines(
    table: &Table,
    layout: &Layout<'_>,
    cells: &[Vec<String>],
    widths: Vec<usize>,
    most: usize,
) -> String {
    let (headers, spans) = (headers(layout), layout.spans());
    let aligns: Vec<_> = layout.columns.iter().map(|column| column.align).collect();
    let total = span_width(&widths);
    let mut lines = wrap(&one_line(&caption(table)), 0, most);
    if total > 0 {
        lines.push("━".repeat(total));
        if layout.has_groups() {
            lines.push(group_line(&spans, &widths, |span, width| match span.group {
                Some(group) => pad(&one_line(group), width, Align::Center),
                None => " ".repeat(width),
            }));
            lines.push(group_line(&spans, &widths, |span, width| {
                if span.group.is_some() { "─".repeat(width) } else { " ".repeat(width) }
            }));
        }
        lines.push(row_line(&headers, &widths, &header_aligns(layout)));
        lines.push("─".repeat(total));
        lines.extend(cells.iter().flat_map(|row| row_lines(row, &widths, &aligns)));
        lines.push("━".repeat(total));
    }
    for Note { sign, words } in layout.notes(table, MARK) {
        let words = one_line(words);
        if sign.is_empty() {
            let indent = if words.starts_with("* ") { 2 } else { 0 };
            lines.extend(wrap(&words, indent, most));
        } else {
            lines.extend(wrap(&format!("{sign} {words}"), width(&sign) + 1, most));
        }
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Headers have the alignment of their columns, but are centered above intervals.
fn header_aligns(layout: &Layout<'_>) -> Vec<Align> {
    let align = |at: usize| if layout.has_intervals(at) { Align::Center } else { layout.columns[at].align };
    (0..layout.columns.len()).map(align).collect()
}

/// The widths of the parts of a column's intervals, which align points and brackets.
struct Measure {
    value: usize,
    low: usize,
    high: usize,
    mark: usize,
    /// The width at which words wrap.
    wrap: usize,
}

impl Measure {
    fn new(layout: &Layout<'_>, column: usize, wrap: usize) -> Self {
        let mut widest = Self { value: 0, low: 0, high: 0, mark: 0, wrap };
        if !layout.has_intervals(column) {
            return widest;
        }
        for row in &layout.rows {
            match &row[column] {
                Shown::Interval { value, low, high, .. } => {
                    widest.value = widest.value.max(width(value));
                    widest.low = widest.low.max(width(low));
                    widest.high = widest.high.max(width(high));
                    widest.mark |= usize::from(is_marked(&row[column]));
                }
                Shown::Number(number) => widest.value = widest.value.max(width(number)),
                Shown::Words(_) | Shown::Missing(_) => {}
            }
        }
        widest
    }

    /// Returns the text after the estimate: ` [low, high]` and the mark.
    fn tail(&self) -> usize {
        if self.low == 0 { 0 } else { " [, ]".len() + self.low + self.high + self.mark }
    }

    fn cell(&self, layout: &Layout<'_>, shown: &Shown<'_>) -> String {
        let Self { value: wide, low: wide_low, high: wide_high, mark, wrap: most } = *self;
        match shown {
            Shown::Words(words) => match one_line(words) {
                words if width(&words) > most => wrap(&words, 0, most).join("\n"),
                words => words.into_owned(),
            },
            Shown::Number(number) => format!("{number:>wide$}{:tail$}", "", tail = self.tail()),
            Shown::Missing(reason) => {
                // The dash takes the last digit's place; the sign of the reason hangs over.
                let dash = layout.missing(reason);
                let start = wide.saturating_sub(1);
                let text = format!("{:start$}{dash}", "");
                format!("{text:<full$}", full = wide + self.tail())
            }
            Shown::Interval { value, low, high, .. } => {
                let sign = if is_marked(shown) { "*" } else { "" };
                format!("{value:>wide$} [{low:>wide_low$}, {high:>wide_high$}]{sign:mark$}")
            }
        }
    }
}

/// The last column of a group widens for a wide group header.
fn widen_for_groups(spans: &[Span<'_>], widths: &mut [usize]) {
    for span in spans {
        let columns = &mut widths[span.start..span.start + span.len];
        let wanted = span.group.map_or(0, |group| width(&one_line(group)));
        let missing = wanted.saturating_sub(span_width(columns));
        if let Some(last) = columns.last_mut() {
            *last += missing;
        }
    }
}

fn group_line(spans: &[Span<'_>], widths: &[usize], show: impl Fn(&Span<'_>, usize) -> String) -> String {
    let parts: Vec<_> =
        spans.iter().map(|span| show(span, span_width(&widths[span.start..span.start + span.len]))).collect();
    parts.join(GAP)
}

/// Renders a row, with as many lines as its longest cell.
fn row_lines(cells: &[String], widths: &[usize], aligns: &[Align]) -> Vec<String> {
    let parts: Vec<Vec<&str>> = cells.iter().map(|cell| cell.lines().collect()).collect();
    let height = parts.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let line = |at: usize| {
        let of_cell = |lines: &Vec<&str>| lines.get(at).copied().unwrap_or_default().to_owned();
        row_line(&parts.iter().map(of_cell).collect::<Vec<_>>(), widths, aligns)
    };
    (0..height).map(line).collect()
}

fn row_line(cells: &[String], widths: &[usize], aligns: &[Align]) -> String {
    let parts: Vec<_> = cells
        .iter()
        .zip(widths)
        .zip(aligns)
        .map(|((cell, width), align)| pad(cell, *width, *align))
        .collect();
    parts.join(GAP)
}

fn pad(text: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => format!("{text:<width$}"),
        Align::Center => format!("{text:^width$}"),
        Align::Right => format!("{text:>width$}"),
    }
}

fn span_width(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

/// Returns the width of a text, one column per character.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Wraps text into lines of at most `most` columns, longer words on their own lines; later lines are indented.
fn wrap(words: &str, indent: usize, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words.split_whitespace() {
        if !line.trim().is_empty() && width(&line) + 1 + width(word) > most {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}
