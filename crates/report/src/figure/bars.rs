//! Grouped bars.

use super::axis::{self, Scale};
use super::canvas::{Anchor, Area, Canvas, FONT, LINE, MARGIN, SLANT, text_width, wrap};
use super::legend::{self, Swatch};
use super::{GroupedBars, Series};

const LEAST_WIDTH: f64 = 880.0;
const PLOT_HEIGHT: f64 = 300.0;
const WIDEST_BAR: f64 = 40.0;
const NARROWEST_BAR: f64 = 9.0;
/// Share of a group's width that its bars occupy.
const FILL: f64 = 0.78;
/// Space between the names of neighboring groups.
const LABEL_GAP: f64 = 6.0;
/// Distance of a slanted name's end from its group's center.
const SLANT_SHIFT: f64 = 4.0;

pub(super) fn draw(figure: &GroupedBars) -> String {
    let range = axis::usable(figure.y_range);
    let ticks = axis::ticks(range, 9.0);
    let groups = group_names(figure);
    let bars = groups.len().max(1) as f64 * figure.series.len().max(1) as f64;
    let beside_axis = MARGIN + axis::labels_width(&ticks) + 8.0;
    let width = LEAST_WIDTH.max(beside_axis + MARGIN + bars * NARROWEST_BAR / FILL);
    let plot = width - beside_axis - MARGIN;
    let left = beside_axis.max(MARGIN + overhang(&groups, plot / groups.len().max(1) as f64));

    let mut canvas = Canvas::default();
    let below_title = canvas.title(&figure.title, width);
    let entries: Vec<_> = figure.series.iter().map(|series| (Swatch::Bar, series.name.clone())).collect();
    let below_legend = legend::draw(&mut canvas, &entries, below_title, width);
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
                        // Not clamped but cut: an error bar that goes on beyond the axis ends without a cap.
                        canvas.open_clip(area.grown(1.0));
                        let x = left + 0.5 * (bar - gap);
                        canvas.error_bar(x, scale.pixel(low), scale.pixel(high), "whisker");
                        canvas.close_clip();
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

/// Draws names below their groups, wrapped or slanted if necessary; returns the y below them.
fn group_labels(canvas: &mut Canvas, groups: &[String], area: Area, room: f64) -> f64 {
    let middle = |group: usize| area.left + (group as f64 + 0.5) * room;
    let top = area.bottom() + 6.0;
    if !fit(groups, room) {
        for (group, name) in groups.iter().enumerate() {
            canvas.slanted_text((middle(group) + SLANT_SHIFT, top + 8.0), name);
        }
        return top + 16.0 + widest(groups) * SLANT.to_radians().sin();
    }
    let mut most = 1;
    for (group, name) in groups.iter().enumerate() {
        let lines = wrap(name, FONT, room - LABEL_GAP);
        for (at, line) in lines.iter().enumerate() {
            canvas.text((middle(group), top + FONT + LINE * at as f64), Anchor::Middle, "", line);
        }
        most = most.max(lines.len());
    }
    top + FONT + LINE * (most - 1) as f64 + 4.0
}

/// Returns the overhang of the first slanted name left of the plot.
fn overhang(groups: &[String], room: f64) -> f64 {
    match groups.first() {
        Some(first) if !fit(groups, room) => {
            text_width(first, FONT) * SLANT.to_radians().cos() - 0.5 * room - SLANT_SHIFT
        }
        _ => 0.0,
    }
}

/// Returns whether every word of every name fits below its group.
fn fit(groups: &[String], room: f64) -> bool {
    let words = groups.iter().flat_map(|name| name.split_whitespace());
    words.map(|word| text_width(word, FONT)).all(|width| width <= room - LABEL_GAP)
}

fn widest(groups: &[String]) -> f64 {
    groups.iter().map(|name| text_width(name, FONT)).fold(0.0, f64::max)
}

/// Returns one name per value of the longest series; missing names are empty.
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
