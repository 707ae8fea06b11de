//! What an answer of the model says.

use serde::{Deserialize, Serialize};

/// What one answer says of the two responses, as they were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The one shown first is better.
    First,
    /// The one shown second is better.
    Second,
    /// Neither is.
    Tie,
}

/// The marks that the prompt asks for.
const MARKS: [(&str, Verdict); 3] =
    [("[[A]]", Verdict::First), ("[[B]]", Verdict::Second), ("[[C]]", Verdict::Tie)];

impl Verdict {
    /// The last mark in an answer, since models think aloud before they decide; `None` without one: a refusal, or an
    /// answer that was cut off.
    ///
    /// ```
    /// use annotate::Verdict;
    ///
    /// assert_eq!(Verdict::read("At first [[A]] seems right, but no: [[B]]"), Some(Verdict::Second));
    /// assert_eq!(Verdict::read("I cannot compare these."), None);
    /// ```
    pub fn read(answer: &str) -> Option<Self> {
        let last = MARKS.into_iter().filter_map(|(mark, verdict)| Some((answer.rfind(mark)?, verdict)));
        last.max_by_key(|(at, _)| *at).map(|(_, verdict)| verdict)
    }

    /// What it says of the responses in their own order, if they were shown in the other one.
    pub(crate) fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}
