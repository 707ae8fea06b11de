//! Fault points: named places where a test ends or holds the process.
//!
//! A point does nothing unless the environment variable [`VARIABLE`] names it.
//! Only tests set it: for them, a crash at a known place replaces a kill at a moment that depends on the machine.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, process, thread};

/// Holds `NAME=COUNT`: the process aborts when it reaches the point `NAME` for the `COUNT`-th time. At a
/// [torn write](torn), it first cuts the file.
///
/// - `NAME=COUNT@RANK` restricts this to the process whose `RANK` variable is `RANK`.
/// - `NAME=COUNT:DIR` holds the process instead: it creates `DIR/held`, and goes on when `DIR/released` exists.
pub const VARIABLE: &str = "PREFERENCE_FAULT_POINT";

/// Time between two looks for the file that releases a held process.
const POLL: Duration = Duration::from_millis(5);

/// A fault that this process was started with.
struct Fault {
    name: String,
    count: u64,
    hold: Option<PathBuf>,
    reached: AtomicU64,
}

impl Fault {
    /// Returns `None` for a fault of another rank and for text that is no fault.
    fn parse(text: &str, rank: Option<&str>) -> Option<Self> {
        let (name, place) = text.split_once('=')?;
        let (place, hold) = match place.split_once(':') {
            Some((place, dir)) => (place, Some(dir.into())),
            None => (place, None),
        };
        let count = match place.split_once('@') {
            Some((count, wanted)) => count.parse().ok().filter(|_| rank == Some(wanted))?,
            None => place.parse().ok()?,
        };
        Some(Self { name: name.to_owned(), count, hold, reached: AtomicU64::new(0) })
    }

    /// Counts a pass through `name`, and returns whether it is the one that fails.
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.reached.fetch_add(1, Ordering::Relaxed) + 1 == self.count
    }

    fn happen(&self) {
        let Some(dir) = &self.hold else { process::abort() };
        // Without the file the test that waits for it fails; the process has nothing to report to.
        let _ = fs::create_dir_all(dir).and_then(|()| File::create(dir.join("held")));
        while !dir.join("released").exists() {
            thread::sleep(POLL);
        }
    }
}

/// Aborts or holds the process if [`VARIABLE`] names this pass through `name`. Does nothing otherwise.
pub fn point(name: &str) {
    if let Some(fault) = fault().filter(|fault| fault.is_due(name)) {
        fault.happen();
    }
}

fn fault() -> Option<&'static Fault> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let read = || {
        let rank = env::var("RANK").ok();
        Fault::parse(&env::var(VARIABLE).ok()?, rank.as_deref())
    };
    FAULT.get_or_init(read).as_ref()
}

/// Cuts half of the last `unsynced` bytes of the file `path` and aborts the process if [`VARIABLE`] names this pass through
/// `name`, as a power failure does to data that has not reached the disk. Does nothing otherwise.
pub fn torn(name: &str, path: &Path, unsynced: u64) {
    if fault().is_some_and(|fault| fault.is_due(name)) {
        let cut = |file: File| {
            let length = file.metadata()?.len();
            file.set_len(length - unsynced.min(length).div_ceil(2))
        };
        // Without the cut the test that expects a torn file fails.
        let _ = OpenOptions::new().write(true).open(path).and_then(cut);
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
    fn a_held_process_goes_on_when_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let fault = Fault::parse(&format!("step=1@0:{}", dir.path().display()), Some("0")).unwrap();
        File::create(dir.path().join("released")).unwrap();
        fault.happen();
        assert!(fault.is_due("step") && dir.path().join("held").exists());
    }

    #[test]
    fn other_text_is_no_fault() {
        assert!(
            ["", "step", "step=", "step=x", "step=1x@0"].iter().all(|t| Fault::parse(t, Some("0")).is_none())
        );
    }
}
