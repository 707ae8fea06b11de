#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bench_study;
mod chromium;
mod http;
mod mock_batches;
mod mock_server;
mod ports;

use std::path::PathBuf;

pub use bench_study::{bench_questions, rates_by_length};
pub use chromium::Chromium;
pub use mock_batches::{BatchFate, MockBatchBehaviour, MockBatchServer};
pub use mock_server::{MockBehaviour, MockCall, MockFault, MockServer};
pub use ports::free_port;

/// Settings of a sandbox that trains in seconds; its results have no meaning.
pub const SMALL_SANDBOX: [&str; 9] = [
    "sandbox.demonstrations=160",
    "sandbox.strong_demonstrations=64",
    "sandbox.pairs=48",
    "sandbox.held_out=8",
    "sandbox.further_questions=16",
    "sandbox.max_new_tokens=24",
    "study.questions=8",
    "study.seeds=1",
    "train.epochs=2",
];

/// Largest difference between a log-probability (nats) of ours and a reference implementation's, per sequence, fp32.
pub const SEQUENCE_LOGP_NATS: f64 = 1e-3;
/// Largest absolute difference between fp32 logits of ours and of transformers on tiny models.
pub const LOGITS_FP32: f64 = 2e-5;
/// Largest difference between a loss of ours and TRL's over a trajectory, fp32.
pub const TRAJECTORY_LOSS: f64 = 2e-5;
/// The same of IPO over sums, relative to its first loss of 25. The square amplifies differences between
/// log-probabilities of about 200 nats tenfold. On another processor, TRL itself differs from its recording by up to
/// 2.8e-5 (`trl_fifty.py --compare`). The tolerance is twice that.
pub const TRAJECTORY_LOSS_IPO_SUM: f64 = 6e-5;
/// Largest relative difference between a gradient norm of ours and TRL's over a trajectory, fp32.
pub const TRAJECTORY_GRAD_NORM: f64 = 1e-3;
/// Largest difference between a mean reward margin of ours and TRL's over a trajectory, β times nats, fp32.
pub const TRAJECTORY_MARGIN: f64 = 1e-4;
/// Largest difference between a mean log-probability of ours and TRL's over a trajectory, nats a sequence, fp32.
pub const TRAJECTORY_LOGPS: f64 = 5e-3;
/// Largest relative difference between two fp32 computations of the same quantity in another order.
pub const REORDERED_FP32: f64 = 1e-5;
/// Largest absolute difference between closed forms in f64 and their recorded values.
pub const CLOSED_FORM: f64 = 1e-12;

/// Returns the folder of `PREF_REAL_DATA`, or prints that `test` is skipped and returns `None`.
pub fn real_data(test: &str) -> Option<PathBuf> {
    from_environment("PREF_REAL_DATA", test)
}

/// Returns the Hugging Face folder of `PREF_REAL_MODEL`, or prints that `test` is skipped and returns `None`.
pub fn real_model(test: &str) -> Option<PathBuf> {
    from_environment("PREF_REAL_MODEL", test)
}

#[expect(clippy::print_stderr, reason = "a skipped test prints it")]
fn from_environment(variable: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("SKIPPED {test}: {variable} is not set");
    }
    path
}
