//! What is left to compute of a grid, and what that takes; nothing runs.

use policy_model::ModelConfig;
use sandbox::{MAX_VOCAB_SIZE, Size};
use trainer::{Memory, RunDir};

use crate::cell::{Cell, Subject};
use crate::error::StudyError;
use crate::evaluate::judge_names;
use crate::grid::Grid;
use crate::runner::Runner;

/// Seconds an optimiser step takes where none was measured: 16 pairs, the sandbox's policy, one core of a laptop.
pub const ASSUMED_STEP_SECONDS: f64 = 0.02;
/// Seconds an answer takes, among many in a batch: the sandbox's policy, one core of a laptop.
pub const ASSUMED_ANSWER_SECONDS: f64 = 0.0006;
/// Turns of a question.
const TURNS: u64 = 2;

/// How much of a grid is computed already, and what the rest takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What all runs start from: a tokenizer, policies, records.
    pub preparation: Work,
    /// The policy that all runs start from, to be evaluated.
    pub baseline: Work,
    /// Every distinct training run with its evaluations.
    pub cells: Vec<Work>,
    /// How long a step takes.
    pub pace: Pace,
    /// Weights of the policy.
    pub parameters: u64,
    /// What these take in training.
    pub memory: Memory,
}

/// A part of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What it is.
    pub what: String,
    /// Whether everything is in the store that is trained or written for it.
    pub is_made: bool,
    /// Evaluations asked for.
    pub evaluations: u64,
    /// Of these, how many are in the store.
    pub evaluated: u64,
    /// Optimiser steps that are left, at most.
    pub steps: u64,
    /// Answers that are left to be generated, at most.
    pub answers: u64,
    /// Verdicts that are left to be asked for.
    pub judge_calls: u64,
}

/// How long a step takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The mean over steps of this grid that are in the store.
    Measured {
        /// Seconds a step.
        step_seconds: f64,
        /// How many were measured.
        steps: usize,
    },
    /// [`ASSUMED_STEP_SECONDS`]: no step of this grid is in the store.
    Assumed,
}

impl Plan {
    /// Whether nothing is left to compute.
    pub fn is_complete(&self) -> bool {
        self.work().all(Work::is_complete)
    }

    /// All parts, in the order in which they are computed.
    pub fn work(&self) -> impl Iterator<Item = &Work> {
        [&self.preparation, &self.baseline].into_iter().chain(&self.cells)
    }

    /// Seconds that a part takes one worker.
    pub fn seconds(&self, work: &Work) -> f64 {
        work.steps as f64 * self.pace.step_seconds() + work.answers as f64 * ASSUMED_ANSWER_SECONDS
    }

    /// Seconds until all is done: one process prepares, then `workers` share the rest.
    pub fn seconds_with(&self, workers: usize) -> f64 {
        let shared: f64 =
            [&self.baseline].into_iter().chain(&self.cells).map(|work| self.seconds(work)).sum();
        self.seconds(&self.preparation) + shared / workers.max(1) as f64
    }

    /// Training runs that are in the store.
    pub fn trained(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_made).count()
    }
}

impl Work {
    /// Whether nothing of it is left.
    pub fn is_complete(&self) -> bool {
        self.is_made && self.evaluated == self.evaluations
    }
}

impl Pace {
    /// Seconds a step.
    pub fn step_seconds(self) -> f64 {
        match self {
            Self::Measured { step_seconds, .. } => step_seconds,
            Self::Assumed => ASSUMED_STEP_SECONDS,
        }
    }
}

impl Runner {
    /// How much of `grid` is computed already and what the rest takes; nothing runs.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub fn plan(&self, grid: &Grid) -> Result<Plan, StudyError> {
        let (recipe, world) = (self.recipe(), self.world());
        let (steps, answers) = world.preparation_left(recipe.study.seeds);
        let preparation = Work {
            what: "policy, tokenizer and records".to_owned(),
            is_made: world.is_prepared(recipe.study.seeds),
            evaluations: 0,
            evaluated: 0,
            steps,
            answers,
            judge_calls: 0,
        };
        let baseline = self.evaluations("evaluate SFT".to_owned(), subjects(grid, None));
        let mut cells = Vec::new();
        let mut measured = Vec::new();
        for cell in grid.cells() {
            let work = self.evaluations(format!("train {cell}"), subjects(grid, Some(cell)));
            cells.push(match self.finished(cell) {
                Some(run) => {
                    measured.push(run);
                    work
                }
                None => Work { is_made: false, steps: self.steps_of(cell), ..work },
            });
        }
        let config = ModelConfig::from_json(sandbox::model_config(Size::Small, MAX_VOCAB_SIZE))?;
        let parameters = config.parameter_count();
        let memory = Memory::of(parameters, recipe.model.dtype.kind());
        Ok(Plan { preparation, baseline, cells, pace: pace(&measured)?, parameters, memory })
    }

    /// The evaluations of something that is made.
    fn evaluations<'a>(&self, what: String, subjects: impl Iterator<Item = &'a Subject>) -> Work {
        let (mut evaluations, mut evaluated) = (0, 0);
        for subject in subjects {
            evaluations += 1;
            evaluated += u64::from(self.is_evaluated(subject));
        }
        let (questions, further) = (self.world().questions.len() as u64, self.world().further.len() as u64);
        let left = evaluations - evaluated;
        Work {
            what,
            is_made: true,
            evaluations,
            evaluated,
            steps: 0,
            answers: left * (questions + further) * TURNS,
            judge_calls: left * questions * TURNS * judge_names().len() as u64,
        }
    }

    /// Optimiser steps of a cell, at most: prompts with two equal responses make no pair.
    fn steps_of(&self, cell: &Cell) -> u64 {
        let recipe = self.recipe();
        let pairs = (recipe.sandbox.pairs as f64 * cell.fraction.get()).ceil() as u64;
        recipe.train.epochs * pairs.div_ceil(recipe.train.batch_size as u64)
    }
}

/// The subjects of `grid` that belong to one cell, or to the policy that all cells start from.
fn subjects<'a>(grid: &'a Grid, of: Option<&'a Cell>) -> impl Iterator<Item = &'a Subject> {
    grid.subjects().iter().filter(move |subject| match subject {
        Subject::Baseline { .. } => of.is_none(),
        Subject::Trained { cell, .. } => of == Some(cell),
    })
}

fn pace(runs: &[RunDir]) -> Result<Pace, StudyError> {
    let (mut seconds, mut steps) = (0.0, 0);
    for run in runs {
        for metrics in run.read_metrics()? {
            seconds += metrics.step_seconds;
            steps += 1;
        }
    }
    Ok(match steps {
        0 => Pace::Assumed,
        _ => Pace::Measured { step_seconds: seconds / steps as f64, steps },
    })
}
