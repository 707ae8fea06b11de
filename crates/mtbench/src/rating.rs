//! Ratings and how they are parsed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::python_json::finite;

/// How verdicts are parsed and scores are aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Exactly as FastChat, for comparison with published numbers. The first `[[rating]]` counts, or else the first
    /// `[rating]`, on any scale. Repeated judgments count repeatedly.
    FastChat,
    /// The last `[[rating]]` counts if it is between 1 and 10. Missing ratings are counted. Of repeated judgments the
    /// last one counts.
    Strict,
}

/// A judge's rating, an integer or a decimal as the judge wrote it. FastChat's files distinguish `7` from `7.0`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rating {
    /// Written without a decimal point.
    Whole(i64),
    /// Written with one.
    Decimal(#[serde(serialize_with = "finite")] f64),
}

impl Rating {
    /// The rating as a number.
    pub fn value(self) -> f64 {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "ratings are small; FastChat's mean is a float, too"
            )]
            Self::Whole(value) => value as f64,
            Self::Decimal(value) => value,
        }
    }
}

/// A verdict that matches FastChat's pattern and is no Python number. FastChat stops with an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the verdict {0:?} is not a Python number: write it without leading zeros and within 64 bits")]
pub struct UnreadableRating(pub String);

/// Parses the rating that `judgment` states, or returns `None`. In [`Mode::Strict`] a rating outside 1 to 10 is none;
/// [`Verdict::of_single`](crate::Verdict::of_single) tells the two apart.
///
/// # Errors
///
/// In [`Mode::FastChat`], [`UnreadableRating`] for a verdict such as `[[08]]`, on which FastChat stops. In
/// [`Mode::Strict`] such a verdict is missing.
///
/// ```
/// use mtbench::{Mode, Rating, parse_rating};
///
/// let judgment = "The rubric's example is [[5]]. Rating: [[7.5]]";
/// assert_eq!(parse_rating(judgment, Mode::FastChat)?, Some(Rating::Whole(5)));
/// assert_eq!(parse_rating(judgment, Mode::Strict)?, Some(Rating::Decimal(7.5)));
/// # Ok::<(), mtbench::UnreadableRating>(())
/// ```
pub fn parse_rating(judgment: &str, mode: Mode) -> Result<Option<Rating>, UnreadableRating> {
    let stated = stated_rating(judgment, mode)?;
    Ok(stated.filter(|rating| mode == Mode::FastChat || rating.is_on_scale()))
}

/// As [`parse_rating`], on any scale.
pub(crate) fn stated_rating(judgment: &str, mode: Mode) -> Result<Option<Rating>, UnreadableRating> {
    match mode {
        Mode::FastChat => {
            let digits = python_digits;
            let double = verdicts(judgment, "[[", "]]", digits).next();
            let verdict = double.or_else(|| verdicts(judgment, "[", "]", digits).next());
            verdict.map(python_number).transpose()
        }
        Mode::Strict => {
            Ok(verdicts(judgment, "[[", "]]", ascii_digits).last().and_then(|v| python_number(v).ok()))
        }
    }
}

/// The lowest and highest rating that the prompts ask for.
const SCALE: std::ops::RangeInclusive<f64> = 1.0..=10.0;

impl Rating {
    pub(crate) fn is_on_scale(self) -> bool {
        SCALE.contains(&self.value())
    }
}

impl fmt::Display for Rating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Decimal(value) => write!(f, "{value:?}"),
        }
    }
}

/// The matches of the regular expression `open(\d+\.?\d*)close` from left to right, without the brackets. `digits` returns
/// the number of bytes of `\d` at the start of a text.
fn verdicts<'a>(
    text: &'a str,
    open: &'a str,
    close: &'a str,
    digits: fn(&str) -> usize,
) -> impl Iterator<Item = &'a str> {
    text.match_indices('[').filter_map(move |(at, _)| {
        let inside = text[at..].strip_prefix(open)?;
        let whole = digits(inside);
        let point = usize::from(whole > 0 && inside[whole..].starts_with('.'));
        let length = whole + point + if point == 1 { digits(&inside[whole + 1..]) } else { 0 };
        (whole > 0 && inside[length..].starts_with(close)).then(|| &inside[..length])
    })
}

fn ascii_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Python's `\d` matches the decimal digits of every script; `ast.literal_eval` then rejects all but ASCII.
fn python_digits(text: &str) -> usize {
    text.chars().take_while(|digit| is_decimal_digit(*digit)).map(char::len_utf8).sum()
}

/// Whether a character has Unicode's general category Nd.
fn is_decimal_digit(c: char) -> bool {
    let code = u32::from(c);
    let zero = DECIMAL_ZEROS[..DECIMAL_ZEROS.partition_point(|zero| *zero <= code)].last();
    zero.is_some_and(|zero| code - zero < 10)
}

/// Parses `digits[.digits]` as Python's `ast.literal_eval` does.
fn python_number(verdict: &str) -> Result<Rating, UnreadableRating> {
    let unreadable = || UnreadableRating(verdict.to_owned());
    if !verdict.is_ascii() {
        return Err(unreadable());
    }
    if verdict.contains('.') {
        let value: f64 = verdict.parse().map_err(|_| unreadable())?;
        return if value.is_finite() { Ok(Rating::Decimal(value)) } else { Err(unreadable()) };
    }
    // `0` and `00` are integers in Python, `08` is a syntax error.
    if verdict.starts_with('0') && verdict.bytes().any(|digit| digit != b'0') {
        return Err(unreadable());
    }
    verdict.parse().map(Rating::Whole).map_err(|_| unreadable())
}

/// The zeros of Unicode 14.0.0. The other nine digits of each script follow.
const DECIMAL_ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
    0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40,
    0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066,
    0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950,
    0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6,
    0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];
