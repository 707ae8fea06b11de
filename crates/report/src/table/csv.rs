//! Comma-separated values (RFC 4180, with line feeds) for further processing.

use super::layout::{Layout, flat_header};
use super::{Table, Value};

pub(super) fn render(table: &Table) -> String {
    let layout = Layout::new(table);
    let wide: Vec<_> = (0..layout.columns.len()).map(|at| has_bounds(table, at)).collect();
    let mut header = Vec::new();
    for (column, &wide) in layout.columns.iter().zip(&wide) {
        let name = flat_header(column);
        if wide {
            header.extend([name.clone(), format!("{name} low"), format!("{name} high")]);
        } else {
            header.push(name);
        }
    }
    let mut csv = line(&header);
    for row in &table.rows {
        let mut fields = Vec::with_capacity(header.len());
        for (at, &wide) in wide.iter().enumerate() {
            let [value, low, high] = row.get(at).map(fields_of).unwrap_or_default();
            fields.push(value);
            if wide {
                fields.extend([low, high]);
            }
        }
        csv.push_str(&line(&fields));
    }
    csv
}

/// Tests the values, not their text: a difference that is not finite still has bounds.
fn has_bounds(table: &Table, column: usize) -> bool {
    let bounded = |cell: &Value| matches!(cell, Value::Interval { .. } | Value::Difference { .. });
    table.rows.iter().filter_map(|row| row.get(column)).any(bounded)
}

fn fields_of(value: &Value) -> [String; 3] {
    let alone = |field: String| [field, String::new(), String::new()];
    match *value {
        Value::Text(ref words) => alone(words.clone()),
        Value::Count(count) => alone(count.to_string()),
        Value::Number { value, .. } | Value::Percent { value, .. } => alone(exact(value)),
        Value::Interval { value, low, high, .. } | Value::Difference { value, low, high, .. } => {
            [value, low, high].map(exact)
        }
        Value::Missing(_) => alone(String::new()),
    }
}

/// Returns the shortest digits of the same number; empty if it is not finite.
fn exact(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

fn line(fields: &[String]) -> String {
    let quoted: Vec<_> = fields.iter().map(|field| quote(field, fields.len())).collect();
    quoted.join(",") + "\n"
}

fn quote(field: &str, fields: usize) -> String {
    // A row of one empty field would be a blank line, which readers skip.
    let blank_line = fields == 1 && field.is_empty();
    if blank_line || field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
