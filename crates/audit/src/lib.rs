#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod auc;
mod audit;
mod broken;
mod clean;
mod contents;
mod dataset;
mod dawid_skene;
mod deltas;
mod diff;
mod duplicates;
mod enough;
mod error;
mod fault;
mod features;
mod folds;
mod interval;
mod leakage;
mod learning_curve;
mod logistic;
mod near;
mod noise;
mod page;
#[cfg(test)]
mod peers;
mod ranking;
mod result;
mod shortcuts;
mod sources;
mod text;
mod verdict;

pub use auc::Auc;
pub use audit::{Options, audit};
pub use clean::{Action, Change, CleanOptions, CleanReport, clean};
pub use contents::{Contents, Lengths};
pub use dataset::{Dataset, LabeledPair, ReadAs, Unpaired};
pub use deltas::PairDeltas;
pub use diff::{Diff, Difference, diff};
pub use enough::{Enough, Plan, Prices};
pub use error::AuditError;
pub use fault::{Example, Fault, Faults, Finding};
pub use leakage::{Bench, HeldOutOverlap, Leakage};
pub use learning_curve::{CurvePoint, Gain, LearningCurve};
pub use noise::{NoiseEstimate, NoiseMethod};
pub use result::{Audit, Duplicates};
pub use shortcuts::Shortcut;
