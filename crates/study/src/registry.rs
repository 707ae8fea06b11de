//! What lies in a study's folder: its cells, which questions they serve, what became of each.

use std::fs;
use std::path::{Path, PathBuf};

use report::table::{Align, Column, Table, Value};
use trainer::RunDir;
use trainer::recipe::Recipe;

use crate::analysis::Scorers;
use crate::asked;
use crate::cell::{Cell, Subject, loss_name, percent, slice_name};
use crate::error::StudyError;
use crate::failures::Failure;
use crate::grid::Question;
use crate::runner::Runner;

mod show;

/// The cells of a study's folder, whichever questions asked for them and whether they are finished or not.
#[derive(Debug)]
pub struct Registry {
    folder: PathBuf,
    studies: Vec<Study>,
    entries: Vec<Entry>,
}

/// Questions that were asked under one recipe.
#[derive(Debug)]
struct Study {
    runner: Runner,
    questions: Vec<Question>,
}

/// A training run, or the supervised policy with its answers of every seed.
#[derive(Debug)]
struct Entry {
    id: String,
    /// `None` of the supervised policy.
    cell: Option<Cell>,
    epochs: u64,
    questions: Vec<Question>,
    /// What was to be evaluated of it.
    subjects: Vec<Subject>,
    /// Where in the studies; `None` of a run that no question of the folder asks for.
    study: Option<usize>,
    run: Option<PathBuf>,
}

impl Registry {
    /// Reads what lies in the output folder of a study.
    ///
    /// # Errors
    ///
    /// [`StudyError::NoStudy`] where no question was asked in it; where its store cannot be read.
    pub fn open(folder: &Path) -> Result<Self, StudyError> {
        let mut registry = Self { folder: folder.to_owned(), studies: Vec::new(), entries: Vec::new() };
        for (question, recipe) in asked::begun(folder)? {
            match registry.studies.iter_mut().find(|study| *study.runner.recipe() == recipe) {
                Some(study) => study.questions.push(question),
                None => {
                    registry.studies.push(Study { runner: Runner::new(recipe)?, questions: vec![question] });
                }
            }
        }
        if registry.studies.is_empty() {
            return Err(StudyError::NoStudy { folder: folder.to_owned() });
        }
        for at in 0..registry.studies.len() {
            registry.add(at)?;
        }
        registry.add_others()?;
        Ok(registry)
    }

    /// Every cell with what became of it, one a row.
    ///
    /// # Errors
    ///
    /// Where a score cannot be read.
    pub fn table(&self) -> Result<Table, StudyError> {
        let mut rows = Vec::new();
        for entry in &self.entries {
            rows.push(self.row(entry)?);
        }
        let left = |title: &str| Column::new(title, Align::Left);
        let right = |title: &str| Column::new(title, Align::Right);
        let has_gold = self.studies.iter().any(|study| study.runner.world().is_sandbox());
        Ok(Table {
            id: "cells".into(),
            title: format!("Cells in {}", self.folder.display()),
            columns: [left("Cell"), left("Serves"), left("Annotator"), left("Loss"), right("β"), right("Pairs")]
                .into_iter()
                .chain([right("Flipped"), right("Epochs"), right("Seed"), left("State"), right("Judge")])
                .chain(has_gold.then(|| right("Gold beyond")))
                .collect(),
            rows,
            notes: vec![
                "Scores: means at the end of training, over questions and turns; of SFT over its seeds too. `study show CELL` says \
                 how certain they are, and takes the beginning of a name where no other cell's begins so."
                    .to_owned(),
            ],
        })
    }

