#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod analysis;
mod cell;
mod checkpoints;
mod decision;
mod describe;
mod digests;
mod error;
mod evaluated;
mod evaluation;
mod failure;
mod fitted;
mod given_policies;
mod given_policy;
mod grid;
mod judges;
mod plan;
mod pools;
mod registry;
pub mod results;
mod runner;
mod schedule;
mod scorers;
pub mod setup;
mod shard;
mod source;
mod store;
mod tally;

pub use analysis::{Analysis, LEVEL, RESAMPLES, SCORE_DECIMALS, Selection, by_category};
pub use cell::{Cell, Subject, loss_name, percent, reduction_name, slice_name};
pub use describe::describe;
pub use error::ExperimentError;
pub use evaluated::{BENCHMARK, Collected, Evaluated, Evaluation, EvaluationId, FURTHER, GOLD, Score};
pub use evaluation::prompt;
pub use failure::{Failure, note_of_failures, table_of_failures};
pub use fitted::{Fitted, FittedLabels};
pub use given_policy::GivenPolicy;
pub use grid::{Axes, Grid};
pub use plan::{
    ASSUMED_ANSWER_SECONDS, ASSUMED_STEP_SECONDS, Disk, Forecast, GroupForecast, JudgingCost, Pace, Plan,
    Work,
};
pub use pools::{PolicyGroup, Pool, Pools};
pub use registry::{PolicyAnswers, Registry};
pub use runner::Runner;
pub use schedule::{Crew, Launch, Workers, cores};
pub use scorers::{Scorer, Scorers};
pub use setup::Setup;
pub use shard::{Role, Shard};
pub use source::DataSource;
pub use store::{Key, ResultStore};
