//! Figures as hand-written SVG: self-contained, readable in light and dark, and legible without color.

mod axis;
mod bars;
mod canvas;
mod forest;
mod legend;
mod lines;
mod marks;
mod radar;
mod style;

use std::fmt;

/// A figure as one `<svg>` element, for a page or a file.
///
/// Only this module creates it, so that pages include it without escaping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svg(String);

/// Grouped bars, one per series and group, such as the categories of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedBars {
    /// The title, in one line.
    pub title: String,
    /// The label of the y axis, with its unit.
    pub y_label: String,
    /// The range of the y axis. Longer bars are clipped.
    pub y_range: (f64, f64),
    /// Groups, left to right.
    pub groups: Vec<String>,
    /// The series within each group.
    pub series: Vec<Series>,
}

/// A series of bars with one color.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// `(value, low, high)` for each group; `None` without a value.
    pub values: Vec<Option<(f64, f64, f64)>>,
}

/// Lines over a shared x axis, with an optional second y axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// The title, in one line.
    pub title: String,
    /// The label of the x axis.
    pub x_label: String,
    /// The label of the left axis, with its unit.
    pub y_label: String,
    /// The range of the left axis [default: from the data].
    pub y_range: Option<(f64, f64)>,
    /// Positions and labels of x ticks; round numbers if empty.
    pub x_ticks: Vec<(f64, String)>,
    /// Lines of the left axis.
    pub series: Vec<LineSeries>,
    /// Lines of a right axis.
    pub second: Option<SecondAxis>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSeries {
    /// Its name in the legend.
    pub name: String,
    /// Points in the order of x. A point that is not finite interrupts the line.
    pub points: Vec<Point>,
}

/// `(x, y, interval)`.
pub type Point = (f64, f64, Option<(f64, f64)>);

/// A right axis with its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondAxis {
    /// Its label, with its unit.
    pub y_label: String,
    /// Its range [default: from the data].
    pub y_range: Option<(f64, f64)>,
    /// Its lines.
    pub series: Vec<LineSeries>,
}

/// A radar chart: closed lines over spokes with a shared scale, one spoke per category.
#[derive(Clone, Debug, PartialEq)]
pub struct Radar {
    /// The title, in one line.
    pub title: String,
    /// The label of the scale, with its unit.
    pub value_label: String,
    /// The values at the center and at the rim. Values outside are clipped.
    pub range: (f64, f64),
    /// The spokes, clockwise from the top.
    pub axes: Vec<String>,
    /// The compared series.
    pub series: Vec<RadarSeries>,
}

/// A line of a radar chart.
#[derive(Clone, Debug, PartialEq)]
pub struct RadarSeries {
    /// Its name in the legend.
    pub name: String,
    /// A value for each spoke; `None` without a value.
    pub values: Vec<Option<f64>>,
}

/// A grid of marks, such as verdicts by setting and condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The title, in one line.
    pub title: String,
    /// The kinds of marks, for the legend.
    pub kinds: Vec<String>,
    /// The columns, left to right: group and name.
    pub columns: Vec<(String, String)>,
    /// The rows, from the top.
    pub rows: Vec<MarkRow>,
}

/// A row of a grid of marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRow {
    /// The heading above the row; empty within a group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// A kind and a short text for each column; `None` without a mark.
    pub marks: Vec<Option<(usize, String)>>,
}

/// A forest plot: differences with their intervals around 0, one row each.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    /// The title, in one line.
    pub title: String,
    /// The label of the x axis, with its unit.
    pub x_label: String,
    /// The name of the differences in the legend.
    pub value_label: String,
    /// The name of the true values in the legend; `None` without any.
    pub truth_label: Option<String>,
    /// The rows, from the top.
    pub rows: Vec<ForestRow>,
}

/// A row of a forest plot.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestRow {
    /// Its name.
    pub name: String,
    /// What is compared, below the name.
    pub note: String,
    /// The difference: `(value, low, high)`.
    pub difference: (f64, f64, f64),
    /// The true value, if it is known.
    pub truth: Option<f64>,
    /// What follows from it, right of the plot.
    pub answer: String,
}

impl Svg {
    /// Returns the `<svg>` element.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl GroupedBars {
    /// Returns the figure. Every bar has its numbers as a tooltip.
    pub fn to_svg(&self) -> Svg {
        Svg(bars::draw(self))
    }
}

impl Lines {
    /// Returns the figure. Few points have error bars, many a band.
    pub fn to_svg(&self) -> Svg {
        Svg(lines::draw(self))
    }
}

impl Marks {
    /// Returns the figure. Kinds differ in shape and color, and each mark has its text.
    pub fn to_svg(&self) -> Svg {
        Svg(marks::draw(self))
    }
}

impl Forest {
    /// Returns the figure. Differences and true values differ in shape and color, and have their numbers as a tooltip.
    pub fn to_svg(&self) -> Svg {
        Svg(forest::draw(self))
    }
}

impl Radar {
    /// Returns the figure. Every point has its number as a tooltip; the line is open at a spoke without a value.
    pub fn to_svg(&self) -> Svg {
        Svg(radar::draw(self))
    }
}
