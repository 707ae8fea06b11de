//! Runs that failed: each alone. The others go on, tables show what is missing, and the next run tries it again.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use report::table::{Align, Column, Table, Value};
use serde::{Deserialize, Serialize};

use crate::cell::Subject;
use crate::error::StudyError;
use crate::grid::Grid;
use crate::runner::{Runner, Shard};
use crate::store::{Key, read_json, write_json};

/// A subject that could not be trained or evaluated when that was last tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What could not be had.
    pub subject: Subject,
    /// Why.
    pub reason: String,
}

/// What the store keeps of a failure.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// In words, for who looks into the folder.
    what: String,
    reason: String,
}

impl Runner {
    /// The subjects of `grid` that failed when they were last tried, in its order.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub fn failures(&self, grid: &Grid) -> Result<Vec<Failure>, StudyError> {
        let mut failures = Vec::new();
        for subject in grid.subjects() {
            failures.extend(self.failure(subject)?);
        }
        Ok(failures)
    }

    /// Forgets which subjects of a part of `grid` failed, so that they are tried again.
    ///
    /// # Errors
    ///
    /// Where the store cannot be written.
    pub fn forget_failures(&self, grid: &Grid, shard: Shard) -> Result<(), StudyError> {
        for subject in shard.part(grid) {
            for key in self.failure_keys(subject) {
                let path = self.store().failure(&key);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(StudyError::io("cannot remove", path)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Why a subject failed when it was last tried, if it did.
    pub(crate) fn failure(&self, subject: &Subject) -> Result<Option<Failure>, StudyError> {
        // What lies in the store is whole, whoever failed to make it before.
        if self.is_evaluated(subject) {
            return Ok(None);
        }
        for key in self.failure_keys(subject) {
            if let Some(Note { reason, .. }) = read_json(&self.store().failure(&key))? {
                return Ok(Some(Failure { subject: subject.clone(), reason }));
            }
        }
        Ok(None)
    }

    /// Notes that `what`, whose address is `key`, failed.
    pub(crate) fn note_failure(&self, key: &Key, what: String, error: &StudyError) -> Result<(), StudyError> {
        let reason = in_words(error);
        tracing::error!("{what} failed, the others go on: {reason}");
        let path = self.store().failure(key);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(StudyError::io("cannot create", folder))?;
        write_json(&path, &Note { what, reason })
    }

    /// Under which addresses a subject's failure may lie: its training run's and its evaluation's.
    fn failure_keys(&self, subject: &Subject) -> Vec<Key> {
        let run = match subject {
            Subject::Baseline { .. } => None,
            Subject::Trained { cell, .. } => Some(self.run_key(cell)),
        };
        run.into_iter().chain([self.scores_key(subject)]).collect()
    }
}

/// What is missing and why, one a row; `None` where nothing is.
pub(crate) fn table(failures: &[Failure]) -> Option<Table> {
    let mut seen = BTreeSet::new();
    let rows: Vec<Vec<Value>> = failures
        .iter()
        .map(|failure| [failure.subject.to_string(), failure.reason.clone()])
        .filter(|row| seen.insert(row.clone()))
        .map(|row| row.map(Value::text).into())
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "missing".into(),
        title: "What is missing".into(),
        columns: ["Policy", "Why"].map(|title| Column::new(title, Align::Left)).into(),
        rows,
        notes: vec![
            "These are left out of every mean, difference and verdict. The same command tries them again, and nothing else."
                .to_owned(),
        ],
    })
}

/// What a table says of those failures that leave a gap in it; why, the table of what is missing says.
pub(crate) fn note(failures: &[Failure]) -> Option<String> {
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
            "Missing, and left out of every mean: {}{others}. The table of what is missing says why.",
            missing.join("; ")
        )
    })
}

/// An error with its causes.
fn in_words(error: &StudyError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(": {error}");
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let disk = std::io::Error::other("the disk is gone");
        let error = StudyError::io("cannot write", "scores.json")(disk);
        assert_eq!(in_words(&error), "cannot write scores.json: the disk is gone");
    }

    #[test]
    fn what_fails_at_every_checkpoint_is_told_once_below_a_table() {
        let baseline = |seed| Failure { subject: Subject::Baseline { seed }, reason: "no".into() };
        let told = note(&[baseline(0), baseline(0), baseline(1)]).unwrap();
        assert_eq!(
            told,
            "Missing, and left out of every mean: SFT, seed 0; SFT, seed 1. The table of what is missing says why."
        );
        let many: Vec<Failure> = (0..9).map(baseline).collect();
        assert!(note(&many).unwrap().contains("SFT, seed 2; 6 more."));
        assert_eq!(note(&[]), None);
        assert_eq!(table(&[baseline(0), baseline(0)]).unwrap().rows.len(), 1);
    }
}
