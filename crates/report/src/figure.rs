//! Figures as hand-written SVG: self-contained, readable in light and dark, and legible without colour.

mod axis;
mod bars;
mod canvas;
mod legend;
mod line_style;
mod lines;
mod radar;

use std::fmt;

/// A finished figure: one `<svg>` element, to stand in a page or in a file of its own.
///
/// Only this module makes one, so a page may take it in unescaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svg(String);

/// Bars side by side, one for each series, in groups such as the categories of a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedBars {
    /// What it shows, in one line.
    pub title: String,
    /// What the bars measure, with its unit.
    pub y_label: String,
    /// Where the axis begins and ends. A bar that reaches beyond is cut at the edge.
    pub y_range: (f64, f64),
    /// Groups, left to right.
    pub groups: Vec<String>,
    /// What is compared within each group.
    pub series: Vec<Series>,
}

/// One colour of bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// `(value, low, high)` for each group; none where nothing was measured.
    pub values: Vec<Option<(f64, f64, f64)>>,
}

/// Lines over a shared x axis, with a second y axis where two quantities stand beside each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// What it shows, in one line.
    pub title: String,
    /// What runs along x.
    pub x_label: String,
    /// What the left axis measures, with its unit.
    pub y_label: String,
    /// Where the left axis begins and ends; from the data if none.
    pub y_range: Option<(f64, f64)>,
    /// Where x has ticks, and what they say; round numbers if empty.
    pub x_ticks: Vec<(f64, String)>,
    /// Lines that are read on the left axis.
    pub series: Vec<LineSeries>,
    /// Lines that are read on a right axis.
    pub second: Option<SecondAxis>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSeries {
    /// Its name in the legend.
    pub name: String,
    /// In the order of x. A point that is not finite interrupts the line.
    pub points: Vec<Point>,
}

/// `(x, y, interval)`.
pub type Point = (f64, f64, Option<(f64, f64)>);

/// A right-hand axis with its lines.
#[derive(Clone, Debug, PartialEq)]
pub struct SecondAxis {
    /// What it measures, with its unit.
    pub y_label: String,
    /// Where it begins and ends; from the data if none.
    pub y_range: Option<(f64, f64)>,
    /// Lines that are read on it.
    pub series: Vec<LineSeries>,
}

/// Closed lines over spokes that share a scale, one spoke a category.
#[derive(Clone, Debug, PartialEq)]
pub struct Radar {
    /// What it shows, in one line.
    pub title: String,
    /// What the spokes measure, with its unit.
    pub value_label: String,
    /// The value in the middle and that at the rim. What lies beyond is drawn there.
    pub range: (f64, f64),
    /// The spokes, clockwise from the top.
    pub axes: Vec<String>,
    /// What is compared.
    pub series: Vec<RadarSeries>,
}

/// One line of a radar.
#[derive(Clone, Debug, PartialEq)]
pub struct RadarSeries {
    /// Its name in the legend.
    pub name: String,
    /// A value for each spoke; none where nothing was measured.
    pub values: Vec<Option<f64>>,
}

impl Svg {
    /// The `<svg>` element.
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
    /// The figure. Every bar carries its numbers as a tooltip.
    pub fn to_svg(&self) -> Svg {
        Svg(bars::draw(self))
    }
}

impl Lines {
    /// The figure. Few points get error bars, many a band.
    pub fn to_svg(&self) -> Svg {
        Svg(lines::draw(self))
    }
}

impl Radar {
    /// The figure. Every point carries its number as a tooltip; the line is open beside a spoke without a value.
    pub fn to_svg(&self) -> Svg {
        Svg(radar::draw(self))
    }
}
