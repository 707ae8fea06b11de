//! The legend between a figure's title and its plot.

use super::canvas::{Anchor, Area, Canvas, FONT, LINE, MARGIN, text_width};

/// What stands before a name.
#[derive(Clone, Copy)]
pub(super) enum Swatch {
    /// A filled square, as bars have it.
    Bar,
    /// A piece of the line with its marker.
    Line,
}

const SWATCH_WIDTH: f64 = 26.0;
const BETWEEN: f64 = 20.0;

/// Draws names from `top` downwards, in as many rows as the width asks for; returns the y below them.
pub(super) fn draw(canvas: &mut Canvas, swatch: Swatch, names: &[String], top: f64, width: f64) -> f64 {
    if names.is_empty() {
        return top;
    }
    let (mut x, mut y) = (MARGIN, top + LINE);
    for (series, name) in names.iter().enumerate() {
        let item = SWATCH_WIDTH + text_width(name, FONT);
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
            Swatch::Line => {
                canvas.polyline(&[(x, middle), (x + 20.0, middle)], super::lines::dash(series));
                canvas.marker((x + 10.0, middle), series, "");
            }
        }
        canvas.close();
        let words = match swatch {
            Swatch::Bar => x + 18.0,
            Swatch::Line => x + SWATCH_WIDTH,
        };
        canvas.text((words, y), Anchor::Start, "", name);
        x += item + BETWEEN;
    }
    y + 6.0
}
