//! A clock for tests of plans and runs.

use std::cell::Cell;

use trainer::Clock;

/// A clock that advances by one second per reading.
#[derive(Default)]
pub(crate) struct Ticking(Cell<f64>);

impl Clock for Ticking {
    fn seconds(&self) -> f64 {
        self.0.set(self.0.get() + 1.0);
        self.0.get()
    }

    fn unix_seconds(&self) -> f64 {
        0.0
    }
}
