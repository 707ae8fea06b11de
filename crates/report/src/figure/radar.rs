//! Radar charts: one spoke per category, one closed line per series.

use super::axis;
use super::canvas::{Anchor, Canvas, FONT, LINE, MARGIN, text_width};
use super::legend::{self, Swatch};
use super::style::LineStyle;
use super::{Radar, RadarSeries};

const LEAST_WIDTH: f64 = 620.0;
const RADIUS: f64 = 190.0;
/// Distance from the end of a spoke to its name.
const NAME_GAP: f64 = 12.0;

pub(super) fn draw(figure: &Radar) -> String {
    let (low, high) = axis::usable(figure.range);
    let names_width = figure.axes.iter().map(|name| text_width(name, FONT)).fold(0.0, f64::max);
    let width = LEAST_WIDTH.max(2.0 * (RADIUS + NAME_GAP + names_width + MARGIN));
    let mut canvas = Canvas::default();
    let below_title = canvas.title(&figure.title, width);
    let entries: Vec<_> = (0..)
        .zip(&figure.series)
        .map(|(at, series)| (Swatch::Line(LineStyle::marked(at)), series.name.clone()))
        .collect();
    let below_legend = legend::draw(&mut canvas, &entries, below_title, width);
    canvas.text((MARGIN, below_legend + LINE), Anchor::Start, "muted", &figure.value_label);
    let centre = (width / 2.0, below_legend + 2.0 * LINE + NAME_GAP + RADIUS + 6.0);
    let height = centre.1 + RADIUS + NAME_GAP + LINE + MARGIN;

    let count = figure.axes.len().max(1) as f64;
    let at = |spoke: usize, share: f64| {
        let angle = std::f64::consts::TAU * spoke as f64 / count;
        (centre.0 + share * RADIUS * angle.sin(), centre.1 - share * RADIUS * angle.cos())
    };
    let share = |value: f64| ((value - low) / (high - low)).clamp(0.0, 1.0);
    for (value, label) in axis::ticks((low, high), 5.0) {
        let ring: Vec<_> = (0..figure.axes.len()).map(|spoke| at(spoke, share(value))).collect();
        canvas.polygon(&ring, "grid");
        let top = at(0, share(value));
        canvas.text((top.0 - 5.0, top.1 + 0.35 * FONT), Anchor::End, "muted", &label);
    }
    for (spoke, name) in figure.axes.iter().enumerate() {
        let end = at(spoke, 1.0);
        canvas.line(centre, end, "grid", 1.0);
        let (x, y) = at(spoke, 1.0 + NAME_GAP / RADIUS);
        let anchor = match x - centre.0 {
            dx if dx > 1.0 => Anchor::Start,
            dx if dx < -1.0 => Anchor::End,
            _ => Anchor::Middle,
        };
        // Names below the centre hang from their point, names above it stand on it.
        let drop = 0.35 * FONT + 0.4 * FONT * (y - centre.1) / RADIUS;
        canvas.text((x, y + drop), anchor, "", name);
    }
    for (series, values) in figure.series.iter().enumerate() {
        let style = LineStyle::marked(series);
        canvas.open_series(series);
        let points: Vec<Option<((f64, f64), f64)>> = (0..figure.axes.len())
            .map(|spoke| measured(values, spoke).map(|value| (at(spoke, share(value)), value)))
            .collect();
        for line in closed_runs(&points) {
            canvas.polyline(&line, style.dash, style.width);
        }
        for (name, (point, value)) in figure.axes.iter().zip(&points).filter_map(|(n, p)| Some((n, (*p)?))) {
            if let Some(shape) = style.marker {
                canvas.marker(point, shape, &format!("{name}, {}: {value:.2}", values.name));
            }
        }
        canvas.close();
    }
    canvas.finish(&figure.title, &description(figure), width, height)
}

fn measured(series: &RadarSeries, spoke: usize) -> Option<f64> {
    series.values.get(spoke).copied().flatten().filter(|value| value.is_finite())
}

/// Returns the line around all points, or its pieces between neighbors if some are missing.
fn closed_runs(points: &[Option<((f64, f64), f64)>]) -> Vec<Vec<(f64, f64)>> {
    let count = points.len();
    let piece = |from: usize| {
        let (one, two) = (points[from]?, points[(from + 1) % count]?);
        Some(vec![one.0, two.0])
    };
    if points.iter().all(Option::is_some) && count > 2 {
        let mut ring: Vec<_> = points.iter().flatten().map(|point| point.0).collect();
        ring.push(ring[0]);
        return vec![ring];
    }
    (0..count).filter_map(piece).collect()
}

fn description(figure: &Radar) -> String {
    let mut words = format!("Radar of {}.", figure.value_label);
    for series in &figure.series {
        let values: Vec<_> = (0..)
            .zip(&figure.axes)
            .map(|(spoke, name)| match measured(series, spoke) {
                Some(value) => format!("{name} {value:.2}"),
                None => format!("{name} not measured"),
            })
            .collect();
        words.push_str(&format!(" {}: {}.", series.name, values.join("; ")));
    }
    words
}
