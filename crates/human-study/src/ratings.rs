//! Unblinded ratings as a CSV file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stats::Choice;

use crate::Error;
use crate::files::{csv_text, read, rows};

/// One rater's choice on one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// The item.
    pub item: String,
    /// The rater.
    pub rater: String,
    /// The better model.
    pub choice: Choice,
    /// The item's category, if any.
    pub category: Option<String>,
    /// The question to which the item belongs, if several items belong to one.
    pub question: Option<String>,
}

pub(crate) fn item_name(question: u64, turn: usize) -> String {
    format!("{}-{turn}", mtbench::question_label(question))
}

const COLUMNS: [&str; 5] = ["item", "rater", "choice", "category", "question"];

/// Reads a file of ratings with the columns `item`, `rater` and `choice` (`model_1`, `model_2`, `equal`), and
/// optionally `category` and `question`. Columns may have any order; others are ignored.
///
/// # Errors
///
/// [`Error::Read`], [`Error::Row`], [`Error::NoRatings`].
pub fn read_ratings(path: &Path) -> Result<Vec<Rating>, Error> {
    parse_ratings(path, &read(path)?)
}

/// Like [`read_ratings`], for a text from `path`.
///
/// # Errors
///
/// [`Error::Row`] for a missing column, an invalid choice, a duplicate rating, or an item with two categories or
/// questions; [`Error::NoRatings`].
pub fn parse_ratings(path: &Path, text: &str) -> Result<Vec<Rating>, Error> {
    let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut of_item: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    let mut ratings = Vec::new();
    for (line, [item, rater, choice, category, question]) in rows(path, text, COLUMNS, 3)? {
        let at = |problem: String| Error::Row { path: path.to_owned(), line, problem };
        if item.is_empty() || rater.is_empty() {
            return Err(at("has no item or no rater; every rating needs both".to_owned()));
        }
        let choice = match choice.as_str() {
            "model_1" => Choice::Model1,
            "model_2" => Choice::Model2,
            "equal" => Choice::Equal,
            other => return Err(at(format!("choice {other:?}: write model_1, model_2 or equal"))),
        };
        if let Some(first) = seen.insert((item.clone(), rater.clone()), line) {
            return Err(at(format!(
                "{rater} rated item {item} in line {first} already; keep one of the two"
            )));
        }
        let given = |value: String| Some(value).filter(|value| !value.is_empty());
        let groups = (given(category), given(question));
        let known = of_item.entry(item.clone()).or_insert_with(|| groups.clone());
        if *known != groups {
            return Err(at(format!("item {item} had another category or question before")));
        }
        let (category, question) = groups;
        ratings.push(Rating { item, rater, choice, category, question });
    }
    if ratings.is_empty() { Err(Error::NoRatings) } else { Ok(ratings) }
}

/// Returns ratings as the text that [`parse_ratings`] reads.
pub fn ratings_csv(ratings: &[Rating]) -> String {
    let row = |rating: &Rating| {
        let choice = match rating.choice {
            Choice::Model1 => "model_1",
            Choice::Model2 => "model_2",
            Choice::Equal => "equal",
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        [
            rating.item.clone(),
            rating.rater.clone(),
            choice.to_owned(),
            text(&rating.category),
            text(&rating.question),
        ]
    };
    csv_text(COLUMNS, ratings.iter().map(row))
}
