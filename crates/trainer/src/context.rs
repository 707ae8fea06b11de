//! What a run is given from outside: a clock, somebody who watches, a signal to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use distributed::ProcessGroup;

/// Tells the time. Training never looks at a clock of its own, so that a run can be repeated.
pub trait Clock {
    /// Seconds since some fixed moment, never going backwards.
    fn seconds(&self) -> f64;

    /// Seconds since 1970.
    fn unix_seconds(&self) -> f64;
}

/// Watches long work, on a terminal or in a log.
pub trait Progress {
    /// Work of `total` parts begins.
    fn begin(&mut self, what: &str, total: u64);

    /// `done` parts are done; `note` says what they measured.
    fn advance(&mut self, done: u64, note: &str);

    /// The work ended.
    fn end(&mut self);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64, _: &str) {}
    fn end(&mut self) {}
}

/// What a run is given from outside.
pub struct Context<'a> {
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Watches.
    pub progress: &'a mut dyn Progress,
    /// Set (by a signal handler) to stop after the step under way, with a checkpoint.
    pub stop: &'a AtomicBool,
    /// The processes that train together; [`ProcessGroup::alone`] for one.
    pub group: ProcessGroup,
    /// Where the reference's log-probabilities and tokens are kept for other runs. Without it a run keeps its own
    /// log-probabilities, and tokenises when it starts.
    pub cache: Option<std::path::PathBuf>,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("stop", self.stop).field("cache", &self.cache).finish()
    }
}

impl Context<'_> {
    /// Whether somebody asked to stop.
    pub fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
