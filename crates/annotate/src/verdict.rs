//! Verdicts in a model's answers.

use serde::{Deserialize, Serialize};

/// The verdict of one answer on the two responses as they were shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The response shown first is better.
    First,
    /// The response shown second is better.
    Second,
    /// Neither is better.
    Tie,
}

/// The marks of the verdicts in answers.
const MARKS: [(&str, Verdict); 3] =
    [("[[A]]", Verdict::First), ("[[B]]", Verdict::Second), ("[[C]]", Verdict::Tie)];

impl Verdict {
    /// Returns the last mark in an answer, since models reason before they decide. `None` is a refusal or an answer that
    /// was cut off.
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

    /// Returns the verdict on the responses in the other order.
    pub(crate) fn swapped(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
            Self::Tie => Self::Tie,
        }
    }
}
