//! The layout that all formats share: cells, spans of group headers, and numbered reasons.

use std::borrow::Cow;

use super::value::{DASH, Mark, Shown};
use super::{Align, Column, Table, Value};

/// A rectangular table.
pub(super) struct Layout<'a> {
    pub(super) columns: Vec<Cow<'a, Column>>,
    /// Rows with one cell per column.
    pub(super) rows: Vec<Vec<Shown<'a>>>,
    /// Reasons of missing values, each once, in order of appearance.
    pub(super) reasons: Vec<&'a str>,
}

/// Neighboring columns under one header.
pub(super) struct Span<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// A note below a table, with the sign that refers to it.
pub(super) struct Note<'a> {
    pub(super) sign: String,
    pub(super) words: &'a str,
}

impl<'a> Layout<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        let width = table.rows.iter().map(Vec::len).chain([table.columns.len()]).max().unwrap_or(0);
        let mut columns: Vec<_> = table.columns.iter().map(Cow::Borrowed).collect();
        columns.resize_with(width, || Cow::Owned(Column::new("", Align::Left)));
        let rows: Vec<Vec<_>> = table.rows.iter().map(|row| fill(row, width)).collect();
        let mut reasons = Vec::new();
        for cell in rows.iter().flatten() {
            if let Shown::Missing(reason) = *cell
                && !reasons.contains(&reason)
            {
                reasons.push(reason);
            }
        }
        Self { columns, rows, reasons }
    }

    /// Returns the runs of columns with the same group; a column without a group is its own run.
    pub(super) fn spans(&self) -> Vec<Span<'_>> {
        let mut spans: Vec<Span<'_>> = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            let group = column.group.as_deref();
            match spans.last_mut() {
                Some(last) if group.is_some() && last.group == group => last.len += 1,
                _ => spans.push(Span { group, start: at, len: 1 }),
            }
        }
        spans
    }

    pub(super) fn has_groups(&self) -> bool {
        self.columns.iter().any(|column| column.group.is_some())
    }

    /// Returns whether a column has intervals.
    pub(super) fn has_intervals(&self, column: usize) -> bool {
        self.rows.iter().any(|row| matches!(row[column], Shown::Interval { .. }))
    }

    /// Returns whether the interval of a difference excludes 0.
    pub(super) fn has_marks(&self) -> bool {
        self.rows.iter().flatten().any(is_marked)
    }

    /// Returns the sign of a missing value: a dash with the number of its reason.
    pub(super) fn missing(&self, reason: &str) -> String {
        format!("{DASH}{}", superscript(self.number_of(reason)))
    }

    /// Returns the notes below the table: the mark's meaning, reasons, then its own notes.
    pub(super) fn notes(&self, table: &'a Table, mark: Note<'a>) -> Vec<Note<'a>> {
        let marks = self.has_marks().then_some(mark);
        let reasons = (1..).zip(&self.reasons).map(|(at, words)| Note { sign: superscript(at), words });
        let own = table.notes.iter().map(|words| Note { sign: String::new(), words });
        marks.into_iter().chain(reasons).chain(own).collect()
    }

    fn number_of(&self, reason: &str) -> usize {
        1 + self.reasons.iter().position(|known| *known == reason).expect("every shown reason was collected")
    }
}

/// Returns whether a cell is a difference whose interval excludes 0.
pub(super) fn is_marked(cell: &Shown<'_>) -> bool {
    matches!(cell, Shown::Interval { mark: Mark::ExcludesZero, .. })
}

/// Returns a column's header for formats without spanning headers.
pub(super) fn flat_header(column: &Column) -> String {
    match column.group.as_deref() {
        None => column.header.clone(),
        Some(group) if column.header.is_empty() => group.to_owned(),
        Some(group) => format!("{group}: {}", column.header),
    }
}

/// Returns the title after the number in the table's id, unless it has that number.
pub(crate) fn caption(table: &Table) -> String {
    match label(&table.id) {
        Some(label) if !table.title.starts_with(&label) => format!("{label}. {}", table.title),
        _ => table.title.clone(),
    }
}

/// Returns text on one line, without control characters, which could break a row or control a terminal.
pub(super) fn one_line(words: &str) -> Cow<'_, str> {
    if words.contains(char::is_control) {
        Cow::Owned(words.replace("\r\n", " ").replace(char::is_control, " "))
    } else {
        Cow::Borrowed(words)
    }
}

fn label(id: &str) -> Option<String> {
    let number = id.strip_prefix("table-")?;
    number.starts_with(|first: char| first.is_ascii_digit()).then(|| format!("Table {number}"))
}

fn fill(row: &[Value], width: usize) -> Vec<Shown<'_>> {
    let mut cells: Vec<_> = row.iter().map(Value::shown).collect();
    cells.resize_with(width, || Shown::Words(""));
    cells
}

fn superscript(number: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    number.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect()
}
