//! The known forms of score files. Each maps a row to scores.

mod fastchat;
mod inspect;
mod lm_eval;
mod study;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::place::Row;

pub(crate) use study::{Policies, Policy};

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A table with the columns of [`table::COLUMNS`].
    Table,
    /// A study's `results.parquet`.
    Study,
    /// lm-evaluation-harness's `samples_TASK_DATE.jsonl`.
    LmEval,
    /// A data frame of inspect_ai's samples.
    Inspect,
    /// FastChat's `JUDGE_single.jsonl`.
    FastChat,
}

/// A score of a row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) arm: String,
    pub(crate) seed: Option<String>,
    pub(crate) question: String,
    pub(crate) turn: Option<String>,
    pub(crate) sample: Option<String>,
    pub(crate) scorer: Option<String>,
    pub(crate) category: Option<String>,
    /// `None` if the tool recorded that there is no score.
    pub(crate) score: Option<f64>,
    /// Length of the answer.
    pub(crate) characters: Option<f64>,
    /// A hash of the question's text.
    pub(crate) fingerprint: Option<String>,
}

/// What a file's rows have in common.
pub(crate) struct Context<'a> {
    pub(crate) path: &'a Path,
    /// Whether the caller names the arm, so that the row need not.
    pub(crate) has_arm: bool,
    pub(crate) policies: &'a Policies,
}

impl Form {
    /// Recognizes the form of a file by the columns of its first row.
    pub(crate) fn of(row: &Row, has_arm: bool) -> Option<Self> {
        let has = |columns: &[&str]| columns.iter().all(|column| row.contains_key(*column));
        match () {
            () if has(&["question", "score"]) && (has_arm || has(&["arm"])) => Some(Self::Table),
            () if has(&["cell", "question_set", "question_id", "scorer", "progress"]) => Some(Self::Study),
            () if has(&["doc_id", "filtered_resps"]) => Some(Self::LmEval),
            () if has(&["sample_id", "eval_id", "epoch"]) => Some(Self::Inspect),
            () if has(&["question_id", "model", "judge", "score", "turn"]) => Some(Self::FastChat),
            () => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table => "a table of scores",
            Self::Study => "a study's results",
            Self::LmEval => "samples of lm-evaluation-harness",
            Self::Inspect => "a data frame of inspect_ai",
            Self::FastChat => "judgments in FastChat's format",
        }
    }

    /// Returns the scores of a row, or what is wrong with it.
    pub(crate) fn scores(self, row: &Row, context: &Context<'_>) -> Result<Vec<Found>, String> {
        match self {
            Self::Table => table::scores(row, context),
            Self::Study => study::scores(row, context.policies),
            Self::LmEval => lm_eval::scores(row, context),
            Self::Inspect => inspect::scores(row, context),
            Self::FastChat => fastchat::scores(row),
        }
    }

    /// Returns whether a column has a meaning in this form, or is of the tool that wrote it.
    pub(crate) fn knows(self, column: &str) -> bool {
        self != Self::Table || table::COLUMNS.contains(&column)
    }
}

/// Returns a cell as text: `81`, 81 and 81.0 are the same question. `None` if it is empty or missing.
fn text(row: &Row, column: &str) -> Option<String> {
    let whole = |text: &str| -> Option<String> {
        let (digits, zeros) = text.split_once('.')?;
        let is_whole = !digits.is_empty()
            && digits.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
            && zeros.bytes().all(|byte| byte == b'0');
        is_whole.then(|| digits.to_owned())
    };
    let shown = match row.get(column)? {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(whole(&shown).unwrap_or(shown)).filter(|text| !text.is_empty())
}

/// Returns a cell that must have text.
fn required(row: &Row, column: &str) -> Result<String, String> {
    text(row, column).ok_or_else(|| format!("`{column}` is empty"))
}

/// Returns a score; `None` if the cell is empty.
fn score(row: &Row, column: &str) -> Result<Option<f64>, String> {
    match row.get(column) {
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(Value::Bool(truth)) => Ok(Some(f64::from(u8::from(*truth)))),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => {
            let not_finite =
                || format!("`{column}` is {}: correct the score, or remove its row", text.trim());
            match text.trim().parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Some(value)),
                Ok(_) => Err(not_finite()),
                Err(_) => Err(format!("`{column}` is {text:?}, not a number")),
            }
        }
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_) | Value::Object(_)) => Err(format!("`{column}` is not a number")),
    }
}

/// Returns short names of settings, by the properties in which they differ.
fn distinct<T: Ord + Clone>(
    settings: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> String,
    detail: impl Fn(&T) -> String,
) -> BTreeMap<T, String> {
    let settings: Vec<T> = settings.into_iter().collect();
    let names: Vec<String> = settings.iter().map(&name).collect();
    let is_shared = |at: usize| names.iter().filter(|name| **name == names[at]).count() > 1;
    let full = |(at, setting): (usize, &T)| {
        let words =
            if is_shared(at) { format!("{} {}", names[at], detail(setting)) } else { names[at].clone() };
        (setting.clone(), words)
    };
    settings.iter().enumerate().map(full).collect()
}
