//! SVG primitives, the shared style of all figures, and an estimate of text widths.

use std::fmt::Write;

use crate::escape::escape;

/// Colors of series for light and dark backgrounds. Each has a contrast of 3:1 or more, and under normal, protan, deutan
/// and tritan vision (Machado et al. 2009) any two of the first five are at least 14 apart in CIE Lab.
const PALETTE: [(&str, &str); 6] = [
    ("#005a9c", "#3f8fe0"),
    ("#d9610a", "#f28e46"),
    ("#1fa080", "#6ee7b7"),
    ("#cc66b8", "#f5b8e4"),
    ("#6b2b00", "#a8791a"),
    ("#7d8791", "#8f99a3"),
];

const STYLE: &str = "\
.fig{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:13px}\
.fig text{fill:#1c2127}.fig .paper{fill:#fff}.fig .muted{fill:#5b6570}.fig .title{font-size:16px;font-weight:600}\
.fig .grid{stroke:#e3e7eb}.fig .axis{stroke:#7c8793}.fig .halo{stroke:#fff}.fig .whisker{stroke:#1c2127}";

const DARK_STYLE: &str = "\
.fig text{fill:#e4e8ec}.fig .paper{fill:#14171a}.fig .muted{fill:#9aa5b1}\
.fig .grid{stroke:#2a3036}.fig .axis{stroke:#6b7681}.fig .halo{stroke:#14171a}.fig .whisker{stroke:#e4e8ec}";

pub(super) const FONT: f64 = 13.0;
pub(super) const TITLE_FONT: f64 = 16.0;
pub(super) const LINE: f64 = 18.0;
/// Space around the figure.
pub(super) const MARGIN: f64 = 16.0;
/// Slope of slanted text, in degrees.
pub(super) const SLANT: f64 = 35.0;

/// The alignment of text at its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A rectangle in pixels, y downwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn right(self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(self) -> f64 {
        self.top + self.height
    }

    /// Returns the area with a rim around it.
    pub(super) fn grown(self, rim: f64) -> Self {
        let (width, height) = (self.width + 2.0 * rim, self.height + 2.0 * rim);
        Self { left: self.left - rim, top: self.top - rim, width, height }
    }
}

/// The content of an `<svg>` under construction.
#[derive(Default)]
pub(super) struct Canvas {
    body: String,
}

