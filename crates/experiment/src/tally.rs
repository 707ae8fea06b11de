//! Tallies: how much of a grid is done.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use trainer::Overall;

use crate::cell::{Cell, Subject};
use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::runner::Runner;

/// The weight of a run whose training is stored, in place of its seconds: its evaluation is short or calls a judge.
const TRAINED: f64 = 1.0;
/// The end of a file of metrics that contains its last row.
const LAST_ROW: u64 = 4096;

/// The runs of a grid and their shares of the work.
#[derive(Debug)]
pub(crate) struct Tally {
    runs: Vec<Run>,
}

/// A training run with its evaluations, or the evaluation of the supervised policy.
#[derive(Debug)]
struct Run {
    /// `None` for the supervised policy.
    cell: Option<Cell>,
    subjects: Vec<Subject>,
    /// The work that remained at the beginning, relative to the other runs.
    weight: f64,
    /// The optimizer steps that remained at the beginning.
    steps: u64,
    is_done: bool,
}

/// The step of a row of metrics.
#[derive(Deserialize)]
struct Row {
    step: u64,
}

impl Tally {
    /// Counts the work of `grid` that remains.
    pub(crate) fn new(runner: &Runner, grid: &Grid) -> Result<Self, ExperimentError> {
        let plan = runner.plan(grid)?;
        let cells = [None].into_iter().chain(grid.cells().into_iter().map(Some));
        let work = [&plan.baseline].into_iter().chain(&plan.cells);
        let runs = cells.zip(work).map(|(cell, work)| Run {
            cell: cell.cloned(),
            subjects: grid.subjects().iter().filter(|subject| cell_of(subject) == cell).cloned().collect(),
            weight: if work.is_complete() {
                0.0
            } else {
                plan.seconds(work).unwrap_or(work.steps as f64).max(TRAINED)
            },
            steps: work.steps,
            is_done: work.is_complete(),
        });
        Ok(Self { runs: runs.filter(|run| !run.subjects.is_empty()).collect() })
    }

    /// Returns the state of the work before `subject` is computed, or while other processes compute.
    pub(crate) fn look(&mut self, runner: &Runner, subject: Option<&Subject>) -> Overall {
        let all: f64 = self.runs.iter().map(|run| run.weight).sum::<f64>().max(f64::MIN_POSITIVE);
        let (mut done, mut finished, mut next) = (0, 0.0, 0.0);
        for run in &mut self.runs {
            run.is_done = run.is_done || run.subjects.iter().all(|subject| runner.is_settled(subject));
            if run.is_done {
                done += 1;
                finished += run.weight;
            } else if subject.is_some_and(|subject| run.subjects.contains(subject)) {
                next = run.weight;
            } else if subject.is_none() {
                finished += run.weight * run.progress(runner);
            }
        }
        Overall { done, runs: self.runs.len(), share: finished / all, next: next / all }
    }
}

impl Run {
    /// Returns the finished share of training, as its metrics show.
    fn progress(&self, runner: &Runner) -> f64 {
        let folder = self.cell.as_ref().and_then(|cell| runner.training_folder(cell));
        let step = folder.and_then(|folder| last_step(&folder.join("metrics.jsonl"))).unwrap_or(0);
        (step as f64 / self.steps.max(1) as f64).min(1.0)
    }
}

/// Returns the cell of a subject; `None` for the supervised policy.
fn cell_of(subject: &Subject) -> Option<&Cell> {
    match subject {
        Subject::Baseline { .. } => None,
        Subject::Trained { cell, .. } => Some(cell),
    }
}

/// Returns the last step in a file of metrics, which another process may be writing.
fn last_step(path: &Path) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_ROW))).ok()?;
    let mut end = Vec::new();
    file.take(LAST_ROW).read_to_end(&mut end).ok()?;
    let mut rows = end.rsplit(|byte| *byte == b'\n').filter(|row| !row.is_empty());
    rows.find_map(|row| serde_json::from_slice::<Row>(row).ok()).map(|row| row.step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_row_has_the_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(last_step(&path), None);
        let rows: String = (1..=300).map(|step| format!("{{\"step\":{step},\"loss\":0.5}}\n")).collect();
        std::fs::write(&path, format!("{rows}{{\"step\":301,\"lo")).unwrap();
        assert_eq!(last_step(&path), Some(300));
    }
}
