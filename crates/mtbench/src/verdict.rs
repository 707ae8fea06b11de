//! Verdicts: judges' texts, parsed once.

use serde::{Deserialize, Serialize};

use crate::rating::{Mode, Rating, UnreadableRating, stated_rating};

/// The verdict of one judge call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// A rating of one answer.
    Rating(Rating),
    /// A rating outside 1 to 10. It is no score; only [`Mode::Strict`] checks the scale.
    OffScale(Rating),
    /// A preference between two answers.
    Preference(PairVerdict),
    /// The text holds no verdict.
    NoVerdict,
    /// The call failed.
    Failed,
}

/// A verdict, or the number at which FastChat stops.
pub type Reading = Result<Verdict, UnreadableRating>;

/// The text that FastChat records for a failed call.
pub const JUDGE_FAILED: &str = "$ERROR$";

/// The preferred assistant of one game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairVerdict {
    /// The assistant in the first position.
    A,
    /// The assistant in the second position.
    B,
    /// Neither. The prompts call it C.
    Tie,
}

impl Verdict {
    /// Parses the text of a single-answer judgment.
    ///
    /// # Errors
    ///
    /// As [`parse_rating`](crate::parse_rating).
    ///
    /// ```
    /// use mtbench::{Mode, Rating, Verdict};
    ///
    /// assert_eq!(Verdict::of_single("Rating: [[7]]", Mode::Strict)?, Verdict::Rating(Rating::Whole(7)));
    /// assert_eq!(Verdict::of_single("Rating: [[70]]", Mode::Strict)?, Verdict::OffScale(Rating::Whole(70)));
    /// assert_eq!(Verdict::of_single("$ERROR$", Mode::Strict)?, Verdict::Failed);
    /// # Ok::<(), mtbench::UnreadableRating>(())
    /// ```
    pub fn of_single(text: &str, mode: Mode) -> Reading {
        Ok(match stated_rating(text, mode)? {
            Some(rating) if mode == Mode::Strict && !rating.is_on_scale() => Self::OffScale(rating),
            Some(rating) => Self::Rating(rating),
            None => Self::without(text),
        })
    }

    /// Parses the text of one game of a comparison.
    pub fn of_game(text: &str, mode: Mode) -> Self {
        parse_pair_verdict(text, mode).map_or_else(|| Self::without(text), Self::Preference)
    }

    /// The verdict of a text without a rating or preference.
    pub(crate) fn without(text: &str) -> Self {
        if text == JUDGE_FAILED { Self::Failed } else { Self::NoVerdict }
    }

    /// Whether the judge gave a rating or a preference. Other texts are worth another call.
    pub fn is_decided(self) -> bool {
        matches!(self, Self::Rating(_) | Self::Preference(_))
    }

    /// The rating, if it is a score.
    pub fn rating(self) -> Option<Rating> {
        if let Self::Rating(rating) = self { Some(rating) } else { None }
    }

    /// The preference, if there is one.
    pub fn preference(self) -> Option<PairVerdict> {
        if let Self::Preference(preference) = self { Some(preference) } else { None }
    }
}

/// A preference with its degree, as Arena-Hard's prompts ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GradedVerdict {
    /// The preference.
    pub preference: PairVerdict,
    /// Whether the preferred answer is much better: `[[A>>B]]`.
    pub strong: bool,
}

/// The signs of verdicts. The first three are FastChat's, the others Arena-Hard's.
const SIGNS: [(&str, PairVerdict, bool); 8] = [
    ("[[A]]", PairVerdict::A, false),
    ("[[B]]", PairVerdict::B, false),
    ("[[C]]", PairVerdict::Tie, false),
    ("[[A>>B]]", PairVerdict::A, true),
    ("[[A>B]]", PairVerdict::A, false),
    ("[[A=B]]", PairVerdict::Tie, false),
    ("[[B>A]]", PairVerdict::B, false),
    ("[[B>>A]]", PairVerdict::B, true),
];

/// Parses the preference that `judgment` states, or returns `None`.
///
/// With several verdicts, [`Mode::FastChat`] takes A before B before a tie, at any position, and knows no degrees.
/// [`Mode::Strict`] takes the last one.
///
/// ```
/// use mtbench::{Mode, PairVerdict, parse_pair_verdict};
///
/// let judgment = "At first [[A]] seems better, but [[B]] is right.";
/// assert_eq!(parse_pair_verdict(judgment, Mode::FastChat), Some(PairVerdict::A));
/// assert_eq!(parse_pair_verdict(judgment, Mode::Strict), Some(PairVerdict::B));
/// assert_eq!(parse_pair_verdict("[[A>>B]]", Mode::Strict), Some(PairVerdict::A));
/// ```
pub fn parse_pair_verdict(judgment: &str, mode: Mode) -> Option<PairVerdict> {
    match mode {
        Mode::FastChat => {
            let stated = SIGNS[..3].iter().find(|(sign, ..)| judgment.contains(sign));
            stated.map(|(_, verdict, _)| *verdict)
        }
        Mode::Strict => parse_graded_verdict(judgment).map(|verdict| verdict.preference),
    }
}

/// Parses the last preference that `judgment` states with its degree, or returns `None`.
///
/// ```
/// use mtbench::{PairVerdict, parse_graded_verdict};
///
/// let verdict = parse_graded_verdict("My final verdict is: [[B>>A]]").unwrap();
/// assert_eq!((verdict.preference, verdict.strong), (PairVerdict::B, true));
/// assert!(!parse_graded_verdict("[[B>>A]]? No, [[B>A]].").unwrap().strong);
/// ```
pub fn parse_graded_verdict(judgment: &str) -> Option<GradedVerdict> {
    let stated = SIGNS.iter().filter_map(|sign| Some((judgment.rfind(sign.0)?, sign)));
    let last = stated.max_by_key(|(at, _)| *at);
    last.map(|(_, &(_, preference, strong))| GradedVerdict { preference, strong })
}