impl Canvas {
    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\"{}>{}</text>",
            px(at.0),
            px(at.1),
            class_attribute(class),
            escape(words)
        ));
    }

    /// Draws slanted text that ends at `at`, for labels without horizontal space.
    pub(super) fn slanted_text(&mut self, at: (f64, f64), words: &str) {
        let (x, y) = (px(at.0), px(at.1));
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" transform=\"rotate(-{SLANT} {x} {y})\">{}</text>",
            escape(words)
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str, width: f64) {
        self.push(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke-width=\"{width}\"{}/>",
            px(from.0),
            px(from.1),
            px(to.0),
            px(to.1),
            class_attribute(class)
        ));
    }

    pub(super) fn rect(&mut self, area: Area, tooltip: &str) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"1.5\" fill=\"currentColor\"><title>{}</title></rect>",
            px(area.left),
            px(area.top),
            px(area.width),
            px(area.height),
            escape(tooltip)
        ));
    }

    /// Draws an error bar: a stem with caps, on a halo that keeps it visible on any color.
    pub(super) fn error_bar(&mut self, x: f64, low: f64, high: f64, class: &str) {
        const CAP: f64 = 3.5;
        let x0 = px(x - CAP);
        let d = format!("M{0} {1}V{2}M{x0} {1}h{3}M{x0} {2}h{3}", px(x), px(high), px(low), px(2.0 * CAP));
        self.push(format_args!(
            "<path class=\"halo\" d=\"{d}\" fill=\"none\" stroke-width=\"3.5\" stroke-opacity=\"0.7\"/>"
        ));
        self.push(format_args!(
            "<path{} d=\"{d}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.3\"/>",
            class_attribute(class)
        ));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], dash: &str, width: f64) {
        let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"{width}\" \
             stroke-linejoin=\"round\"{dash}/>",
            points_attribute(points)
        ));
    }

    pub(super) fn band(&mut self, outline: &[(f64, f64)]) {
        self.push(format_args!(
            "<polygon points=\"{}\" fill=\"currentColor\" fill-opacity=\"0.16\"/>",
            points_attribute(outline)
        ));
    }

    /// Draws a closed line without a fill.
    pub(super) fn polygon(&mut self, corners: &[(f64, f64)], class: &str) {
        self.push(format_args!(
            "<polygon points=\"{}\" fill=\"none\"{}/>",
            points_attribute(corners),
            class_attribute(class)
        ));
    }

    /// Draws the marker of a series; series differ in shape and color.
    pub(super) fn marker(&mut self, (x, y): (f64, f64), series: usize, tooltip: &str) {
        let (x, y) = (px(x), px(y));
        let d = match series % 4 {
            0 => format!("M{x} {y}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z"),
            1 => format!("M{x} {y}m-3.8 -3.8h7.6v7.6h-7.6z"),
            2 => format!("M{x} {y}m0 -5l4.8 8.4h-9.6z"),
            _ => format!("M{x} {y}m0 -5l5 5l-5 5l-5 -5z"),
        };
        let tooltip =
            if tooltip.is_empty() { String::new() } else { format!("<title>{}</title>", escape(tooltip)) };
        self.push(format_args!(
            "<path class=\"halo\" d=\"{d}\" fill=\"currentColor\" stroke-width=\"1\">{tooltip}</path>"
        ));
    }

    /// Draws the sign of a kind. The first four are markers, and further ones a hollow square.
    pub(super) fn sign(&mut self, (x, y): (f64, f64), kind: usize) {
        if kind < 4 {
            return self.marker((x, y), kind, "");
        }
        let corners = [(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)];
        self.polygon(&corners.map(|(right, down)| (x + right, y + down)), "axis");
    }

    /// Sets the color of a series until [`Self::close`].
    pub(super) fn open_series(&mut self, series: usize) {
        self.push(format_args!("<g class=\"s{}\">", series % PALETTE.len()));
    }

    pub(super) fn close(&mut self) {
        self.push(format_args!("</g>"));
    }

    /// Clips at the area's edges until [`Self::close_clip`]. Coordinates stay the figure's.
    pub(super) fn open_clip(&mut self, area: Area) {
        let (left, top, width, height) = (px(area.left), px(area.top), px(area.width), px(area.height));
        self.push(format_args!(
            "<svg x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"{left} {top} {width} {height}\" overflow=\"hidden\">"
        ));
    }

    pub(super) fn close_clip(&mut self) {
        self.push(format_args!("</svg>"));
    }

    /// Draws the title's lines from the top; returns the y below them.
    pub(super) fn title(&mut self, title: &str, width: f64) -> f64 {
        let mut y = MARGIN;
        for line in wrap(title, TITLE_FONT * 1.06, width - 2.0 * MARGIN) {
            y += TITLE_FONT;
            self.text((MARGIN, y), Anchor::Start, "title", &line);
            y += 4.0;
        }
        y
    }

    /// Returns the figure, with title and description for screen readers.
    pub(super) fn finish(self, title: &str, description: &str, width: f64, height: f64) -> String {
        let mut light = String::new();
        let mut dark = String::new();
        for (series, (on_light, on_dark)) in PALETTE.iter().enumerate() {
            light.push_str(&format!(".fig .s{series}{{color:{on_light}}}"));
            dark.push_str(&format!(".fig .s{series}{{color:{on_dark}}}"));
        }
        let (width, height, title) = (px(width), px(height), escape(title));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fig\" role=\"img\" aria-label=\"{title}\" \
             viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
             <title>{title}</title>\n<desc>{}</desc>\n\
             <style>{STYLE}{light}@media screen and (prefers-color-scheme:dark){{{DARK_STYLE}{dark}}}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n{}</svg>\n",
            escape(description),
            self.body
        )
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.body, "{element}").expect("a String takes every write");
    }
}

/// Returns a pixel coordinate with at most two decimals.
pub(super) fn px(value: f64) -> String {
    // Far outside of every figure, and short enough to print.
    const FARTHEST: f64 = 1e5;
    let digits = format!("{:.2}", value.clamp(-FARTHEST, FARTHEST));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if digits == "-0" { "0".to_owned() } else { digits.to_owned() }
}

/// Returns an upper estimate of a text's width in the figures' sans-serif fonts.
pub(super) fn text_width(words: &str, font: f64) -> f64 {
    let share = |character: char| match character {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.28,
        'f' | 't' | 'r' | ' ' | '(' | ')' | '[' | ']' | '-' | '/' => 0.38,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.9,
        'A'..='Z' => 0.69,
        '\u{1100}'.. => 1.0,
        _ => 0.58,
    };
    font * words.chars().map(share).sum::<f64>()
}

/// Wraps text at spaces into lines of at most `width`.
pub(super) fn wrap(words: &str, font: f64, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if text_width(line, font) + text_width(word, font) + 0.38 * font <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn class_attribute(class: &str) -> String {
    if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") }
}

fn points_attribute(points: &[(f64, f64)]) -> String {
    let points: Vec<_> = points.iter().map(|&(x, y)| format!("{},{}", px(x), px(y))).collect();
    points.join(" ")
}
