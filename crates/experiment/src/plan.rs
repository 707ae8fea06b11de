//! Plans: the work that a grid still needs, and its cost.

use policy_model::ModelConfig;
use sandbox::{MAX_VOCAB_SIZE, Size};
use tch::Kind;
use trainer::{Memory, Precision, RunDir};

use crate::cell::{Cell, Subject};
use crate::checkpoints::kept_checkpoints;
use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::judges;
use crate::runner::Runner;
use crate::setup::{JudgeKind, Keep, Setup};

mod forecast;
mod judging;

pub use forecast::{Forecast, GroupForecast};
pub use judging::JudgingCost;

/// Assumed seconds of an optimizer step in the sandbox: 16 pairs, one core of a laptop.
pub const ASSUMED_STEP_SECONDS: f64 = 0.02;
/// Assumed seconds of an answer in the sandbox, in a large batch: one core of a laptop.
pub const ASSUMED_ANSWER_SECONDS: f64 = 0.0006;
/// Turns of a question.
const TURNS: u64 = 2;

/// The finished and the remaining work of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The preparation: tokenizer, policies, records.
    pub preparation: Work,
    /// The evaluation of the supervised policy.
    pub baseline: Work,
    /// Every training run with its evaluations.
    pub cells: Vec<Work>,
    /// Requested evaluations, duplicates counted.
    pub requested: usize,
    /// The duration of a step.
    pub pace: Pace,
    /// Whether the policy is the sandbox's. Other policies have no assumed times.
    pub is_sandbox: bool,
    /// The remaining calls of each judge behind an endpoint; none in the sandbox.
    pub judging: Vec<JudgingCost>,
    /// Number of parameters of the policy.
    pub parameters: u64,
    /// Memory of training.
    pub memory: Memory,
    /// Disk space of a training run.
    pub disk: Disk,
    /// The forecast; `None` before [`Runner::forecast`].
    pub forecast: Option<Forecast>,
}

/// A unit of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Its description.
    pub what: String,
    /// Whether its training is in the store.
    pub is_made: bool,
    /// Requested evaluations.
    pub evaluations: u64,
    /// Stored evaluations.
    pub evaluated: u64,
    /// Failed evaluations.
    pub failed: u64,
    /// Remaining optimizer steps, at most.
    pub steps: u64,
    /// Remaining answers, at most.
    pub answers: u64,
    /// Remaining calls of judges.
    pub judge_calls: u64,
}

/// Disk space of a training run, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Space of a finished run: the weights of its checkpoints and of the policy, unless they are dropped.
    pub kept: u64,
    /// Space of a finished run that keeps its last checkpoint only.
    pub least: u64,
    /// Further space during a run: the optimizer states of two checkpoints, and weights that are dropped afterwards.
    pub under_way: u64,
}

impl Disk {
    fn of(parameters: u64, kind: Kind, setup: &Setup) -> Self {
        let checkpoints = kept_checkpoints(&setup.train) as u64;
        let policy = parameters * kind.elt_size_in_bytes() as u64;
        // A master in fp32, and two moments.
        let state = parameters * 4 + setup.optimizer.moments().bytes(parameters);
        let weights = policy * (checkpoints + 1);
        let (kept, dropped) = match setup.store.keep {
            Keep::All => (weights, 0),
            Keep::Scores => (0, weights),
        };
        Self { kept, least: 2 * policy, under_way: 2 * state + dropped }
    }
}

/// The duration of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The mean over the stored steps of this grid.
    Measured {
        /// Seconds per step.
        step_seconds: f64,
        /// Number of stored steps.
        steps: usize,
    },
    /// Measured on layers of the model, since no step is stored.
    Tried {
        /// Seconds per step.
        step_seconds: f64,
    },
    /// [`ASSUMED_STEP_SECONDS`] in the sandbox, since no step is stored.
    Assumed,
}

impl Plan {
    /// Returns whether no work remains.
    pub fn is_complete(&self) -> bool {
        self.work().all(Work::is_complete)
    }

    /// Returns all units of work, in order.
    pub fn work(&self) -> impl Iterator<Item = &Work> {
        [&self.preparation, &self.baseline].into_iter().chain(&self.cells)
    }

