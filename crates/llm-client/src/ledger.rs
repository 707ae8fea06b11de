//! The ledger: calls in flight, paid calls, and the budget.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use files::json_lines::{self, JsonLinesError, Log};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::chat::Usage;
use crate::error::Error;

/// One event of a call: a line of `ledger.jsonl`. Every call has a line before it is sent and a line after its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The time of the event, in seconds since 1970.
    pub unix_seconds: f64,
    /// The server's address.
    pub address: String,
    /// The model.
    pub model: String,
    /// The request's key in the cache.
    pub key: String,
    /// `sent` before the call. After it `answered`, the [kind](crate::Failure::kind) of a failure, or `interrupted` if the
    /// process ended during the call.
    pub outcome: String,
    /// Token counts, if known.
    pub usage: Option<Usage>,
    /// The cost in USD, if the price is known. Without token counts it is the upper bound. A `sent` row has the bound.
    pub usd: Option<f64>,
}

/// The sums of a ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Answered calls.
    pub answered: u64,
    /// Calls without a complete answer that may be billed.
    pub unanswered: u64,
    /// Known token counts.
    pub usage: Usage,
    /// Known costs in USD.
    pub usd: f64,
    /// Calls of unknown cost.
    pub unpriced: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, row: &LedgerRow) {
        if row.outcome == ANSWERED {
            self.answered += 1;
        } else {
            self.unanswered += 1;
        }
        let usage = row.usage.unwrap_or_default();
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.usage.prompt_tokens, usage.prompt_tokens);
        add(&mut self.usage.completion_tokens, usage.completion_tokens);
        self.usd += row.usd.unwrap_or(0.0);
        self.unpriced += u64::from(row.usd.is_none());
    }
}

/// The outcome of a call in flight.
pub(crate) const SENT: &str = "sent";
/// The outcome of an answered call.
pub(crate) const ANSWERED: &str = "answered";
/// The outcome of a call whose process ended first.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// An append-only file of [`LedgerRow`]s.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
    log: Log,
}

impl Ledger {
    /// Opens the ledger at `path` and returns its rows without `sent` rows of calls that ended. A last line without its
    /// end is removed. Damaged lines are removed with a warning, and the file with them is kept under another name.
    pub(crate) fn open(path: &Path) -> Result<(Self, Vec<LedgerRow>), Error> {
        let write = |source: io::Error| Error::Io { action: "write", path: path.to_owned(), source };
        let (mut rows, mut intact, mut damaged) = (Vec::new(), String::new(), 0);
        for row in json_lines::checked(path).map_err(|error| line_error(path, error))? {
            match row {
                Ok((row, line)) => {
                    rows.push(row);
                    intact += &line;
                    intact.push('\n');
                }
                Err(_) => damaged += 1,
            }
        }
        if damaged > 0 {
            let copy = path.with_extension("damaged");
            tracing::warn!(
                "{damaged} damaged lines of {} are removed; {} has them",
                path.display(),
                copy.display()
            );
            fs::copy(path, copy).and_then(|_| Log::replace(path, intact.as_bytes())).map_err(write)?;
        }
        let log = Log::open(path).map_err(write)?;
        Ok((Self { path: path.to_owned(), log }, without_ended(rows)))
    }

    pub(crate) fn append(&mut self, row: &LedgerRow) -> Result<(), Error> {
        let failed = |source| Error::Io { action: "write", path: self.path.clone(), source };
        self.log.append(row).map_err(failed)
    }
}

/// Reads the rows of a ledger: calls that ended, and `sent` rows of calls in flight. A missing file has no rows.
///
/// # Errors
///
/// [`Error::Io`] and [`Error::Line`].
pub fn read_ledger(path: &Path) -> Result<Vec<LedgerRow>, Error> {
    let failed = |error| line_error(path, error);
    let rows = json_lines::checked(path).map_err(failed)?.into_iter();
    let rows = rows.map(|row| row.map(|(row, _)| row).map_err(failed)).collect::<Result<_, _>>()?;
    Ok(without_ended(rows))
}

fn line_error(path: &Path, error: JsonLinesError) -> Error {
    match error {
        JsonLinesError::Read { path, source } => Error::Io { action: "read", path, source },
        JsonLinesError::Damaged { path, line } => {
            let problem =
                "it differs from its checksum; a client that opens the folder repairs it".to_owned();
            Error::Line { path, line, problem }
        }
        JsonLinesError::Line { path, line, problem, .. } => Error::Line { path, line, problem },
        other => Error::Line { path: path.to_owned(), line: 0, problem: other.to_string() },
    }
}

/// Removes the `sent` row of every call that ended. A row of another outcome ends one call of its key.
fn without_ended(rows: Vec<LedgerRow>) -> Vec<LedgerRow> {
    let mut in_flight: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut keep = vec![true; rows.len()];
    for (index, row) in rows.iter().enumerate() {
        let of_key = in_flight.entry(&row.key).or_default();
        if row.outcome == SENT {
            of_key.push(index);
        } else if let Some(sent) = of_key.pop() {
            keep[sent] = false;
        }
    }
    rows.into_iter().zip(keep).filter_map(|(row, keep)| keep.then_some(row)).collect()
}

