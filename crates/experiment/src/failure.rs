//! Subjects that failed.

use std::collections::BTreeSet;

use report::table::{Align, Column, Table, Value};

use crate::cell::Subject;

/// A subject whose last training or evaluation failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The subject.
    pub subject: Subject,
    /// The reason.
    pub reason: String,
}

/// Returns a table of failures and their reasons; `None` without failures.
pub fn table_of_failures(failures: &[Failure]) -> Option<Table> {
    let mut seen = BTreeSet::new();
    let rows: Vec<Vec<Value>> = failures
        .iter()
        .map(|failure| [failure.subject.to_string(), failure.reason.clone()])
        .filter(|row| seen.insert(row.clone()))
        .map(|row| row.map(Value::text).into())
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "missing".into(),
        title: "Failed policies".into(),
        columns: ["Policy", "Reason"].map(|title| Column::new(title, Align::Left)).into(),
        rows,
        notes: vec![
            "Every mean, difference and verdict leaves these out. The same command retries them, and nothing else."
                .to_owned(),
        ],
    })
}

/// Returns the note of a table that lacks the failed subjects; `None` without failures.
pub fn note_of_failures(failures: &[Failure]) -> Option<String> {
    const NAMED: usize = 3;
    let mut missing: Vec<String> = Vec::new();
    for Failure { subject, .. } in failures {
        let what = match subject {
            Subject::Baseline { .. } => subject.to_string(),
            Subject::Trained { cell, .. } => cell.to_string(),
        };
        if !missing.contains(&what) {
            missing.push(what);
        }
    }
    let others = missing.len().saturating_sub(NAMED);
    missing.truncate(NAMED);
    let others = if others > 0 { format!("; {others} more") } else { String::new() };
    (!missing.is_empty()).then(|| {
        format!(
            "Failed, and left out of every mean: {}{others}. The table of failed policies gives the reasons.",
            missing.join("; ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_each_failed_run_once() {
        let baseline = |seed| Failure { subject: Subject::Baseline { seed }, reason: "no".into() };
        let text = note_of_failures(&[baseline(0), baseline(0), baseline(1)]).unwrap();
        assert_eq!(
            text,
            "Failed, and left out of every mean: SFT, seed 0; SFT, seed 1. The table of failed policies gives the reasons."
        );
        let many: Vec<Failure> = (0..9).map(baseline).collect();
        assert!(note_of_failures(&many).unwrap().contains("SFT, seed 2; 6 more."));
        assert_eq!(note_of_failures(&[]), None);
        assert_eq!(table_of_failures(&[baseline(0), baseline(0)]).unwrap().rows.len(), 1);
    }
}
