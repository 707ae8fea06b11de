//! Records of failures in the store.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Runner;
use crate::cell::Subject;
use crate::error::ExperimentError;
use crate::failure::Failure;
use crate::grid::Grid;
use crate::shard::{Role, Shard};
use crate::store::{Key, read_json, write_json};

/// The record of a failure.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The step that failed.
    what: String,
    reason: String,
}

/// The record of an attempt that has begun.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Attempt {
    /// The number of attempts that did not end, with this one.
    deaths: u32,
}

impl Runner {
    /// Returns the failed subjects of `grid`, in its order.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn failures(&self, grid: &Grid) -> Result<Vec<Failure>, ExperimentError> {
        let mut failures = Vec::new();
        for subject in grid.subjects() {
            failures.extend(self.failure(subject)?);
        }
        Ok(failures)
    }

    /// Removes the records of failures and of begun attempts of a part of `grid`, so that it is retried.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn forget_failures(&self, grid: &Grid, shard: Shard) -> Result<(), ExperimentError> {
        for subject in shard.part(grid) {
            for key in self.failure_keys(subject) {
                remove(self.store().failure(&key))?;
            }
            remove(self.begun(subject))?;
        }
        Ok(())
    }

    /// Returns whether a subject is to be computed, and records the beginning of the attempt. A subject whose processes died
    /// too often fails.
    pub(super) fn begin(&self, subject: &Subject, role: Role) -> Result<bool, ExperimentError> {
        let is_complete = self.is_made(subject) && self.is_evaluated(subject);
        if is_complete || self.failure(subject)?.is_some() {
            return Ok(false);
        }
        let Role::Part { max_restarts, .. } = role else { return Ok(true) };
        let path = self.begun(subject);
        let Attempt { deaths } = read_json(&path)?.unwrap_or_default();
        if deaths > max_restarts {
            let times = if deaths == 1 { "once".to_owned() } else { format!("{deaths} times") };
            let reason = format!("a process died {times} while computing it; the log has the end of each");
            self.note_failure(&self.scores_key(subject, 0), subject.to_string(), reason)?;
            self.end(subject)?;
            return Ok(false);
        }
        // Only an attempt that did not end leaves its file.
        write_json(&path, &Attempt { deaths: deaths + 1 })?;
        Ok(true)
    }

    /// Removes the record of an attempt, which has ended.
    pub(super) fn end(&self, subject: &Subject) -> Result<(), ExperimentError> {
        remove(self.begun(subject))
    }

    /// Returns the file that exists while a subject is computed.
    pub(crate) fn begun(&self, subject: &Subject) -> PathBuf {
        self.store().begun(&self.scores_key(subject, 0))
    }

    /// Returns the recorded failure of a subject.
    pub(crate) fn failure(&self, subject: &Subject) -> Result<Option<Failure>, ExperimentError> {
        // A stored evaluation is complete, even if an earlier attempt failed.
        if self.is_evaluated(subject) {
            return Ok(None);
        }
        for key in self.failure_keys(subject) {
            let path = self.store().failure(&key);
            match files::read_checked_json(&path) {
                Ok(Note { reason, .. }) => return Ok(Some(Failure { subject: subject.clone(), reason })),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(ExperimentError::io("cannot read", path)(error)),
            }
        }
        Ok(None)
    }

    /// Records that `what`, whose address is `key`, failed.
    pub(crate) fn note_failure(
        &self,
        key: &Key,
        what: String,
        reason: String,
    ) -> Result<(), ExperimentError> {
        tracing::error!("{what} failed, the other policies continue: {reason}");
        let path = self.store().failure(key);
        files::write_checked_json(&path, &Note { what, reason })
            .map_err(ExperimentError::io("cannot write", path))
    }

    /// Returns the addresses of a subject's failures: of its training run and of its evaluation.
    fn failure_keys(&self, subject: &Subject) -> Vec<Key> {
        let run = match subject {
            Subject::Baseline { .. } => None,
            Subject::Trained { cell, .. } => Some(self.run_key(cell)),
        };
        run.into_iter().chain([self.scores_key(subject, 0)]).collect()
    }
}

fn remove(path: PathBuf) -> Result<(), ExperimentError> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ExperimentError::io("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Returns the message of an error with its causes.
pub(super) fn with_causes(error: &ExperimentError) -> String {
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
    fn a_reason_includes_the_causes() {
        let disk = std::io::Error::other("the disk is gone");
        let error = ExperimentError::io("cannot write", "scores.json")(disk);
        assert_eq!(with_causes(&error), "cannot write scores.json: the disk is gone");
    }
}
