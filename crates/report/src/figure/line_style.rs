//! The style of a line in a figure and in its legend.

/// The dash patterns of a figure's lines, in order.
pub(super) const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

/// Dash, width and marker, so that lines differ without their color too.
#[derive(Clone, Copy)]
pub(super) struct LineStyle {
    pub(super) dash: &'static str,
    pub(super) width: f64,
    /// The shape of the markers, if any.
    pub(super) marker: Option<usize>,
}

impl LineStyle {
    /// The style of the `number`-th line among lines with markers.
    pub(super) fn marked(number: usize) -> Self {
        Self { dash: DASHES[number % DASHES.len()], width: 2.0, marker: Some(number) }
    }
}
