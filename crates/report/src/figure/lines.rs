//! Lines over a shared x axis.

use super::axis::{self, Scale, Tick};
use super::canvas::{Anchor, Area, Canvas, FONT, LINE, MARGIN, text_width};
use super::legend::{self, Swatch};
use super::style::{DASHES, LineStyle};
use super::{LineSeries, Lines, Point};

const WIDTH: f64 = 880.0;
const PLOT_HEIGHT: f64 = 320.0;
/// Space between the plot's edges and the first and last x, for complete markers.
const INSET: f64 = 14.0;
/// Largest number of points with markers and error bars.
const MOST_MARKERS: usize = 24;
/// Distance between error bars of different lines at one x.
const DODGE: f64 = 6.0;

pub(super) fn draw(figure: &Lines) -> String {
    let second = figure.second.as_ref();
    let right_series = second.map_or(&[][..], |axis| &axis.series);
    let y_range = figure.y_range.map_or_else(|| axis::round_range(all_y(&figure.series)), axis::usable);
    let y_ticks = axis::ticks(y_range, 9.0);
    let right_range = second
        .map(|axis| axis.y_range.map_or_else(|| axis::round_range(all_y(&axis.series)), axis::usable))
        .unwrap_or_default();
    let right_ticks = second.map(|_| axis::ticks(right_range, 9.0)).unwrap_or_default();

    let mut canvas = Canvas::default();
    let below_title = canvas.title(&figure.title, WIDTH);
    let styles = styles(figure.series.iter().chain(right_series));
    let names = figure
        .series
        .iter()
        .map(|series| series.name.clone())
        .chain(right_series.iter().map(|series| format!("{} (right axis)", series.name)));
    let entries: Vec<_> = styles.iter().map(|style| Swatch::Line(*style)).zip(names).collect();
    let below_legend = legend::draw(&mut canvas, &entries, below_title, WIDTH);
    canvas.text((MARGIN, below_legend + LINE), Anchor::Start, "muted", &figure.y_label);
    if let Some(axis) = second {
        canvas.text((WIDTH - MARGIN, below_legend + LINE), Anchor::End, "muted", &axis.y_label);
    }
    let left = MARGIN + axis::labels_width(&y_ticks) + 8.0;
    let right = if second.is_some() { MARGIN + axis::labels_width(&right_ticks) + 9.0 } else { MARGIN };
    let top = below_legend + LINE + 14.0;
    let area = Area { left, top, width: WIDTH - left - right, height: PLOT_HEIGHT };

    let x_range = x_range(figure);
    let x = Scale::new(x_range, area.left + INSET, area.right() - INSET);
    let y = Scale::new(y_range, area.bottom(), area.top);
    axis::draw_left(&mut canvas, y, &y_ticks, area);
    draw_x_axis(&mut canvas, figure, x, x_range, area);
    let y_right = Scale::new(right_range, area.bottom(), area.top);
    // The second axis first: what it carries is context.
    let left_count = figure.series.len();
    Plot { area, x, y: y_right, styles: &styles, first: left_count }.draw(&mut canvas, right_series);
    Plot { area, x, y, styles: &styles, first: 0 }.draw(&mut canvas, &figure.series);
    if second.is_some() {
        canvas.line((area.right(), area.top), (area.right(), area.bottom()), "axis", 1.0);
        axis::draw_right(&mut canvas, y_right, &right_ticks, area);
    }
    let height = area.bottom() + 22.0 + LINE + MARGIN;
    canvas.finish(&figure.title, &description(figure), WIDTH, height)
}

fn draw_x_axis(canvas: &mut Canvas, figure: &Lines, x: Scale, range: (f64, f64), area: Area) {
    canvas.line((area.left, area.bottom()), (area.right(), area.bottom()), "axis", 1.0);
    let ticks: Vec<Tick> =
        if figure.x_ticks.is_empty() { axis::ticks(range, 9.0) } else { figure.x_ticks.clone() };
    let mut free_from = f64::NEG_INFINITY;
    for (value, label) in ticks.iter().filter(|(value, _)| x.contains(*value)) {
        let at = x.pixel(*value);
        canvas.line((at, area.bottom()), (at, area.bottom() + 5.0), "axis", 1.0);
        let half = 0.5 * text_width(label, FONT);
        // A label that would run into its neighbour is left out; its tick stays.
        if at - half >= free_from {
            canvas.text((at, area.bottom() + 8.0 + FONT), Anchor::Middle, "muted", label);
            free_from = at + half + 8.0;
        }
    }
    let middle = area.left + 0.5 * area.width;
    canvas.text((middle, area.bottom() + 22.0 + LINE), Anchor::Middle, "muted", &figure.x_label);
}

/// The lines of one axis with their scales.
struct Plot<'a> {
    area: Area,
    x: Scale,
    y: Scale,
    /// Styles of all lines of the figure.
    styles: &'a [LineStyle],
    /// The number of this axis's first line in the figure.
    first: usize,
}

