//! Forest plots.

use super::axis::{self, Scale};
use super::canvas::{Anchor, Area, Canvas, FONT, LINE, MARGIN, text_width};
use super::legend::{self, Swatch};
use super::{Forest, ForestRow};

const WIDTH: f64 = 880.0;
const ROW: f64 = 44.0;
const GAP: f64 = 20.0;
/// The least width of the plot between the texts.
const LEAST_PLOT: f64 = 260.0;
/// Half the height of the caps of an interval.
const CAP: f64 = 4.0;
/// How far the true value is below the difference, so that neither hides the other.
const BELOW: f64 = 9.0;

pub(super) fn draw(figure: &Forest) -> String {
    let width_of = |text: fn(&ForestRow) -> &str| {
        figure.rows.iter().map(|row| text_width(text(row), FONT)).fold(0.0, f64::max)
    };
    let left = MARGIN + width_of(|row| &row.name).max(width_of(|row| &row.note)) + GAP;
    let answers = GAP + width_of(|row| &row.answer) + MARGIN;
    let width = WIDTH.max(left + LEAST_PLOT + answers);

    let mut canvas = Canvas::default();
    let below_title = canvas.title(&figure.title, width);
    let mut entries = vec![(Swatch::Sign, figure.value_label.clone())];
    entries.extend(figure.truth_label.iter().map(|label| (Swatch::Sign, label.clone())));
    let top = legend::draw(&mut canvas, &entries, below_title, width) + GAP;
    let area =
        Area { left, top, width: width - left - answers, height: ROW * figure.rows.len().max(1) as f64 };
    let values = figure.rows.iter().flat_map(|row| {
        let (value, low, high) = row.difference;
        [value, low, high].into_iter().chain(row.truth)
    });
    let range = axis::round_range(values.chain([0.0]));
    let scale = Scale::new(range, area.left, area.right());
    for (value, label) in axis::ticks(range, 8.0) {
        let x = scale.pixel(value);
        canvas.line((x, area.top), (x, area.bottom()), "grid", 1.0);
        canvas.text((x, area.bottom() + LINE), Anchor::Middle, "muted", &label);
    }
    let zero = scale.clamped(0.0);
    canvas.line((zero, area.top), (zero, area.bottom()), "axis", 1.5);
    for (at, row) in figure.rows.iter().enumerate() {
        draw_row(&mut canvas, row, scale, area, area.top + (at as f64 + 0.5) * ROW);
    }
    let below = area.bottom() + 2.0 * LINE;
    canvas.text((area.left + 0.5 * area.width, below), Anchor::Middle, "muted", &figure.x_label);
    canvas.finish(&figure.title, &description(figure), width, below + MARGIN)
}

fn draw_row(canvas: &mut Canvas, row: &ForestRow, scale: Scale, area: Area, middle: f64) {
    canvas.text((MARGIN, middle - 2.0), Anchor::Start, "", &row.name);
    canvas.text((MARGIN, middle + LINE - 4.0), Anchor::Start, "muted", &row.note);
    canvas.text((area.right() + GAP, middle + 0.35 * FONT), Anchor::Start, "", &row.answer);
    let (value, low, high) = row.difference;
    canvas.open_series(0);
    if low.is_finite() && high.is_finite() {
        let [low, high] = [low, high].map(|end| scale.clamped(end));
        canvas.polyline(&[(low, middle), (high, middle)], "", 2.0);
        for end in [low, high] {
            canvas.polyline(&[(end, middle - CAP), (end, middle + CAP)], "", 2.0);
        }
    }
    if value.is_finite() {
        canvas.marker((scale.clamped(value), middle), 0, &format!("{}: {value:+.2}", row.note));
    }
    canvas.close();
    if let Some(truth) = row.truth.filter(|truth| truth.is_finite()) {
        canvas.open_series(1);
        canvas.marker((scale.clamped(truth), middle + BELOW), 1, &format!("{truth:+.2}"));
        canvas.close();
    }
}

fn description(figure: &Forest) -> String {
    let mut words = format!("Forest plot of {}.", figure.x_label);
    for row in &figure.rows {
        let (value, low, high) = row.difference;
        let truth = row.truth.map_or_else(String::new, |truth| format!(", truth {truth:+.2}"));
        words += &format!(
            " {} {}: {value:+.2} [{low:+.2}, {high:+.2}]{truth}: {}.",
            row.name, row.note, row.answer
        );
    }
    words
}