    /// The cells of one study, each once, whichever of its questions ask for it.
    fn add(&mut self, at: usize) -> Result<(), StudyError> {
        let Study { runner, questions } = &self.studies[at];
        for &question in questions {
            let grid = runner.grid(&[question])?;
            for subject in grid.subjects() {
                let cell = match subject {
                    Subject::Baseline { .. } => None,
                    Subject::Trained { cell, .. } => Some(cell),
                };
                let id = match cell {
                    None => runner.world().key().as_str().to_owned(),
                    Some(cell) => runner.run_key(cell).as_str().to_owned(),
                };
                let known = self.entries.iter().position(|entry| entry.id == id);
                let place = known.unwrap_or_else(|| {
                    let train = &runner.recipe().train;
                    self.entries.push(Entry {
                        id,
                        cell: cell.cloned(),
                        epochs: cell.map_or(0, |cell| cell.epochs.map_or(train.epochs, Into::into)),
                        questions: Vec::new(),
                        subjects: Vec::new(),
                        study: Some(at),
                        run: cell.map(|cell| runner.run_folder(cell)),
                    });
                    self.entries.len() - 1
                });
                let entry = &mut self.entries[place];
                if !entry.questions.contains(&question) {
                    entry.questions.push(question);
                    entry.questions.sort();
                }
                if !entry.subjects.contains(subject) {
                    entry.subjects.push(subject.clone());
                }
            }
        }
        Ok(())
    }

    /// Runs in the store that no question asks for any more, or not yet.
    fn add_others(&mut self) -> Result<(), StudyError> {
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
            let cell = Cell {
                annotator: data.annotator,
                slice: data.slice,
                fraction: data.fraction,
                flip_rate: data.flip_rate,
                loss: loss.kind,
                beta: loss.beta,
                epochs: None,
                seed,
            };
            self.entries.push(Entry {
                id,
                cell: Some(cell),
                epochs: train.epochs,
                questions: Vec::new(),
                subjects: Vec::new(),
                study: None,
                run: Some(run),
            });
        }
        Ok(())
    }

    fn row(&self, entry: &Entry) -> Result<Vec<Value>, StudyError> {
        let names: Vec<&str> = entry.questions.iter().map(|question| question.name()).collect();
        let mut row = vec![Value::text(&entry.id), Value::text(names.join(" "))];
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
                row.extend([&labels, loss_name(cell.loss)].map(Value::text));
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

    /// What became of an entry, in words.
    fn state(&self, entry: &Entry) -> Result<String, StudyError> {
        if let Some(study) = entry.study.map(|at| &self.studies[at]) {
            for subject in &entry.subjects {
                if let Some(Failure { reason, .. }) = study.runner.failure(subject)? {
                    return Ok(format!("failed: {reason}"));
                }
            }
        }
        Ok(self.progress(entry))
    }

    /// How far an entry is, in words.
    fn progress(&self, entry: &Entry) -> String {
        if let Some(run) = &entry.run
            && RunDir::open_finished(run).is_err()
        {
            return match fs::read_to_string(run.join("metrics.jsonl")) {
                Ok(steps) => format!("stopped or under way, step {}", steps.lines().count()),
                Err(_) => "to do".to_owned(),
            };
        }
        let Some(study) = entry.study.map(|at| &self.studies[at]) else {
            return "trained, no question asks for it".to_owned();
        };
        let asked = entry.subjects.len();
        let done = entry.subjects.iter().filter(|subject| study.runner.is_evaluated(subject)).count();
        match done {
            done if done == asked => "evaluated".to_owned(),
            done => format!("trained, {done} of {asked} evaluated"),
        }
    }

    /// The mean scores of the study's judge and of gold beyond, at the end of training.
    fn scores(&self, entry: &Entry) -> Result<Vec<Value>, StudyError> {
        let missing = || Value::missing("not evaluated");
        let Some(Study { runner, .. }) = entry.study.map(|at| &self.studies[at]) else {
            return Ok(vec![missing()]);
        };
        let mut evaluations = Vec::new();
        for subject in entry.subjects.iter().filter(|subject| runner.is_final(subject)) {
            evaluations.extend(runner.evaluated(subject)?.map(|evaluated| evaluated.evaluation));
        }
        let scorers = Scorers::of(runner.recipe());
        let beyond = scorers.gold.as_ref().map(|[_, beyond]| beyond);
        let means = [&scorers.judge].into_iter().chain(beyond).map(|scorer| {
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
