//! A grid of marks.

use super::Marks;
use super::canvas::{Anchor, Canvas, FONT, LINE, MARGIN, text_width};
use super::legend::{self, Swatch};

const LEAST_WIDTH: f64 = 880.0;
const ROW: f64 = 26.0;
/// Distance from a mark's center to its text.
const BESIDE: f64 = 12.0;
const GAP: f64 = 16.0;

pub(super) fn draw(figure: &Marks) -> String {
    let names = figure.rows.iter().map(|row| text_width(&row.name, FONT)).fold(0.0, f64::max);
    let left = MARGIN + names + GAP + BESIDE;
    let column = column_width(figure);
    let groups = figure.rows.iter().map(|row| text_width(&row.group, FONT)).fold(0.0, f64::max);
    let width = LEAST_WIDTH.max(left + column * figure.columns.len() as f64).max(groups) + MARGIN;

    let mut canvas = Canvas::default();
    let below_title = canvas.title(&figure.title, width);
    let entries: Vec<_> = figure.kinds.iter().map(|kind| (Swatch::Sign, kind.clone())).collect();
    let below_legend = legend::draw(&mut canvas, &entries, below_title, width);
    let mut y = headings(&mut canvas, figure, (left, column), below_legend + GAP);
    for row in &figure.rows {
        if !row.group.is_empty() {
            y += LINE;
            canvas.text((MARGIN, y), Anchor::Start, "muted", &row.group);
            canvas.line((MARGIN, y + 5.0), (width - MARGIN, y + 5.0), "grid", 1.0);
            y += 4.0;
        }
        y += ROW;
        canvas.text((MARGIN, y), Anchor::Start, "", &row.name);
        let middle = y - 0.35 * FONT;
        for (at, mark) in row.marks.iter().enumerate() {
            let x = left + column * at as f64;
            match mark {
                Some((kind, words)) => {
                    canvas.open_series(*kind);
                    canvas.sign((x, middle), *kind);
                    canvas.close();
                    canvas.text((x + BESIDE, y), Anchor::Start, "", words);
                }
                None => canvas.text((x, y), Anchor::Middle, "muted", "–"),
            }
        }
    }
    canvas.finish(&figure.title, &description(figure), width, y + MARGIN)
}

/// Draws the headings of columns, a group once over its columns; returns the y below them.
fn headings(canvas: &mut Canvas, figure: &Marks, (left, column): (f64, f64), top: f64) -> f64 {
    for (at, (group, name)) in figure.columns.iter().enumerate() {
        let x = left + column * at as f64 - BESIDE / 2.0;
        let is_first = at == 0 || figure.columns[at - 1].0 != *group;
        if is_first {
            canvas.text((x, top + FONT), Anchor::Start, "", group);
        }
        canvas.text((x, top + FONT + LINE), Anchor::Start, "muted", name);
    }
    top + FONT + LINE
}

fn column_width(figure: &Marks) -> f64 {
    let texts = figure.rows.iter().flat_map(|row| row.marks.iter().flatten()).map(|(_, words)| words);
    let beside = texts.map(|words| BESIDE + text_width(words, FONT)).fold(0.0, f64::max);
    let headings = figure.columns.iter().map(|(group, name)| {
        let columns = figure.columns.iter().filter(|(other, _)| other == group).count().max(1) as f64;
        (text_width(group, FONT) / columns).max(text_width(name, FONT))
    });
    headings.fold(beside, f64::max) + GAP
}

fn description(figure: &Marks) -> String {
    let mut words = String::from("A grid of marks.");
    let mut group = "";
    for row in &figure.rows {
        group = if row.group.is_empty() { group } else { &row.group };
        let marks = figure.columns.iter().zip(&row.marks).map(|((of, name), mark)| match mark {
            Some((kind, text)) => {
                let kind = figure.kinds.get(*kind).map_or("", String::as_str);
                format!("{of}, {name}: {kind} ({text})")
            }
            None => format!("{of}, {name}: not measured"),
        });
        words.push_str(&format!(" {group}, {}: {}.", row.name, marks.collect::<Vec<_>>().join("; ")));
    }
    words
}
