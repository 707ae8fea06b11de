//! The registry: the cells of an experiment's folder with their states.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use report::table::{Align, Column, Table, Value};
use trainer::RunDir;
use trainer::recipe::Recipe;

use crate::cell::{Cell, Subject, loss_name, percent, slice_name};
use crate::error::ExperimentError;
use crate::failure::Failure;
use crate::grid::Grid;
use crate::runner::Runner;
use crate::scorers::Scorers;

mod answers;
mod show;

pub use answers::PolicyAnswers;

/// The cells of an experiment's folder, finished or not.
#[derive(Debug)]
pub struct Registry {
    folder: PathBuf,
    /// The names of the grids, in order.
    names: Vec<String>,
    experiments: Vec<Experiment>,
    entries: Vec<Entry>,
}

/// A runner with some of the named grids, by index.
#[derive(Debug)]
struct Experiment {
    runner: Runner,
    grids: Vec<(usize, Grid)>,
}

/// A training run, or the supervised policy with its answers of every seed.
#[derive(Debug)]
struct Entry {
    id: String,
    /// `None` for the supervised policy.
    cell: Option<Cell>,
    epochs: u64,
    /// The grids that contain it, by index.
    grids: BTreeSet<usize>,
    /// Its subjects in these grids.
    subjects: Vec<Subject>,
    /// The index of its experiment; `None` if no grid contains it.
    experiment: Option<usize>,
    run: Option<PathBuf>,
}

