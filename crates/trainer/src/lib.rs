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
mod distributed;
mod engine;
mod error;
mod held_out;
mod input;
mod lanes;
mod metrics;
mod mismatched;
mod objective;
mod optimizer;
mod pair_deltas;
mod parameters;
mod plan;
mod preview;
pub mod recipe;
mod reference;
mod run;
mod run_dir;
mod schedule;
mod scoring;
mod tensorboard;
mod watch;

pub use context::{Clock, Context, Progress, Silent};
pub use distributed::{Exchange, Fact, Place, Sharding, Timing, World};
pub use engine::{MicroBatch, Observer, Order, Outcome, Snapshot, TrainSettings, Trainer};
pub use error::{TrainError, is_bad_model};
pub use held_out::{HeldOut, HeldOutMetrics, OwnAnswers};
pub use metrics::{PreferenceMetrics, StepMetrics};
pub use mismatched::Mismatched;
pub use objective::{Loss, Measured, Objective, PreferenceObjective, SupervisedObjective};
pub use optimizer::{AdamW, AdamWSettings};
pub use pair_deltas::{PairDelta, TrainedPair};
pub use parameters::{Gradients, Trained};
pub use plan::{
    Cluster, Memory, OnCluster, Plan, PlannedReference, PlannedTime, TokenCounts, WidestMicroBatch, plan,
};
pub use preview::{PreviewedPair, preview};
pub use reference::ReferenceLogps;
pub use run::{RunReport, SupervisedRun, run, run_supervised};
pub use run_dir::{RunDir, Start};
pub use schedule::{Decay, Schedule};
pub use scoring::{Activations, Head, Scoring};
pub use tensorboard::EventWriter;
pub use torch_ext::distributed::Rank;
