#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adapter_dropout;
mod card;
mod checkpoint;
mod context;
mod demonstrations;
mod diagnostics;
mod engine;
mod error;
mod finish;
mod gathered;
mod gradients;
mod held_out;
mod input;
mod kl_pairs;
mod machine;
mod metrics;
mod mixture;
mod moments;
mod objective;
mod optimizer;
mod pair_deltas;
mod pairwise;
mod parameters;
mod plan;
mod preview;
pub mod recipe;
mod reference;
mod region_sums;
mod replicas;
mod router_loss;
mod run;
mod run_checks;
mod run_dir;
mod run_inputs;
mod schedule;
mod scoring;
mod seen;
mod sequences;
mod settings;
mod span;
mod state;
mod stopping;
mod tensorboard;
mod training_data;
mod unpaired;

pub use adapter_dropout::StepDropout;
pub use context::{ANNOUNCED, Clock, Context, NoClock, Overall, Progress, Silent};
pub use engine::{Observer, Outcome, Trainer};
pub use error::{TrainError, is_bad_model};
pub use gathered::load_over_ranks;
pub use gradients::Gradients;
pub use held_out::{HeldOut, HeldOutDialogues, HeldOutMetrics, HeldOutPreference, HeldOutSet, OwnAnswers};
pub use kl_pairs::KlPairs;
pub use machine::Machine;
pub use metrics::{MetricSums, PreferenceMetrics, StepMetrics, UnpairedMetrics, UnpairedSums};
pub use moments::MomentKind;
pub use objective::{
    BatchContext, ComparedPairs, Loss, Objective, PreferenceObjective, StepStats, SupervisedObjective,
};
pub use optimizer::{AdamW, AdamWSettings};
pub use pair_deltas::{PairDelta, TrainedPair};
pub use pairwise::PairwiseLoss;
pub use parameters::Trained;
pub use plan::{
    AtStage, Cluster, LargestModel, Memory, OnCluster, PlannedReference, PlannedTime, Precision, TokenCounts,
    TrainPlan, WidestMicroBatch, largest_models, plan,
};
pub use preview::{Preview, PreviewedCompletion, PreviewedPair, preview};
pub use reference::SequenceLogps;
pub use run::{RunReport, SupervisedRun, run, run_supervised};
pub use run_dir::{RunDir, Start};
pub use schedule::{Decay, DecayShape, Schedule};
pub use scoring::{Activations, Head, Scoring};
pub use settings::{Length, MicroBatch, Order, TrainSettings, step_at};
pub use state::TrainerState;
pub use stopping::{EarlyStopping, HeldOutMetric};
pub use tensorboard::EventWriter;
pub use unpaired::{Mismatched, UnpairedObjective};
