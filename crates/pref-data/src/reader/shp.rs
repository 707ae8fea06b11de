//! Rows of SHP: a post on Reddit, two comments, and which of them had more votes in less time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::fields::{self, Row, fault, number, required, string};
use crate::error::DataError;
use crate::message::{Message, TemplateContext};
use crate::place::Place;
use crate::problem::FieldProblem;
use crate::record::{DEFAULT_ANNOTATOR, Label, PreferenceRecord, Text};

pub(super) const COLUMNS: [&str; 10] = [
    "post_id",
    "domain",
    "history",
    "c_root_id_A",
    "c_root_id_B",
    "human_ref_A",
    "human_ref_B",
    "score_ratio",
    "labels",
    "id",
];

/// The filter of SHP's pairs by the ratio of votes of the two comments. As text `"> 2"` or `">= 2"`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ScoreRatio {
    /// A ratio above this, as in the paper (2).
    Above(f64),
    /// A ratio of at least this, as in the DPO authors' code (2).
    AtLeast(f64),
}

impl ScoreRatio {
    /// The paper's filter: more than twice the votes.
    pub const PAPER: Self = Self::Above(2.0);

    fn keeps(self, ratio: f64) -> bool {
        match self {
            Self::Above(bound) => ratio > bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }
}

impl TryFrom<String> for ScoreRatio {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        let bound = |digits: &str| digits.trim().parse().ok().filter(|bound: &f64| bound.is_finite());
        let read = match (text.strip_prefix(">="), text.strip_prefix('>')) {
            (Some(digits), _) => bound(digits).map(Self::AtLeast),
            (None, Some(digits)) => bound(digits).map(Self::Above),
            (None, None) => None,
        };
        read.ok_or(DataError::ScoreRatio { text })
    }
}

impl From<ScoreRatio> for String {
    fn from(ratio: ScoreRatio) -> Self {
        ratio.to_string()
    }
}

impl fmt::Display for ScoreRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(bound) => write!(f, "> {bound}"),
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
        }
    }
}

/// Reads a pair; `None` for a pair that `ratio` leaves out.
pub(super) fn record(
    place: &Place,
    row: &Row,
    ratio: ScoreRatio,
) -> Result<Option<PreferenceRecord>, DataError> {
    if !ratio.keeps(number(place, "score_ratio", required(place, row, "score_ratio")?)?) {
        return Ok(None);
    }
    let text = |field: &str| match string(place, field, required(place, row, field)?)? {
        text if text.is_empty() => Err(fault(place, field, FieldProblem::Empty)),
        text => Ok(text),
    };
    let answer = |field: &str| Ok(Text::Chat(vec![Message::assistant(text(field)?)]));
    // A post has many pairs, and two comments make one pair.
    let id = [text("post_id")?, text("c_root_id_A")?, text("c_root_id_B")?].join("-");
    Ok(Some(PreferenceRecord {
        id,
        prompt: Text::Chat(vec![Message::user(text("history")?)]),
        responses: vec![answer("human_ref_A")?, answer("human_ref_B")?],
        labels: BTreeMap::from([(DEFAULT_ANNOTATOR.to_owned(), label(place, row)?)]),
        domain: fields::label(row, "domain").map(domain),
        context: TemplateContext::default(),
    }))
}

/// 1 where A is preferred, 0 where B is.
fn label(place: &Place, row: &Row) -> Result<Label, DataError> {
    let value = required(place, row, "labels")?;
    match value.as_f64() {
        Some(1.0) => Ok(Label::Prefers(0)),
        Some(0.0) => Ok(Label::Prefers(1)),
        _ => {
            let (found, expected) = (value.to_string(), "1 (A is preferred) or 0 (B is)");
            Err(fault(place, "labels", FieldProblem::UnknownLabel { found, expected }))
        }
    }
}

/// Returns the subreddit, without the split that the set appends.
fn domain(domain: String) -> String {
    let split = ["_train", "_validation", "_test"].into_iter().find_map(|split| domain.strip_suffix(split));
    split.map_or_else(|| domain.clone(), str::to_owned)
}