/// Keeps costs below a limit: a call reserves its maximum cost before it is made.
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

/// The maximum cost of a call in flight. Dropped without [`settle`](Self::settle), it costs nothing.
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

    /// Reserves `most`. Waits for calls in flight if they reserve the rest, since they nearly always cost less.
    ///
    /// # Errors
    ///
    /// [`Error::Budget`] if `most` exceeds the rest without calls in flight.
    pub(crate) async fn reserve(&self, most: f64) -> Result<Reservation<'_>, Error> {
        loop {
            // Registered before the state is read, so that no settlement in between is missed.
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

    /// Returns the part of the limit that is neither spent nor reserved, and the limit; infinite without one.
    pub(crate) fn rest(&self) -> (f64, f64) {
        let limit = self.limit.unwrap_or(f64::INFINITY);
        let state = self.state();
        (limit - state.spent - state.reserved, limit)
    }

    /// Reserves `usd`, which is known to be available.
    pub(crate) fn take(&self, usd: f64) -> Reservation<'_> {
        self.state().reserved += usd;
        Reservation { budget: self, usd }
    }

    /// Counts a cost without a reservation, such as that of a batch of an earlier process.
    pub(crate) fn spend(&self, usd: f64) {
        self.state().spent += usd;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Spending> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// Returns the maximum cost of the call.
    pub(crate) fn most(&self) -> f64 {
        self.usd
    }

    /// Books the cost of the call.
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
    fn a_call_that_could_exceed_the_limit_waits_for_calls_in_flight_or_is_refused() {
        let budget = Budget::new(Some(1.0));
        let reserve = |most| budget.reserve(most).now_or_never();
        let first = reserve(0.75).unwrap().unwrap();
        assert!(reserve(0.5).is_none(), "0.75 may still turn out to be 0.1");
        first.settle(0.25);
        let second = reserve(0.5).unwrap().unwrap();
        drop(second);
        assert!(reserve(0.75).unwrap().is_ok(), "a dropped reservation costs nothing");
        let refused = reserve(0.8).unwrap().unwrap_err();
        assert!(matches!(refused, Error::Budget { spent: 0.25, limit: 1.0, next: 0.8 }), "{refused}");
        assert!(Budget::new(None).reserve(1e9).now_or_never().unwrap().is_ok());
    }

    fn row(key: &str, outcome: &str) -> LedgerRow {
        LedgerRow {
            unix_seconds: 1.5,
            address: "http://x".to_owned(),
            model: "m".to_owned(),
            key: key.to_owned(),
            outcome: outcome.to_owned(),
            usage: Some(Usage { prompt_tokens: 10, completion_tokens: 2 }),
            usd: None,
        }
    }

    #[test]
    fn an_incomplete_last_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        assert_eq!(read_ledger(&path).unwrap(), []);
        let row = row("k", ANSWERED);
        Ledger::open(&path).unwrap().0.append(&row).unwrap();
        let complete = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{complete}{}", &complete[..20])).unwrap();
        assert_eq!(read_ledger(&path).unwrap(), std::slice::from_ref(&row));
        Ledger::open(&path).unwrap().0.append(&row).unwrap();
        let rows = read_ledger(&path).unwrap();
        assert_eq!(rows, [row.clone(), row]);
        let mut totals = Totals::default();
        rows.iter().for_each(|row| totals.add(row));
        assert_eq!((totals.answered, totals.unpriced, totals.usage.prompt_tokens), (2, 2, 20));
        fs::write(&path, "{}\n").unwrap();
        assert!(matches!(read_ledger(&path), Err(Error::Line { line: 1, .. })));
        assert_eq!(Ledger::open(&path).unwrap().1, [], "a damaged line stops no run");
    }

    #[test]
    fn a_changed_digit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        Ledger::open(&path).unwrap().0.append(&row("k", ANSWERED)).unwrap();
        let changed =
            fs::read_to_string(&path).unwrap().replace("\"prompt_tokens\":10", "\"prompt_tokens\":90");
        fs::write(&path, changed).unwrap();
        assert!(matches!(read_ledger(&path), Err(Error::Line { line: 1, .. })));
        assert_eq!(Ledger::open(&path).unwrap().1, []);
        assert_eq!(read_ledger(&path).unwrap(), []);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn calls_in_flight_are_those_without_an_end() {
        let rows = [
            row("a", SENT),
            row("b", SENT),
            row("a", "timeout"),
            row("a", SENT),
            row("c", ANSWERED),
            row("b", ANSWERED),
        ];
        let left = without_ended(rows.to_vec());
        assert_eq!(left, [2, 3, 4, 5].map(|at| rows[at].clone()));
    }
}