impl Registry {
    /// Lists the cells of `experiments`, each with some of the grids in `names`, and all other runs of the store in
    /// `folder`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn new(
        folder: &Path,
        names: Vec<String>,
        experiments: impl IntoIterator<Item = (Runner, Vec<(usize, Grid)>)>,
    ) -> Result<Self, ExperimentError> {
        let experiments =
            experiments.into_iter().map(|(runner, grids)| Experiment { runner, grids }).collect();
        let mut registry = Self { folder: folder.to_owned(), names, experiments, entries: Vec::new() };
        for at in 0..registry.experiments.len() {
            registry.add(at);
        }
        registry.add_others()?;
        Ok(registry)
    }

    /// Returns a table of the cells.
    ///
    /// # Errors
    ///
    /// If a score cannot be read.
    pub fn table(&self) -> Result<Table, ExperimentError> {
        let mut rows = Vec::new();
        for entry in &self.entries {
            rows.push(self.row(entry)?);
        }
        let left = |title: &str| Column::new(title, Align::Left);
        let right = |title: &str| Column::new(title, Align::Right);
        let has_gold = self.experiments.iter().any(|of| of.runner.source().is_sandbox());
        Ok(Table {
            id: "cells".into(),
            title: format!("Cells in {}", self.folder.display()),
            columns: [left("Cell"), left("Serves"), left("Annotator"), left("Loss"), right("β"), right("Pairs")]
                .into_iter()
                .chain([right("Flipped"), right("Epochs"), right("Seed"), left("State"), right("Judge")])
                .chain(has_gold.then(|| right("Ground truth")))
                .collect(),
            rows,
            notes: vec![
                "Scores: means at the end of training over questions and turns, for SFT also over seeds. Ground truth: gold quality \
                 on held-out questions. `study show CELL` gives intervals; CELL may be a unique prefix of the name."
                    .to_owned(),
            ],
        })
    }

    /// Adds the cells of one experiment, each once.
    fn add(&mut self, at: usize) {
        let Experiment { runner, grids } = &self.experiments[at];
        for (name, grid) in grids {
            for subject in grid.subjects() {
                let cell = match subject {
                    Subject::Baseline { .. } => None,
                    Subject::Trained { cell, .. } => Some(cell),
                };
                let id = match cell {
                    None => runner.source().key().as_str().to_owned(),
                    Some(cell) => runner.run_key(cell).as_str().to_owned(),
                };
                let known = self.entries.iter().position(|entry| entry.id == id);
                let place = known.unwrap_or_else(|| {
                    self.entries.push(Entry {
                        id,
                        cell: cell.cloned(),
                        epochs: cell.map_or(0, |cell| runner.setup().epochs_of(cell)),
                        grids: BTreeSet::new(),
                        subjects: Vec::new(),
                        experiment: Some(at),
                        run: cell.and_then(|cell| runner.training_folder(cell)),
                    });
                    self.entries.len() - 1
                });
                let entry = &mut self.entries[place];
                entry.grids.insert(*name);
                if !entry.subjects.contains(subject) {
                    entry.subjects.push(subject.clone());
                }
            }
        }
    }

    /// Adds the stored runs that no grid contains.
    fn add_others(&mut self) -> Result<(), ExperimentError> {
        let runs = self.folder.join("store").join("runs");
        let Ok(listed) = fs::read_dir(&runs) else { return Ok(()) };
        let mut folders: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        folders.sort();
        for run in folders {
            let id = run.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let recipe = run.join("recipe.toml");
            if self.entries.iter().any(|entry| entry.id == id) || !recipe.is_file() {
                continue;
            }
            let Recipe { seed, data, loss, train, .. } = Recipe::load(&recipe, &[])?;
            let Some(data) = data.into_iter().next() else { continue };
            let cell = Cell {
                slice: data.slice,
                fraction: data.fraction,
                flip_rate: data.flip_rate,
                ..Cell::new(data.annotator, loss.kind, loss.strength(), seed)
            };
            self.entries.push(Entry {
                id,
                cell: Some(cell),
                epochs: train.epochs.get() as u64,
                grids: BTreeSet::new(),
                subjects: Vec::new(),
                experiment: None,
                run: Some(run),
            });
        }
        Ok(())
    }

    fn row(&self, entry: &Entry) -> Result<Vec<Value>, ExperimentError> {
        let mut row = vec![Value::text(&entry.id), Value::text(self.names_of(entry).join(" "))];
        match &entry.cell {
            None => {
                row.extend(["–", "SFT", "–", "–", "–", "–"].map(Value::text));
                row.push(Value::text(match entry.subjects.len() {
                    1 => "0".to_owned(),
                    seeds => format!("0–{}", seeds - 1),
                }));
            }
            Some(cell) => {
                let labels = match &cell.slice {
                    Some(slice) => format!("{} where {}", cell.annotator, slice_name(slice)),
                    None => cell.annotator.clone(),
                };
                let loss = format!("{}{}", loss_name(cell.loss), cell.training_changes());
                row.extend([labels, loss].map(Value::text));
                row.push(Value::text(cell.beta.get().to_string()));
                row.extend(
                    [cell.fraction.get(), cell.flip_rate.get()]
                        .map(|share| Value::text(format!("{}%", percent(share)))),
                );
                row.extend([entry.epochs, cell.seed].map(Value::Count));
            }
        }
        row.push(Value::text(self.state(entry)?));
        row.extend(self.scores(entry)?);
        Ok(row)
    }

    /// Returns the names of the grids that contain an entry.
    fn names_of(&self, entry: &Entry) -> Vec<&str> {
        entry.grids.iter().map(|&at| self.names[at].as_str()).collect()
    }

    fn runner(&self, entry: &Entry) -> Option<&Runner> {
        entry.experiment.map(|at| &self.experiments[at].runner)
    }

    /// Returns the state of an entry: failed, or its progress.
    fn state(&self, entry: &Entry) -> Result<String, ExperimentError> {
        if let Some(runner) = self.runner(entry) {
            for subject in &entry.subjects {
                if let Some(Failure { reason, .. }) = runner.failure(subject)? {
                    return Ok(format!("failed: {reason}"));
                }
            }
        }
        Ok(self.progress(entry))
    }

    /// Returns the progress of an entry.
    fn progress(&self, entry: &Entry) -> String {
        if let Some(run) = &entry.run
            && RunDir::open_finished(run).is_err()
        {
            return match fs::read_to_string(run.join("metrics.jsonl")) {
                Ok(steps) => format!("interrupted or running, step {}", steps.lines().count()),
                Err(_) => "to do".to_owned(),
            };
        }
        let Some(runner) = self.runner(entry) else {
            return "trained, in no question".to_owned();
        };
        let all = entry.subjects.len();
        let done = entry.subjects.iter().filter(|subject| runner.is_evaluated(subject)).count();
        match done {
            done if done == all => "evaluated".to_owned(),
            done => format!("trained, {done} of {all} evaluated"),
        }
    }

    /// Returns the mean scores of the main judge and of the ground truth, at the end of training.
    fn scores(&self, entry: &Entry) -> Result<Vec<Value>, ExperimentError> {
        let missing = || Value::missing("not evaluated");
        let Some(runner) = self.runner(entry) else {
            return Ok(vec![missing()]);
        };
        let mut evaluations = Vec::new();
        for subject in entry.subjects.iter().filter(|subject| runner.is_final(subject)) {
            evaluations.extend(runner.evaluated(subject)?.map(|evaluated| evaluated.evaluation));
        }
        let scorers = Scorers::of(runner.setup());
        let held_out = scorers.gold.as_ref().map(|[_, held_out]| held_out);
        let means = [&scorers.judge].into_iter().chain(held_out).map(|scorer| {
            let scores = evaluations.iter().flat_map(|evaluation| &evaluation.scores);
            let of_scorer = scores.filter(|s| scorer.is_of(s));
            let values: Vec<f64> = of_scorer.filter_map(|score| score.score).collect();
            match values.is_empty() {
                true => missing(),
                false => {
                    let value = values.iter().sum::<f64>() / values.len() as f64;
                    Value::Number { value, decimals: 2 }
                }
            }
        });
        Ok(means.collect())
    }
}