impl Plot<'_> {
    fn draw(&self, canvas: &mut Canvas, all: &[LineSeries]) {
        let bars = all.iter().filter(|series| has_error_bars(series)).count();
        let mut bars_before = 0;
        for (at, series) in all.iter().enumerate() {
            let mut shift = 0.0;
            if has_error_bars(series) {
                shift = DODGE * (f64::from(bars_before) - 0.5 * (bars as f64 - 1.0));
                bars_before += 1;
            }
            self.draw_line(canvas, series, self.first + at, shift);
        }
    }

    fn draw_line(&self, canvas: &mut Canvas, series: &LineSeries, number: usize, shift: f64) {
        let style = self.styles[number];
        let place = |(at, value): (f64, f64)| (self.x.pixel(at) + shift, self.y.pixel(value));
        canvas.open_series(number);
        canvas.open_clip(self.area.grown(1.0));
        if !has_error_bars(series) {
            for run in runs(&series.points, |point| interval(point).is_some()) {
                let upper = run.iter().filter_map(|point| interval(point).map(|(_, high)| (point.0, high)));
                let lower =
                    run.iter().rev().filter_map(|point| interval(point).map(|(low, _)| (point.0, low)));
                canvas.band(&upper.chain(lower).map(place).collect::<Vec<_>>());
            }
        }
        for run in runs(&series.points, is_finite) {
            let line: Vec<_> = run.iter().map(|&(at, value, _)| place((at, value))).collect();
            canvas.polyline(&line, style.dash, style.width);
        }
        if has_error_bars(series) {
            for point in &series.points {
                if let Some((low, high)) = interval(point) {
                    let x = self.x.pixel(point.0) + shift;
                    canvas.error_bar(x, self.y.pixel(low), self.y.pixel(high), "");
                }
            }
        }
        canvas.close_clip();
        for run in runs(&series.points, is_finite) {
            // A point without neighbours has no line to show it, so it is marked even on a long line.
            if style.marker.is_some() || run.len() == 1 {
                for point in run.iter().filter(|point| self.y.contains(point.1)) {
                    let shape = style.marker.unwrap_or_default();
                    canvas.marker(place((point.0, point.1)), shape, &tooltip(&series.name, point));
                }
            }
        }
        canvas.close();
    }
}

/// Returns the styles of all lines. Few points are joined by dashed lines between markers, many by a thinner line without
/// markers. The first thin line is solid, since dashes on a noisy line look like noise.
fn styles<'a>(all: impl Iterator<Item = &'a LineSeries>) -> Vec<LineStyle> {
    let (mut marked, mut dense) = (0, 0);
    all.map(|series| {
        let (count, width, marker) = if series.points.len() <= MOST_MARKERS {
            let shape = marked;
            (&mut marked, 2.0, Some(shape))
        } else {
            (&mut dense, 1.5, None)
        };
        let dash = DASHES[*count % DASHES.len()];
        *count += 1;
        LineStyle { dash, width, marker }
    })
    .collect()
}

fn has_error_bars(series: &LineSeries) -> bool {
    series.points.len() <= MOST_MARKERS && series.points.iter().any(|point| interval(point).is_some())
}

/// Returns the runs of neighboring points that pass.
fn runs(points: &[Point], pass: impl Fn(&Point) -> bool) -> Vec<&[Point]> {
    points.split(|point| !pass(point)).filter(|run| !run.is_empty()).collect()
}

fn is_finite(point: &Point) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

fn interval(point: &Point) -> Option<(f64, f64)> {
    point.2.filter(|(low, high)| is_finite(point) && low.is_finite() && high.is_finite())
}

fn all_y(series: &[LineSeries]) -> impl Iterator<Item = f64> {
    series.iter().flat_map(|series| &series.points).filter(|point| is_finite(point)).flat_map(|point| {
        let (low, high) = interval(point).unwrap_or((point.1, point.1));
        [point.1, low, high]
    })
}

fn x_range(figure: &Lines) -> (f64, f64) {
    let right = figure.second.iter().flat_map(|axis| &axis.series);
    let points = figure.series.iter().chain(right).flat_map(|series| &series.points);
    let values = points.filter(|point| is_finite(point)).map(|point| point.0);
    let ticks = figure.x_ticks.iter().map(|(value, _)| *value).filter(|value| value.is_finite());
    let (low, high) = values
        .chain(ticks)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    axis::usable((low, high))
}

fn tooltip(name: &str, point: &Point) -> String {
    match interval(point) {
        Some((low, high)) => format!("{name} at {}: {:.3} [{low:.3}, {high:.3}]", point.0, point.1),
        None => format!("{name} at {}: {:.3}", point.0, point.1),
    }
}

fn description(figure: &Lines) -> String {
    let mut words = format!("Lines of {} over {}.", figure.y_label, figure.x_label);
    for series in &figure.series {
        words.push_str(&in_words(series));
    }
    if let Some(axis) = &figure.second {
        words.push_str(&format!(" On the right axis, {}.", axis.y_label));
        for series in &axis.series {
            words.push_str(&in_words(series));
        }
    }
    words
}

/// Returns all points of a short line, or the course of a long one.
fn in_words(series: &LineSeries) -> String {
    let points: Vec<_> = series.points.iter().filter(|point| is_finite(point)).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return format!(" {}: no points.", series.name);
    };
    if points.len() <= MOST_MARKERS {
        let points: Vec<_> = points.iter().map(|point| format!("{:.3} at {}", point.1, point.0)).collect();
        return format!(" {}: {}.", series.name, points.join("; "));
    }
    let low = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    format!(
        " {}: {} points from {:.3} at {} to {:.3} at {}, between {low:.3} and {high:.3}.",
        series.name,
        points.len(),
        first.1,
        first.0,
        last.1,
        last.0
    )
}