    /// Returns the seconds of one worker for a unit, without answering outside of the sandbox; `None` if the duration of a
    /// step is unknown.
    pub fn seconds(&self, work: &Work) -> Option<f64> {
        let answer = if self.is_sandbox { ASSUMED_ANSWER_SECONDS } else { 0.0 };
        Some(work.steps as f64 * self.step_seconds()? + work.answers as f64 * answer)
    }

    /// Returns the seconds of an optimizer step; `None` if unknown.
    pub fn step_seconds(&self) -> Option<f64> {
        match self.pace {
            Pace::Measured { step_seconds, .. } | Pace::Tried { step_seconds } => Some(step_seconds),
            Pace::Assumed => self.is_sandbox.then_some(ASSUMED_STEP_SECONDS),
        }
    }

    /// Returns the seconds of all work: one process prepares, then `workers` share the rest.
    pub fn seconds_with(&self, workers: usize) -> Option<f64> {
        let shared: Option<f64> =
            [&self.baseline].into_iter().chain(&self.cells).map(|work| self.seconds(work)).sum();
        Some(self.seconds(&self.preparation)? + shared? / workers.max(1) as f64)
    }

    /// Checks that no judge's calls are estimated to exceed its budget.
    ///
    /// # Errors
    ///
    /// [`ExperimentError::Budget`] for the first one that does.
    pub fn check_budget(&self) -> Result<(), ExperimentError> {
        self.judging.iter().try_for_each(JudgingCost::check)
    }

    /// Returns the number of stored training runs.
    pub fn trained(&self) -> usize {
        self.cells.iter().filter(|cell| cell.is_made).count()
    }
}

impl Work {
    /// Returns whether the unit is finished.
    pub fn is_complete(&self) -> bool {
        self.is_made && self.evaluated == self.evaluations
    }
}

impl Runner {
    /// Returns the finished and the remaining work of `grid`; nothing runs.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, and [`ExperimentError::Checkpoints`].
    pub fn plan(&self, grid: &Grid) -> Result<Plan, ExperimentError> {
        self.check(grid)?;
        let (setup, source) = (self.setup(), self.source());
        let (steps, answers) = source.preparation_left(setup.seeds);
        let preparation = Work {
            what: "policy, tokenizer and records".to_owned(),
            is_made: source.is_prepared(setup.seeds),
            evaluations: 0,
            evaluated: 0,
            failed: 0,
            steps,
            answers,
            judge_calls: 0,
        };
        let baseline = self.evaluations("evaluate SFT".to_owned(), subjects(grid, None))?;
        let mut cells = Vec::new();
        let mut measured = Vec::new();
        for cell in grid.cells() {
            let work = self.evaluations(format!("train {cell}"), subjects(grid, Some(cell)))?;
            cells.push(match self.finished(cell) {
                Some(run) => {
                    measured.push(run);
                    work
                }
                None if self.is_trained(cell) => work,
                None => Work { is_made: false, steps: self.steps_of(cell, setup.train.batch_size)?, ..work },
            });
        }
        let is_sandbox = source.is_sandbox();
        let config = match is_sandbox {
            true => ModelConfig::from_json(sandbox::model_config(Size::Small, MAX_VOCAB_SIZE))?,
            false => ModelConfig::from_folder(&source.model())?,
        };
        let parameters = config.parameter_count();
        let memory = Memory::of(
            parameters,
            Precision { moments: setup.optimizer.moments(), ..setup.model.dtype.kind().into() },
        );
        let judge_calls = [&baseline].into_iter().chain(&cells).map(|work| work.judge_calls).sum::<u64>();
        Ok(Plan {
            preparation,
            baseline,
            cells,
            requested: grid.requested(),
            pace: pace(&measured)?,
            is_sandbox,
            judging: JudgingCost::of(&setup.judge, judge_calls)?,
            parameters,
            memory,
            disk: Disk::of(parameters, setup.model.dtype.kind(), setup),
            forecast: None,
        })
    }

