//! The date of a rendering.

use crate::strftime::{midnight, strftime};

/// The date that `strftime_now` gives a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Date {
    /// None is given: a template that asks for it fails.
    #[default]
    Unset,
    /// The function does not exist, so that a template takes its branch without a date.
    Absent,
    /// Seconds since 1970, in UTC.
    At(i64),
}

impl Date {
    /// Returns the date that `text` names: a day (`2026-11-29`), or `none` for [`Absent`](Self::Absent).
    pub fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::Absent);
        }
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        let seconds = midnight(year, month, day)?;
        (text.len() == 10).then_some(Self::At(seconds))
    }

    /// Returns the day of a time, in seconds since 1970, as [`parse`](Self::parse) reads it.
    pub fn day(seconds: i64) -> String {
        strftime("%Y-%m-%d", seconds)
    }
}
