//! Grouped bars.

use super::axis::{self, Scale};
use super::canvas::{Anchor, Area, Canvas, FONT, LINE, MARGIN, text_width, wrap};
use super::legend::{self, Swatch};
use super::{GroupedBars, Series};

const LEAST_WIDTH: f64 = 880.0;
const PLOT_HEIGHT: f64 = 300.0;
const WIDEST_BAR: f64 = 40.0;
const NARROWEST_BAR: f64 = 9.0;
/// Share of a group's room that its bars take.
const FILL: f64 = 0.78;

pub(super) fn draw(figure: &GroupedBars) -> String {
    let range = axis::usable(figure.y_range);
    let ticks = axis::ticks(range, 9.0);
    let groups = group_names(figure);
    let left = MARGIN + axis::labels_width(&ticks) + 8.0;
    let bars = figure.series.len().max(1) as f64;
    let width = LEAST_WIDTH
        .max(left + MARGIN + groups.len() as f64 * bars * NARROWEST_BAR / FILL)
        .min(f64::from(u16::MAX));

    let mut canvas = Canvas::default();
    let below_title = canvas.title(&figure.title, width);
    let names: Vec<_> = figure.series.iter().map(|series| series.name.clone()).collect();
    let below_legend = legend::draw(&mut canvas, Swatch::Bar, &names, below_title, width);
    canvas.text((MARGIN, below_legend + LINE), Anchor::Start, "muted", &figure.y_label);
    let area =
        Area { left, top: below_legend + LINE + 14.0, width: width - left - MARGIN, height: PLOT_HEIGHT };
    let scale = Scale::new(range, area.bottom(), area.top);
    axis::draw_left(&mut canvas, scale, &ticks, area);
    let room = area.width / groups.len().max(1) as f64;
    draw_bars(&mut canvas, figure, &groups, scale, area, room);
    let baseline = scale.clamped(0.0);
    canvas.line((area.left, baseline), (area.right(), baseline), "axis", 1.0);
    let height = group_labels(&mut canvas, &groups, area, room) + MARGIN;
    canvas.finish(&figure.title, &description(figure, &groups), width, height)
}

fn draw_bars(
    canvas: &mut Canvas,
    figure: &GroupedBars,
    groups: &[String],
    scale: Scale,
    area: Area,
    room: f64,
) {
    let count = figure.series.len().max(1) as f64;
    let bar = (FILL * room / count).min(WIDEST_BAR);
    let left_of = |group: usize, series: usize| {
        area.left + (group as f64 + 0.5) * room + (series as f64 - 0.5 * count) * bar
    };
    for (at, series) in figure.series.iter().enumerate() {
        canvas.open_series(at);
        for (group, name) in groups.iter().enumerate() {
            let left = left_of(group, at);
            match measured(series, group) {
                Some((value, low, high)) => {
                    let (top, bottom) = ordered(scale.clamped(value), scale.clamped(0.0));
                    let gap = if bar > 4.0 { 1.0 } else { 0.0 };
                    let shape = Area { left, top, width: bar - gap, height: bottom - top };
                    canvas.rect(shape, &format!("{name}, {}: {}", series.name, numbers(value, low, high)));
                    if low.is_finite() && high.is_finite() {
                        let x = left + 0.5 * (bar - gap);
                        canvas.error_bar(x, scale.clamped(low), scale.clamped(high), "whisker");
                    }
                }
                None => {
                    canvas.text((left + 0.5 * bar, scale.clamped(0.0) - 4.0), Anchor::Middle, "muted", "–");
                }
            }
        }
        canvas.close();
    }
}

/// Names below their groups, broken at spaces, or slanted where even that is too wide; returns the y below them.
fn group_labels(canvas: &mut Canvas, groups: &[String], area: Area, room: f64) -> f64 {
    let lines: Vec<_> = groups.iter().map(|name| wrap(name, FONT, room - 6.0)).collect();
    let fits = lines.iter().flatten().all(|line| text_width(line, FONT) <= room - 4.0);
    let top = area.bottom() + 6.0;
    if fits {
        for (group, lines) in lines.iter().enumerate() {
            let x = area.left + (group as f64 + 0.5) * room;
            let mut y = top + FONT;
            for line in lines {
                canvas.text((x, y), Anchor::Middle, "", line);
                y += LINE;
            }
        }
        let most = lines.iter().map(Vec::len).max().unwrap_or(0);
        return top + FONT + LINE * most.saturating_sub(1) as f64 + 4.0;
    }
    let widest = groups.iter().map(|name| text_width(name, FONT)).fold(0.0, f64::max);
    for (group, name) in groups.iter().enumerate() {
        let x = area.left + (group as f64 + 0.5) * room;
        canvas.slanted_text((x + 4.0, top + 8.0), name);
    }
    top + 8.0 + widest * 35f64.to_radians().sin() + 8.0
}

/// As many names as any series has values; groups without a name have an empty one.
fn group_names(figure: &GroupedBars) -> Vec<String> {
    let count = figure
        .series
        .iter()
        .map(|series| series.values.len())
        .chain([figure.groups.len()])
        .max()
        .unwrap_or(0);
    let mut names = figure.groups.clone();
    names.resize(count, String::new());
    names
}

fn measured(series: &Series, group: usize) -> Option<(f64, f64, f64)> {
    series.values.get(group).copied().flatten().filter(|(value, ..)| value.is_finite())
}

fn description(figure: &GroupedBars, groups: &[String]) -> String {
    let mut words = format!("Grouped bars of {}.", figure.y_label);
    for series in &figure.series {
        let values: Vec<_> = groups
            .iter()
            .enumerate()
            .map(|(group, name)| match measured(series, group) {
                Some((value, low, high)) => format!("{name} {}", numbers(value, low, high)),
                None => format!("{name} not measured"),
            })
            .collect();
        words.push_str(&format!(" {}: {}.", series.name, values.join("; ")));
    }
    words
}

fn numbers(value: f64, low: f64, high: f64) -> String {
    if low.is_finite() && high.is_finite() {
        format!("{value:.2} [{low:.2}, {high:.2}]")
    } else {
        format!("{value:.2}")
    }
}

fn ordered(a: f64, b: f64) -> (f64, f64) {
    (a.min(b), a.max(b))
}
