//! Styles of lines.

/// Dash patterns, in SVG's notation.
pub(super) const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

/// The style of a line, which distinguishes lines without color.
#[derive(Clone, Copy)]
pub(super) struct LineStyle {
    pub(super) dash: &'static str,
    pub(super) width: f64,
    /// The shape of its markers.
    pub(super) marker: Option<usize>,
}

impl LineStyle {
    /// Returns the style of the `number`-th line with markers.
    pub(super) fn marked(number: usize) -> Self {
        Self { dash: DASHES[number % DASHES.len()], width: 2.0, marker: Some(number) }
    }
}
