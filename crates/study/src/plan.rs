//! What is left to compute of a grid, and what that takes; nothing runs.

use std::num::NonZeroU64;

use llm_client::{Prices, Usage};
use policy_model::ModelConfig;
use sandbox::{MAX_VOCAB_SIZE, Size};
use tch::Kind;
use trainer::{Clock, Cluster, Memory, RunDir, Start};

use crate::cell::{Cell, Subject};
use crate::error::StudyError;
use crate::grid::Grid;
use crate::judges;
use crate::recipe::{JudgeKind, JudgeSection};
use crate::runner::Runner;

/// Seconds an optimiser step of the sandbox takes where none was measured: 16 pairs, one core of a laptop.
pub const ASSUMED_STEP_SECONDS: f64 = 0.02;
/// Seconds an answer of the sandbox's policy takes, among many in a batch: one core of a laptop.
pub const ASSUMED_ANSWER_SECONDS: f64 = 0.0006;
/// Tokens of a judge's prompt and verdict for a plan: MT-Bench's prompts with two answers of some 300 words.
const CALL_TOKENS: Usage = Usage { prompt_tokens: 1_500, completion_tokens: 300 };
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
    /// Evaluations that the questions ask for, shared ones counted for each.
    pub asked: usize,
    /// How long a step takes.
    pub pace: Pace,
    /// Whether the policy is the sandbox's: of others no time is known before a step of theirs was measured.
    pub is_sandbox: bool,
    /// Who rates the answers.
    pub judge: String,
    /// What the verdicts that are left cost in USD, if a call takes what MT-Bench's take; `None` where the price is unknown.
    pub judging_usd: Option<f64>,
    /// Weights of the policy.
    pub parameters: u64,
    /// What these take in training.
    pub memory: Memory,
    /// What a training run leaves on the disk.
    pub disk: Disk,
    /// What one run tells of all; `None` before it was asked.
    pub forecast: Option<Forecast>,
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
    /// Of these, how many could not be had when that was last tried.
    pub failed: u64,
    /// Optimiser steps that are left, at most.
    pub steps: u64,
    /// Answers that are left to be generated, at most.
    pub answers: u64,
    /// Verdicts that are left to be asked for.
    pub judge_calls: u64,
}

/// What the steps of a grid take before any of them was made, as one of its runs tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds a step takes here, tried on layers of the model's width.
    pub step_seconds: f64,
    /// Which GPUs it is computed for.
    pub gpus: u64,
    /// Seconds a step takes on these together, by formula.
    pub cluster_step_seconds: f64,
    /// Whether their memory holds it.
    pub fits: bool,
}

/// What training runs take of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Of a run that is finished: its checkpoints' weights, and the policy once more.
    pub kept: u64,
    /// What a run under way has beside that at most, to go on from: masters and moments of one checkpoint, and of the next
    /// before that one goes.
    pub under_way: u64,
}

impl Disk {
    fn of(parameters: u64, kind: Kind, checkpoints: usize) -> Self {
        let policy = parameters * kind.elt_size_in_bytes() as u64;
        // A master and two moments, in fp32.
        let state = parameters * 3 * 4;
        Self { kept: policy * (checkpoints as u64 + 1), under_way: 2 * state }
    }
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
    /// No step of this grid is in the store; some were tried.
    Tried {
        /// Seconds a step.
        step_seconds: f64,
    },
    /// No step of this grid is in the store; the sandbox's are assumed to take [`ASSUMED_STEP_SECONDS`].
    Assumed,
}

impl Plan {
    /// Whether nothing is left to compute.
    pub fn is_complete(&self) -> bool {
        self.work().all(Work::is_complete)
    }

    /// Whether nothing is left to compute but what failed when it was last tried.
    pub fn is_settled(&self) -> bool {
        self.work().all(Work::is_settled)
    }

    /// All parts, in the order in which they are computed.
    pub fn work(&self) -> impl Iterator<Item = &Work> {
        [&self.preparation, &self.baseline].into_iter().chain(&self.cells)
    }

    /// Seconds that a part takes one worker: the sandbox's steps and answers, of another policy the steps. `None` where no
    /// step was measured and none can be assumed.
    pub fn seconds(&self, work: &Work) -> Option<f64> {
        let answer = if self.is_sandbox { ASSUMED_ANSWER_SECONDS } else { 0.0 };
        Some(work.steps as f64 * self.step_seconds()? + work.answers as f64 * answer)
    }

    /// Seconds an optimiser step takes, as far as that is known.
    pub fn step_seconds(&self) -> Option<f64> {
        match self.pace {
            Pace::Measured { step_seconds, .. } | Pace::Tried { step_seconds } => Some(step_seconds),
            Pace::Assumed => self.is_sandbox.then_some(ASSUMED_STEP_SECONDS),
        }
    }

