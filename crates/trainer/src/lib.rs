//! Supervised and preference training of policies.
//!
//! [`run`] turns a [`Recipe`](recipe::Recipe) into a trained model: it reads and tokenises the data, takes the
//! reference's log-probabilities once, trains, and leaves a folder with metrics, checkpoints and a Hugging Face model.
//! Below it, [`Trainer`] minimises any [`Objective`] and tells an [`Observer`] of every step; it knows of no file, no
//! terminal and no clock.
//!
//! Same seed, same bytes: the same build on the same type of CPU with the same number of threads repeats weights,
//! checkpoints and metrics (but for `step_seconds`).

#![forbid(unsafe_code)]

mod checkpoint;
mod context;
mod engine;
mod error;
mod gradients;
mod held_out;
mod input;
mod metrics;
mod mismatched;
mod objective;
mod optimizer;
mod pair_deltas;
mod parameters;
mod plan;
pub mod recipe;
mod reference;
mod replicas;
mod run;
mod run_dir;
mod schedule;
mod scoring;
mod sequences;
mod span;
mod tensorboard;
mod watch;

pub use context::{Clock, Context, Progress, Silent};
pub use engine::{MicroBatch, Observer, Order, Outcome, TrainSettings, Trainer, TrainerState};
pub use error::{TrainError, is_bad_model};
pub use gradients::Gradients;
pub use held_out::{HeldOut, HeldOutMetrics, OwnAnswers};
pub use metrics::{PreferenceMetrics, StepMetrics};
pub use mismatched::Mismatched;
pub use objective::{Loss, Objective, PreferenceObjective, StepStats, SupervisedObjective};
pub use optimizer::{AdamW, AdamWSettings};
pub use pair_deltas::{PairDelta, TrainedPair};
pub use parameters::Trained;
pub use plan::{
    Cluster, Memory, OnCluster, Plan, PlannedReference, PlannedTime, TokenCounts, WidestMicroBatch, plan,
};
pub use reference::SequenceLogps;
pub use run::{RunReport, SupervisedRun, run, run_supervised};
pub use run_dir::{RunDir, Start};
pub use schedule::{Decay, Schedule};
pub use scoring::{Activations, Head, Scoring};
pub use tensorboard::EventWriter;
