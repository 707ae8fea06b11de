//! The environment of a run: a clock, progress, a stop flag, the ranks.

use std::sync::atomic::{AtomicBool, Ordering};

use distributed::ProcessGroup;

/// A clock. Training reads no clock of its own, so that a run is repeatable.
pub trait Clock {
    /// Returns the seconds since some fixed moment; never decreases.
    fn seconds(&self) -> f64;

    /// Returns the seconds since 1970.
    fn unix_seconds(&self) -> f64;
}

/// Reports progress, on a terminal or in a log.
pub trait Progress {
    /// Starts work of `total` parts.
    fn begin(&mut self, what: &str, total: u64);

    /// Reports that `done` parts are done, with their measurements in `note`.
    fn advance(&mut self, done: u64, note: &str);

    /// Ends the work.
    fn end(&mut self);

    /// Reports the state of all work that the following work is a part of.
    fn overall(&mut self, _: Overall) {}
}

/// The target of events at level INFO that announce a decision about the user's data or recipe, such as dropped pairs. Programs
/// show them where they hide other INFO events.
pub const ANNOUNCED: &str = "announced";

/// The state of work that consists of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overall {
    /// Finished runs.
    pub done: usize,
    /// All runs.
    pub runs: usize,
    /// The finished share of the work that remained at the beginning.
    pub share: f64,
    /// The share of the run that begins; 0 if other processes compute the runs.
    pub next: f64,
}

/// A no-op [`Progress`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64, _: &str) {}
    fn end(&mut self) {}
}

/// A [`Clock`] that always shows 0, for tests and examples.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoClock;

impl Clock for NoClock {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn unix_seconds(&self) -> f64 {
        0.0
    }
}

/// The environment of a run.
pub struct Context<'a> {
    /// The clock.
    pub clock: &'a dyn Clock,
    /// Reports progress.
    pub progress: &'a mut dyn Progress,
    /// Set (by a signal handler) to stop after the current step, with a checkpoint.
    pub stop: &'a AtomicBool,
    /// The processes that train together; [`ProcessGroup::single`] for one.
    pub group: ProcessGroup,
    /// The cache folder for reference log-probabilities and tokens, shared by runs. Without it, a run caches its own
    /// log-probabilities in its folder, and tokenizes at each start.
    pub cache: Option<std::path::PathBuf>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("stop", self.stop).field("cache", &self.cache).finish()
    }
}

impl Context<'_> {
    /// Returns whether a stop was requested.
    pub fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