    /// Seconds until all is done: one process prepares, then `workers` share the rest.
    pub fn seconds_with(&self, workers: usize) -> Option<f64> {
        let shared: Option<f64> =
            [&self.baseline].into_iter().chain(&self.cells).map(|work| self.seconds(work)).sum();
        Some(self.seconds(&self.preparation)? + shared? / workers.max(1) as f64)
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

    /// Whether nothing of it is left but what failed when it was last tried.
    pub fn is_settled(&self) -> bool {
        self.is_complete() || self.failed > 0 && self.evaluated + self.failed == self.evaluations
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
                None => Work { is_made: false, steps: self.steps_of(cell)?, ..work },
            });
        }
        let is_sandbox = world.is_sandbox();
        let config = match is_sandbox {
            true => ModelConfig::from_json(sandbox::model_config(Size::Small, MAX_VOCAB_SIZE))?,
            false => ModelConfig::from_folder(&world.model())?,
        };
        let parameters = config.parameter_count();
        let memory = Memory::of(parameters, recipe.model.dtype.kind());
        let judge_calls = [&baseline].into_iter().chain(&cells).map(|work| work.judge_calls).sum::<u64>();
        Ok(Plan {
            preparation,
            baseline,
            cells,
            asked: grid.asked(),
            pace: pace(&measured)?,
            is_sandbox,
            judge: judges::names(&recipe.judge).join(" and "),
            judging_usd: judging_usd(&recipe.judge, judge_calls)?,
            parameters,
            memory,
            disk: Disk::of(parameters, recipe.model.dtype.kind(), recipe.train.checkpoints.len()),
            forecast: None,
        })
    }

    /// `plan`, which is of `grid`, with a [`Forecast`] of what is left to train: one run is looked into and some layers are tried
    /// for a few seconds. In the sandbox, whose steps are assumed, nothing is tried.
    ///
    /// # Errors
    ///
    /// What is wrong with model or data.
    pub fn forecast(&self, plan: Plan, grid: &Grid, clock: &dyn Clock) -> Result<Plan, StudyError> {
        let left = grid.cells().into_iter().find(|cell| self.finished(cell).is_none());
        let Some(cell) = left.filter(|_| !plan.is_sandbox) else { return Ok(plan) };
        let world = self.world();
        let (records, held_out) = (world.records(cell.seed), world.held_out(cell.seed));
        let folder = self.run_folder(cell);
        self.recipe().train.take_threads();
        let recipe = self.recipe().of_cell(cell, &world.model(), &records, held_out.as_deref(), &folder);
        let run = trainer::plan(&recipe, Start::FreshOrResume, Cluster::a100s(8), clock)?;
        let steps = run.total_steps() as f64;
        let forecast = Forecast {
            step_seconds: run.time.training / steps,
            gpus: run.cluster.gpus,
            cluster_step_seconds: (run.on_cluster.computing + run.on_cluster.communicating) / steps,
            fits: run.on_cluster.fits,
        };
        let pace = match plan.pace {
            Pace::Assumed => Pace::Tried { step_seconds: forecast.step_seconds },
            measured => measured,
        };
        Ok(Plan { pace, forecast: Some(forecast), ..plan })
    }

    /// The evaluations of something that is made.
    fn evaluations<'a>(
        &self,
        what: String,
        subjects: impl Iterator<Item = &'a Subject>,
    ) -> Result<Work, StudyError> {
        let (mut evaluations, mut evaluated, mut failed) = (0, 0, 0);
        for subject in subjects {
            evaluations += 1;
            failed += u64::from(self.failure(subject)?.is_some());
            evaluated += u64::from(self.is_evaluated(subject));
        }
        let (questions, further) =
            (self.world().questions().len() as u64, self.world().further().len() as u64);
        let judge = &self.recipe().judge;
        let opinions: u64 = match judge.kind {
            JudgeKind::Sandbox => judges::names(judge).len() as u64,
            JudgeKind::Endpoint => judge.all().map(|judge| u64::from(judge.repeats.get())).sum(),
        };
        let left = evaluations - evaluated;
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

    /// Optimiser steps of a cell, at most: prompts with two equal responses make no pair.
    pub(crate) fn steps_of(&self, cell: &Cell) -> Result<u64, StudyError> {
        let train = &self.recipe().train;
        let pairs = (self.world().pairs()? as f64 * cell.fraction.get()).ceil() as u64;
        Ok(cell.epochs.map_or(train.epochs, NonZeroU64::get) * pairs.div_ceil(train.batch_size as u64))
    }
}

/// The subjects of `grid` that belong to one cell, or to the policy that all cells start from.
fn subjects<'a>(grid: &'a Grid, of: Option<&'a Cell>) -> impl Iterator<Item = &'a Subject> {
    grid.subjects().iter().filter(move |subject| match subject {
        Subject::Baseline { .. } => of.is_none(),
        Subject::Trained { cell, .. } => of == Some(cell),
    })
}

/// What `calls` cost, shared out over the judges by their opinions; the sandbox's cost nothing. `None` where a price is unknown.
fn judging_usd(judges: &JudgeSection, calls: u64) -> Result<Option<f64>, StudyError> {
    if judges.kind == JudgeKind::Sandbox {
        return Ok(Some(0.0));
    }
    let opinions = |judge: &JudgeSection| f64::from(judge.repeats.get());
    let of_all: f64 = judges.all().map(opinions).sum();
    let mut usd = Some(0.0);
    for judge in judges.all() {
        let prices =
            judge.pace.prices.iter().try_fold(Prices::listed(), |prices, path| prices.and_file(path))?;
        let calls = calls as f64 * opinions(judge) / of_all;
        let of_judge = prices.of(judge.model()).map(|price| calls * price.cost(CALL_TOKENS));
        usd = usd.zip(of_judge).map(|(usd, of_judge)| usd + of_judge);
    }
    Ok(usd)
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
