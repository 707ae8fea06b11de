//! Axes: from numbers to pixels, and round numbers for ticks.

use super::canvas::{Anchor, Area, Canvas, FONT, text_width};

/// A linear map from a range of numbers to a range of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

/// A number on an axis and its label.
pub(super) type Tick = (f64, String);

impl Scale {
    pub(super) fn new((low, high): (f64, f64), from: f64, to: f64) -> Self {
        Self { low, high, from, to }
    }

    pub(super) fn pixel(self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Returns the pixel of the nearest number in range.
    pub(super) fn clamped(self, value: f64) -> f64 {
        self.pixel(value.clamp(self.low, self.high))
    }

    pub(super) fn contains(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Returns a range that can be drawn: ascending, not empty, and of numbers that can be doubled or cut into steps.
pub(super) fn usable((low, high): (f64, f64)) -> (f64, f64) {
    const LARGEST: f64 = 1e300;
    const SMALLEST: f64 = 1e-300;
    let (low, high) = if low <= high { (low, high) } else { (high, low) };
    let size = low.abs().max(high.abs());
    if low.is_nan() || high.is_nan() || size > LARGEST {
        return (0.0, 1.0);
    }
    // Ticks closer than this are indistinguishable.
    let least = (1e-9 * size).max(SMALLEST);
    if high - low > least { (low, high) } else { (low - 0.5 - least, high + 0.5 + least) }
}

/// Returns the range of some numbers, widened to round ones.
pub(super) fn round_range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = usable((low, high));
    let step = step(high - low, 6.0);
    ((low / step).floor() * step, (high / step).ceil() * step)
}

/// Returns round numbers within a range, round ends included.
pub(super) fn ticks((low, high): (f64, f64), most_intervals: f64) -> Vec<Tick> {
    let step = step(high - low, most_intervals);
    let decimals = decimals(step);
    // A hair of tolerance, so that an end that is a multiple of the step up to rounding gets its tick.
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    let count = (last - first) as usize + 1;
    (0..count)
        .map(|at| {
            let value = (first + at as f64) * step;
            (value, tick_label(value, step, decimals))
        })
        .collect()
}

/// Draws a y axis's grid lines and labels left of the area.
pub(super) fn draw_left(canvas: &mut Canvas, scale: Scale, ticks: &[Tick], area: Area) {
    for (value, label) in ticks {
        let y = scale.pixel(*value);
        canvas.line((area.left, y), (area.right(), y), "grid", 1.0);
        canvas.text((area.left - 8.0, y + 0.35 * FONT), Anchor::End, "muted", label);
    }
}

/// Draws a second y axis's labels right of the area.
pub(super) fn draw_right(canvas: &mut Canvas, scale: Scale, ticks: &[Tick], area: Area) {
    for (value, label) in ticks {
        let y = scale.pixel(*value);
        canvas.line((area.right(), y), (area.right() + 4.0, y), "axis", 1.0);
        canvas.text((area.right() + 9.0, y + 0.35 * FONT), Anchor::Start, "muted", label);
    }
}

/// Returns the width of an axis's labels.
pub(super) fn labels_width(ticks: &[Tick]) -> f64 {
    ticks.iter().map(|(_, label)| text_width(label, FONT)).fold(0.0, f64::max)
}

/// Returns the smallest of 1, 2, 5 times a power of ten that cuts a span into at most so many intervals.
fn step(span: f64, most_intervals: f64) -> f64 {
    let least = span / most_intervals;
    let power = 10f64.powf(least.log10().floor());
    let fits = |factor: &f64| factor * power >= least * (1.0 - 1e-9);
    power * [1.0, 2.0, 5.0].into_iter().find(fits).unwrap_or(10.0)
}

fn decimals(step: f64) -> usize {
    // The tolerance keeps 0.1, whose logarithm may come out a hair below −1, at one digit.
    (-(step.log10() + 1e-9).floor()).max(0.0) as usize
}

fn tick_label(value: f64, step: f64, decimals: usize) -> String {
    let digits = if value.abs() >= 1e6 || (decimals > 4 && value != 0.0) {
        let digits = (value.abs() / step).log10().ceil().max(0.0) as usize;
        format!("{:.*e}", digits.min(6), value.abs())
    } else {
        format!("{:.decimals$}", value.abs())
    };
    if value < 0.0 { format!("−{digits}") } else { digits }
}
