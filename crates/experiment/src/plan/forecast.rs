//! Forecasts of training on groups of GPUs, by formula.

use std::num::NonZeroU64;

use policy_model::ModelConfig;
use trainer::{Clock, Cluster, Memory, OnCluster, Start};

use super::{Pace, Plan};
use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::runner::Runner;

/// The share of a GPU's memory bandwidth that decoding reaches.
const DECODING_SHARE: f64 = 0.5;
/// Memory bandwidth of an A100 with 80 GB, in bytes per second.
const MEMORY_BANDWIDTH: f64 = 2.0e12;

/// The cost of training, estimated from one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Seconds per step of one process on this machine, measured on layers of the model's width.
    pub step_seconds: f64,
    /// The number of processes of the study.
    pub processes: u64,
    /// Memory of each GPU, in bytes.
    pub gpu_memory: u64,
    /// The study with groups of each size that divides the processes, in ascending order.
    pub groups: Vec<GroupForecast>,
    /// The smallest number of GPUs on which one cell fits, of 1, 2, 4 and so on up to a node of 8; `None` if none does.
    pub fitting: Option<u64>,
}

/// The remaining work on groups of GPUs of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupForecast {
    /// Processes per group.
    pub size: u64,
    /// The number of groups, each of which computes other cells.
    pub count: u64,
    /// Memory of each process while it trains.
    pub memory: Memory,
    /// Whether that fits.
    pub fits: bool,
    /// Seconds per step.
    pub step_seconds: f64,
    /// Seconds of all remaining training.
    pub training: f64,
    /// Seconds of all remaining answers, if each has the maximum length.
    pub answering: f64,
}

impl Runner {
    /// Adds a [`Forecast`] of the remaining training to the `plan` of `grid`, for a study with so many `processes`, from
    /// some layers that run for a few seconds. A plan of the sandbox stays as it is.
    ///
    /// # Errors
    ///
    /// If model or data cannot be read.
    pub fn forecast(
        &self,
        plan: Plan,
        grid: &Grid,
        processes: NonZeroU64,
        clock: &dyn Clock,
    ) -> Result<Plan, ExperimentError> {
        let left = grid.cells().into_iter().find(|cell| !self.is_trained(cell));
        let Some(cell) = left.filter(|_| !plan.is_sandbox) else { return Ok(plan) };
        let (setup, source) = (self.setup(), self.source());
        let (records, held_out) = (source.records(cell.seed), source.held_out(cell.seed));
        let folder = self.run_folder(cell);
        setup.train.take_threads();
        let recipe = setup.run_recipe(cell, &source.model(), &records, held_out.as_deref(), &folder);
        let run = trainer::plan(&recipe, Start::FreshOrResume, Cluster::a100s(processes.get()), clock)?;
        let steps = run.total_steps as f64;
        let config = ModelConfig::from_folder(&source.model())?;
        let waves =
            Waves { config: &config, tokens: setup.answers.max_new_tokens, batch: setup.answers.batch.get() };
        let group = |size: u64, on: &OnCluster| {
            GroupForecast::new(&plan, &waves, (size, processes.get() / size), on, steps)
        };
        let fits = |(_, on): &&(u64, OnCluster)| on.fits;
        let forecast = Forecast {
            step_seconds: run.time.training / steps,
            processes: processes.get(),
            gpu_memory: run.cluster.memory,
            groups: run.by_group.iter().map(|(size, on)| group(*size, on)).collect(),
            fitting: run.by_node.iter().find(fits).map(|(size, _)| *size),
        };
        let pace = match plan.pace {
            Pace::Assumed => Pace::Tried { step_seconds: forecast.step_seconds },
            measured => measured,
        };
        Ok(Plan { pace, forecast: Some(forecast), ..plan })
    }
}

/// Waves of answers.
struct Waves<'a> {
    config: &'a ModelConfig,
    /// The maximum length of an answer.
    tokens: u32,
    /// Answers per wave.
    batch: u16,
}

impl Waves<'_> {
    /// Returns the seconds in which one GPU decodes a wave of the longest answers: each token reads all weights, in bfloat16.
    fn seconds(&self) -> f64 {
        let bytes = 2.0 * self.config.parameter_count() as f64;
        f64::from(self.tokens) * bytes / (DECODING_SHARE * MEMORY_BANDWIDTH)
    }
}

impl GroupForecast {
    fn new(plan: &Plan, waves: &Waves<'_>, (size, count): (u64, u64), on: &OnCluster, steps: f64) -> Self {
        let step_seconds = (on.computing + on.communicating) / steps;
        // Groups take whole cells, so that the last ones may wait.
        let mut training = vec![0.0; count as usize];
        let mut answering = training.clone();
        for (index, work) in plan.work().filter(|work| work.steps > 0 || work.answers > 0).enumerate() {
            let group = index % training.len();
            training[group] += work.steps as f64 * step_seconds;
            let of_group = work.answers.div_ceil(u64::from(waves.batch)).div_ceil(size);
            answering[group] += of_group as f64 * waves.seconds();
        }
        let longest = |seconds: Vec<f64>| seconds.into_iter().fold(0.0, f64::max);
        Self {
            size,
            count,
            memory: on.memory,
            fits: on.fits,
            step_seconds,
            training: longest(training),
            answering: longest(answering),
        }
    }
}
