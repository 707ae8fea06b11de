//! The legend between a figure's title and its plot.

use super::canvas::{Anchor, Area, Canvas, FONT, LINE, MARGIN, text_width};
use super::style::LineStyle;

/// The mark before a name.
#[derive(Clone, Copy)]
pub(super) enum Swatch {
    /// A filled square, for bars.
    Bar,
    /// A piece of a line, with its style.
    Line(LineStyle),
    /// The sign of a kind.
    Sign,
}

impl Swatch {
    /// Returns the distance from its left edge to the name.
    fn width(self) -> f64 {
        match self {
            Self::Bar | Self::Sign => 18.0,
            Self::Line(_) => 32.0,
        }
    }
}

const BETWEEN: f64 = 18.0;

/// Draws names from `top` downwards, in as many rows as the width requires; returns the y below them.
pub(super) fn draw(canvas: &mut Canvas, entries: &[(Swatch, String)], top: f64, width: f64) -> f64 {
    if entries.is_empty() {
        return top;
    }
    let (mut x, mut y) = (MARGIN, top + LINE);
    for (series, (swatch, name)) in entries.iter().enumerate() {
        let item = swatch.width() + text_width(name, FONT);
        if x > MARGIN && x + item > width - MARGIN {
            x = MARGIN;
            y += LINE + 2.0;
        }
        canvas.open_series(series);
        let middle = y - 0.35 * FONT;
        match swatch {
            Swatch::Bar => {
                canvas.rect(Area { left: x, top: middle - 6.0, width: 12.0, height: 12.0 }, name);
            }
            Swatch::Sign => canvas.sign((x + 6.0, middle), series),
            Swatch::Line(style) => {
                canvas.polyline(&[(x, middle), (x + 26.0, middle)], style.dash, style.width);
                if let Some(shape) = style.marker {
                    canvas.marker((x + 13.0, middle), shape, "");
                }
            }
        }
        canvas.close();
        canvas.text((x + swatch.width(), y), Anchor::Start, "", name);
        x += item + BETWEEN;
    }
    y + 6.0
}
