//! Cells and the format of their numbers.

use serde::{Deserialize, Serialize};

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Text.
    Text(String),
    /// A count.
    Count(u64),
    /// A number without an uncertainty.
    Number {
        /// The number.
        value: f64,
        /// Number of decimals.
        decimals: usize,
    },
    /// A share, shown in percent.
    Percent {
        /// The share, in [0, 1].
        value: f64,
        /// Number of decimals of the percentage.
        decimals: usize,
    },
    /// An estimate with its interval: `6.99 [6.71, 7.25]`.
    Interval {
        /// The estimate.
        value: f64,
        /// The interval's lower bound.
        low: f64,
        /// The interval's upper bound.
        high: f64,
        /// Number of decimals.
        decimals: usize,
    },
    /// A difference with its interval: `+0.24 [−0.05, +0.53]`, marked if the interval excludes 0.
    Difference {
        /// The difference.
        value: f64,
        /// The interval's lower bound.
        low: f64,
        /// The interval's upper bound.
        high: f64,
        /// Number of decimals.
        decimals: usize,
    },
    /// A missing value; the reason is printed below the table.
    Missing(String),
}

impl Value {
    /// Text.
    pub fn text(words: impl Into<String>) -> Self {
        Self::Text(words.into())
    }

    /// Returns a missing value with its reason.
    pub fn missing(reason: impl Into<String>) -> Self {
        Self::Missing(reason.into())
    }

    /// Returns the text before markup.
    pub(super) fn shown(&self) -> Shown<'_> {
        match *self {
            Self::Text(ref words) => Shown::Words(words),
            Self::Count(count) => Shown::Number(count.to_string()),
            Self::Number { value, decimals } => finite(value, || number(value, decimals)),
            Self::Percent { value, decimals } => finite(value, || number(100.0 * value, decimals) + "%"),
            Self::Interval { value, low, high, decimals } => finite_interval(value, || Shown::Interval {
                value: number(value, decimals),
                low: bound(low, decimals, number),
                high: bound(high, decimals, number),
                mark: Mark::None,
            }),
            Self::Difference { value, low, high, decimals } => finite_interval(value, || Shown::Interval {
                value: signed(value, decimals),
                low: bound(low, decimals, signed),
                high: bound(high, decimals, signed),
                mark: if low > 0.0 || high < 0.0 { Mark::ExcludesZero } else { Mark::None },
            }),
            Self::Missing(ref reason) => Shown::Missing(reason),
        }
    }
}

/// A cell's text in its parts, with U+2212 as the minus sign.
#[derive(Debug)]
pub(super) enum Shown<'a> {
    Words(&'a str),
    Number(String),
    Interval { value: String, low: String, high: String, mark: Mark },
    Missing(&'a str),
}

/// Whether a cell is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    ExcludesZero,
}

/// The text of a missing value.
pub(super) const DASH: &str = "—";

const NOT_FINITE: &str = "not a finite number";

/// Limits decimals to the precision of `f64`; the formatter panics beyond its own limit.
const MOST_DECIMALS: usize = 17;

fn finite(value: f64, show: impl FnOnce() -> String) -> Shown<'static> {
    if value.is_finite() { Shown::Number(show()) } else { Shown::Missing(NOT_FINITE) }
}

fn finite_interval(value: f64, show: impl FnOnce() -> Shown<'static>) -> Shown<'static> {
    if value.is_finite() { show() } else { Shown::Missing(NOT_FINITE) }
}

/// An estimate may lack a bound: one seed has a mean and no variance.
fn bound(value: f64, decimals: usize, show: fn(f64, usize) -> String) -> String {
    if value.is_finite() { show(value, decimals) } else { DASH.to_owned() }
}

fn number(value: f64, decimals: usize) -> String {
    let digits = format!("{:.*}", decimals.min(MOST_DECIMALS), value.abs());
    if value < 0.0 && !is_zero(&digits) { format!("−{digits}") } else { digits }
}

fn signed(value: f64, decimals: usize) -> String {
    let digits = number(value, decimals);
    if value > 0.0 && !is_zero(&digits) { format!("+{digits}") } else { digits }
}

/// Returns whether only zeros remain after rounding; such a number has no sign.
fn is_zero(digits: &str) -> bool {
    digits.bytes().all(|digit| matches!(digit, b'0' | b'.'))
}
