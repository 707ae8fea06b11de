//! What was paid, and what may still be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{Error, Usage};

/// One call that was paid, or may have been: a line of `ledger.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// When the call ended, in seconds since 1970.
    pub unix_seconds: f64,
    /// The server's address.
    pub address: String,
    /// The model.
    pub model: String,
    /// The request's key in the cache.
    pub key: String,
    /// `answered`, or the [kind](crate::Failure::kind) of a failure after which a server may send a bill all the same.
    pub outcome: String,
    /// Tokens, where they are known.
    pub usage: Option<Usage>,
    /// The cost in USD, where tokens and price are known; for a call without an answer its upper bound.
    pub usd: Option<f64>,
}

/// What the calls of a ledger come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Calls that were answered.
    pub answered: u64,
    /// Calls without a whole answer that may be billed all the same.
    pub unanswered: u64,
    /// Tokens, as far as they are known.
    pub usage: Usage,
    /// Costs in USD, as far as they are known.
    pub usd: f64,
    /// Calls whose cost is not known.
    pub unpriced: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, row: &LedgerRow) {
        if row.outcome == ANSWERED {
            self.answered += 1
        } else {
            self.unanswered += 1
        }
        let usage = row.usage.unwrap_or_default();
        self.usage.prompt_tokens += usage.prompt_tokens;
        self.usage.completion_tokens += usage.completion_tokens;
        self.usd += row.usd.unwrap_or(0.0);
        self.unpriced += u64::from(row.usd.is_none());
    }
}

/// The outcome of a call that was answered.
pub(crate) const ANSWERED: &str = "answered";

/// A file to which every paid call appends a line.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens the ledger at `path`. A last line that a killed process left half-written is dropped.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let open = || {
            let whole = match fs::read(path) {
                Ok(bytes) => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(error),
            };
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            file.set_len(whole as u64)?;
            Ok(file)
        };
        let file = open().map_err(|source| Error::Io { action: "write", path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn append(&mut self, row: &LedgerRow) -> Result<(), Error> {
        let mut line = serde_json::to_string(row).expect("a row has string keys and finite numbers");
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| Error::Io { action: "write", path: self.path.clone(), source })
    }
}

/// The rows of a ledger; none where there is no file.
///
/// # Errors
///
/// [`Error::Io`] and [`Error::Line`].
pub fn read_ledger(path: &Path) -> Result<Vec<LedgerRow>, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Io { action: "read", path: path.to_owned(), source }),
    };
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    (1..)
        .zip(text[..whole].lines())
        .map(|(line, row)| {
            serde_json::from_str(row).map_err(|error| Error::Line {
                path: path.to_owned(),
                line,
                problem: error.to_string(),
            })
        })
        .collect()
}

/// Keeps costs below a limit: a call reserves the most that it can cost before it is made.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: Option<f64>,
    state: Mutex<Spending>,
    settled: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spending {
    spent: f64,
    reserved: f64,
}

/// What a call under way may cost. Dropped without [`settle`](Self::settle), it costs nothing.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    budget: &'a Budget,
    usd: f64,
}

impl Budget {
    pub(crate) fn new(limit: Option<f64>) -> Self {
        Self { limit, state: Mutex::default(), settled: Notify::new() }
    }

    pub(crate) fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    /// Sets `most` aside. Where calls under way hold what is left, it waits for them, since they nearly always cost less.
    ///
    /// # Errors
    ///
    /// [`Error::Budget`] if `most` is more than what is left when nothing is under way.
    pub(crate) async fn reserve(&self, most: f64) -> Result<Reservation<'_>, Error> {
        loop {
            // Registered before the look at the state, so that no settlement in between is missed.
            let settled = self.settled.notified();
            {
                let mut state = self.state();
                let limit = self.limit.unwrap_or(f64::INFINITY);
                if state.spent + most > limit {
                    return Err(Error::Budget { spent: state.spent, limit, next: most });
                }
                if state.spent + state.reserved + most <= limit {
                    state.reserved += most;
                    return Ok(Reservation { budget: self, usd: most });
                }
            }
            settled.await;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Spending> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// The most that the call can cost.
    pub(crate) fn most(&self) -> f64 {
        self.usd
    }

    /// The call cost `usd`.
    pub(crate) fn settle(self, usd: f64) {
        self.budget.state().spent += usd;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.state().reserved -= self.usd;
        self.budget.settled.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn a_call_that_could_break_the_limit_waits_for_those_under_way_or_is_refused() {
        let budget = Budget::new(Some(1.0));
        let reserve = |most| budget.reserve(most).now_or_never();
        let first = reserve(0.75).unwrap().unwrap();
        assert!(reserve(0.5).is_none(), "0.75 may still turn out to be 0.1");
        first.settle(0.25);
        let second = reserve(0.5).unwrap().unwrap();
        drop(second);
        assert!(reserve(0.75).unwrap().is_ok(), "what was dropped costs nothing");
        let refused = reserve(0.8).unwrap().unwrap_err();
        assert!(matches!(refused, Error::Budget { spent: 0.25, limit: 1.0, next: 0.8 }), "{refused}");
        assert!(Budget::new(None).reserve(1e9).now_or_never().unwrap().is_ok());
    }

    #[test]
    fn a_line_that_was_cut_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        assert_eq!(read_ledger(&path).unwrap(), []);
        let row = LedgerRow {
            unix_seconds: 1.5,
            address: "http://x".to_owned(),
            model: "m".to_owned(),
            key: "k".to_owned(),
            outcome: ANSWERED.to_owned(),
            usage: Some(Usage { prompt_tokens: 10, completion_tokens: 2 }),
            usd: None,
        };
        Ledger::open(&path).unwrap().append(&row).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{}", &whole[..20])).unwrap();
        assert_eq!(read_ledger(&path).unwrap(), std::slice::from_ref(&row));
        Ledger::open(&path).unwrap().append(&row).unwrap();
        let rows = read_ledger(&path).unwrap();
        assert_eq!(rows, [row.clone(), row]);
        let mut totals = Totals::default();
        rows.iter().for_each(|row| totals.add(row));
        assert_eq!((totals.answered, totals.unpriced, totals.usage.prompt_tokens), (2, 2, 20));
        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(read_ledger(&path), Err(Error::Line { line: 1, .. })));
    }
}
