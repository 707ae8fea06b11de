//! A table of scores.

use super::{Context, Found, required, score, text};
use crate::place::Row;

/// The columns that have a meaning. `arm`, `question` and `score` are required.
pub(super) const COLUMNS: [&str; 10] =
    ["arm", "question", "score", "seed", "sample", "turn", "category", "scorer", "characters", "rater"];

pub(super) fn scores(row: &Row, context: &Context<'_>) -> Result<Vec<Found>, String> {
    let present = |column: &str| match row.contains_key(column) {
        true => required(row, column).map(Some),
        false => Ok(None),
    };
    let value = score(row, "score")?;
    let arm = if context.has_arm { text(row, "arm").unwrap_or_default() } else { required(row, "arm")? };
    // Several raters of an answer are several samples of its score.
    let sample = [present("sample")?, present("rater")?].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Ok(vec![Found {
        arm,
        seed: present("seed")?,
        question: required(row, "question")?,
        turn: present("turn")?,
        sample: Some(sample).filter(|sample| !sample.is_empty()),
        scorer: present("scorer")?,
        category: text(row, "category"),
        score: Some(value.ok_or("`score` is empty: give the row a score, or remove it")?),
        characters: score(row, "characters")?,
        fingerprint: None,
    }])
}
