//! FastChat's judgments of single answers.

use serde_json::Value;

use super::{Found, required, score, text};
use crate::place::Row;

/// The score of a judgment without a rating.
const MISSING: f64 = -1.0;

pub(super) fn scores(row: &Row) -> Result<Vec<Found>, String> {
    let judge = match row.get("judge") {
        Some(Value::Array(named)) => named.first().and_then(Value::as_str).map(str::to_owned),
        _ => text(row, "judge"),
    };
    Ok(vec![Found {
        arm: required(row, "model")?,
        question: required(row, "question_id")?,
        turn: Some(required(row, "turn")?),
        scorer: judge,
        score: score(row, "score")?.filter(|score| *score != MISSING),
        ..Found::default()
    }])
}