    /// Returns the work of evaluating a trained policy.
    fn evaluations<'a>(
        &self,
        what: String,
        subjects: impl Iterator<Item = &'a Subject>,
    ) -> Result<Work, ExperimentError> {
        let (mut evaluations, mut evaluated, mut failed) = (0, 0, 0);
        for subject in subjects {
            evaluations += 1;
            failed += u64::from(self.failure(subject)?.is_some());
            evaluated += u64::from(self.is_evaluated(subject));
        }
        let (questions, further) =
            (self.source().questions().len() as u64, self.source().further().len() as u64);
        let judge = &self.setup().judge;
        let opinions: u64 = match judge.kind {
            JudgeKind::Sandbox => judges::names(judge).len() as u64 * u64::from(judge.repeats.get()),
            JudgeKind::Endpoint => judge.all().map(|judge| u64::from(judge.repeats.get())).sum(),
        };
        let left = (evaluations - evaluated) * u64::from(self.setup().answers.samples.get());
        Ok(Work {
            what,
            is_made: true,
            evaluations,
            evaluated,
            failed,
            steps: 0,
            answers: left * (questions + further) * TURNS,
            judge_calls: left * questions * TURNS * opinions,
        })
    }

    /// Checks that every checkpoint of every cell of `grid` has its own step.
    ///
    /// # Errors
    ///
    /// [`ExperimentError::Checkpoints`] with the batch size that serves all cells.
    pub fn check(&self, grid: &Grid) -> Result<(), ExperimentError> {
        let train = &self.setup().train;
        let removed = train.checkpoints.len() - kept_checkpoints(train);
        let is_removed = |subject: &&Subject| matches!(subject, Subject::Trained { checkpoint, .. } if *checkpoint < removed);
        if let Some(subject) = grid.subjects().iter().find(is_removed) {
            return Err(ExperimentError::Unsupported(format!(
                "train.keep_last = {} removes a checkpoint that is evaluated ({subject}); set it to 0, or leave out the tables of \
                 earlier checkpoints",
                train.keep_last
            )));
        }
        let cells = grid.cells();
        let fits = |cell: &Cell, batch_size: usize| -> Result<bool, ExperimentError> {
            Ok(are_distinct(&train.checkpoints, self.steps_of(cell, batch_size)?))
        };
        for cell in &cells {
            if fits(cell, train.batch_size)? {
                continue;
            }
            let mut serves = None;
            for batch_size in (1..train.batch_size).rev() {
                let all = cells.iter().map(|cell| fits(cell, batch_size)).collect::<Result<Vec<_>, _>>()?;
                if all.into_iter().all(|fits| fits) {
                    serves = Some(batch_size);
                    break;
                }
            }
            return Err(ExperimentError::Checkpoints {
                cell: cell.to_string(),
                batch_size: train.batch_size,
                steps: self.steps_of(cell, train.batch_size)?,
                wanted: train.checkpoints.len(),
                serves,
            });
        }
        Ok(())
    }

    /// Returns the largest number of optimizer steps of a cell; prompts with two equal responses make no pair.
    fn steps_of(&self, cell: &Cell, batch_size: usize) -> Result<u64, ExperimentError> {
        let pairs = (self.source().pairs()? as f64 * cell.fraction.get()).ceil() as u64;
        Ok(self.setup().epochs_of(cell) * pairs.div_ceil(batch_size as u64))
    }
}

/// Returns whether checkpoints at these shares of training have different steps.
fn are_distinct(checkpoints: &[f64], steps: u64) -> bool {
    let mut at: Vec<u64> = checkpoints.iter().map(|share| trainer::step_at(*share, steps)).collect();
    at.dedup();
    at.len() == checkpoints.len()
}

/// Returns the subjects of a cell, or of the supervised policy.
fn subjects<'a>(grid: &'a Grid, of: Option<&'a Cell>) -> impl Iterator<Item = &'a Subject> {
    grid.subjects().iter().filter(move |subject| match subject {
        Subject::Baseline { .. } => of.is_none(),
        Subject::Trained { cell, .. } => of == Some(cell),
    })
}

fn pace(runs: &[RunDir]) -> Result<Pace, ExperimentError> {
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
