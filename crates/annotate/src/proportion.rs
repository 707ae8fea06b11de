//! Proportions with their intervals.

use std::fmt;

use report::table::Value;
use serde::{Deserialize, Serialize};
use stats::wilson_interval;

/// A proportion, shown with its 95% Wilson interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proportion {
    /// The number of successes.
    pub successes: u64,
    /// The number of trials.
    pub trials: u64,
}

impl fmt::Display for Proportion {
    /// Writes `3 of 40 (7.5%)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.successes, self.trials)?;
        if self.trials == 0 {
            return Ok(());
        }
        write!(f, " ({:.1}%)", 100.0 * self.successes as f64 / self.trials as f64)
    }
}

impl Proportion {
    /// Returns the proportion with one more trial.
    pub(crate) fn and(mut self, success: bool) -> Self {
        self.add(success);
        self
    }

    pub(crate) fn add(&mut self, success: bool) {
        self.successes += u64::from(success);
        self.trials += 1;
    }

    pub(crate) fn cell(self) -> Value {
        let Ok(interval) = wilson_interval(self.successes, self.trials, 0.95) else {
            return Value::missing("no data");
        };
        let percent = 100.0 * self.successes as f64 / self.trials as f64;
        Value::Interval {
            value: percent,
            low: 100.0 * interval.low,
            high: 100.0 * interval.high,
            decimals: 1,
        }
    }
}
