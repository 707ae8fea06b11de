//! The research questions as grids over one engine.
//!
//! A [`Cell`] is one training run, a [`Grid`] the subjects that a [`Question`] asks for. The [`Runner`] trains and
//! evaluates what its [`ResultStore`] does not hold yet, [`conclude`] makes tables, figures and a report of it. All
//! four questions of the paper are grids over this engine, and a cell that stands in several is computed once.

#![forbid(unsafe_code)]

mod analysis;
mod answer;
mod answering_together;
mod asked;
mod cell;
mod claims;
mod contrast;
mod coverage;
mod describe;
mod error;
mod evaluate;
mod evidence;
mod failures;
mod figures;
mod findings;
mod fitted;
mod grid;
mod judges;
mod methods;
mod plan;
mod printed;
mod raters;
pub mod recipe;
mod registry;
mod report;
mod responder;
pub mod results;
mod runner;
mod scored_labels;
mod store;
mod sweep;
mod tables;
mod verdicts;
mod world;

pub use answering_together::{AnsweringTogether, Ending};
pub use cell::{Cell, Subject};
pub use describe::describe;
pub use error::StudyError;
pub use evaluate::{BENCHMARK, Evaluation, FURTHER, GOLD, Score};
pub use failures::Failure;
pub use findings::{Findings, conclude};
pub use fitted::{Fitted, FittedLabels};
pub use grid::{Grid, Question};
pub use plan::{ASSUMED_ANSWER_SECONDS, ASSUMED_STEP_SECONDS, Disk, Forecast, Pace, Plan, Work};
pub use registry::Registry;
pub use responder::{Asked, LoadedPolicy, PolicyResponder, chat_messages, tokenizer_with_template};
pub use runner::{Collected, Evaluated, Runner, Shard};
pub use scored_labels::{ScoreReduction, ScoredLabels, label_by_score};
pub use store::{Key, ResultStore};
pub use world::World;
