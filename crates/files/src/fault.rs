//! Fault points: named places where a test ends the process, as a crash would.
//!
//! A point does nothing unless the environment variable [`VARIABLE`] names it.
//! Only tests set it: for them, a crash at a known place replaces a kill at a moment that depends on the machine.

use std::env;
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Holds `NAME=COUNT`: the process aborts when it reaches the point `NAME` for the `COUNT`-th time.
/// `NAME=COUNT@RANK` restricts this to the process whose `RANK` variable is `RANK`.
pub const VARIABLE: &str = "PREFERENCE_FAULT_POINT";

/// A fault that this process was started with.
struct Fault {
    name: String,
    count: u64,
    reached: AtomicU64,
}

impl Fault {
    /// Returns `None` for a fault of another rank and for text that is no fault.
    fn parse(text: &str, rank: Option<&str>) -> Option<Self> {
        let (name, place) = text.split_once('=')?;
        let count = match place.split_once('@') {
            Some((count, wanted)) => count.parse().ok().filter(|_| rank == Some(wanted))?,
            None => place.parse().ok()?,
        };
        Some(Self { name: name.to_owned(), count, reached: AtomicU64::new(0) })
    }

    /// Counts a pass through `name`, and returns whether it is the one that fails.
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.reached.fetch_add(1, Ordering::Relaxed) + 1 == self.count
    }
}

/// Aborts the process if [`VARIABLE`] names this pass through `name`. Does nothing otherwise.
pub fn point(name: &str) {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let fault = FAULT.get_or_init(|| {
        let rank = env::var("RANK").ok();
        Fault::parse(&env::var(VARIABLE).ok()?, rank.as_deref())
    });
    if fault.as_ref().is_some_and(|fault| fault.is_due(name)) {
        process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_due_once_at_its_count() {
        let fault = Fault::parse("step=2", None).unwrap();
        let due = ["step", "other", "step", "step"].map(|name| fault.is_due(name));
        assert_eq!(due, [false, false, true, false]);
    }

    #[test]
    fn a_rank_restricts_a_fault() {
        assert!(Fault::parse("step=2@1", Some("1")).is_some());
        assert!(Fault::parse("step=2@1", Some("0")).is_none() && Fault::parse("step=2@1", None).is_none());
    }

    #[test]
    fn other_text_is_no_fault() {
        assert!(["", "step", "step=", "step=x", "step=1x@0"].iter().all(|t| Fault::parse(t, Some("0")).is_none()));
    }
}
