//! The folder of a client: replies and ledger, brought into agreement at the start.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use files::{Lock, LockError};

use crate::batch_store::BatchStore;
use crate::cache::{Cache, Entry, RequestKey};
use crate::chat::Reply;
use crate::error::Error;
use crate::ledger::{ANSWERED, INTERRUPTED, Ledger, LedgerRow, SENT};
use crate::prices::Prices;

/// The name of the ledger in a client's folder.
pub const LEDGER: &str = "ledger.jsonl";

/// The folder of one client.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) cache: Cache,
    pub(crate) batches: BatchStore,
    _lock: Lock,
}

/// The differences between replies and ledger that an earlier process left, and their repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Calls in flight when an earlier process ended. They may be billed, and are billed twice if they are made again.
    pub interrupted: u64,
    /// Replies that the ledger lacked. They are now in it.
    pub booked: u64,
    /// Answered calls whose replies are missing or damaged. They are billed twice if they are made again.
    pub lost: u64,
}

impl Store {
    /// Opens `folder` and repairs its ledger at time `now`.
    pub(crate) fn open(folder: &Path, prices: &Prices, now: f64) -> Result<(Self, Ledger, Recovery), Error> {
        let io = |source| Error::Io { action: "write", path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let lock = Lock::try_exclusive(&folder.join("lock")).map_err(|error| match error {
            LockError::Held { path } => Error::Locked { path },
            LockError::Io { path, source } => Error::Io { action: "write", path, source },
            other => io(std::io::Error::other(other)),
        })?;
        let cache = Cache::new(folder.join("replies"));
        let (mut ledger, rows) = Ledger::open(&folder.join(LEDGER))?;
        let recovery = recover(&cache, &mut ledger, &rows, prices, now)?;
        let batches = BatchStore::new(folder);
        Ok((Self { cache, batches, _lock: lock }, ledger, recovery))
    }
}

fn recover(
    cache: &Cache,
    ledger: &mut Ledger,
    rows: &[LedgerRow],
    prices: &Prices,
    now: f64,
) -> Result<Recovery, Error> {
    let mut recovery = Recovery::default();
    let replies: BTreeSet<RequestKey> = cache.keys()?.into_iter().collect();
    let answered = rows.iter().filter(|row| row.outcome == ANSWERED);
    let mut booked: BTreeSet<RequestKey> =
        answered.filter_map(|row| RequestKey::from_digits(&row.key)).collect();
    recovery.lost = booked.difference(&replies).count() as u64;
    for sent in rows.iter().filter(|row| row.outcome == SENT) {
        let key = RequestKey::from_digits(&sent.key).filter(|key| !booked.contains(key));
        // The process may have ended between the reply and its row.
        let entry = key.as_ref().map_or(Ok(None), |key| cache.entry(key))?;
        let mut end = LedgerRow { unix_seconds: now, ..sent.clone() };
        if let (Some(key), Some(entry)) = (key, entry) {
            end = answered_row(&key, &entry, prices, now);
            booked.insert(key);
            recovery.booked += 1;
        } else {
            INTERRUPTED.clone_into(&mut end.outcome);
            recovery.interrupted += 1;
        }
        ledger.append(&end)?;
    }
    for key in replies.difference(&booked) {
        if let Some(entry) = cache.entry(key)? {
            ledger.append(&answered_row(key, &entry, prices, now))?;
            recovery.booked += 1;
        }
    }
    Ok(recovery)
}

fn answered_row(key: &RequestKey, entry: &Entry, prices: &Prices, now: f64) -> LedgerRow {
    let Reply { model: of_server, usage, .. } = &entry.reply;
    let model =
        if entry.model.is_empty() { of_server.clone().unwrap_or_default() } else { entry.model.clone() };
    LedgerRow {
        unix_seconds: now,
        address: entry.address.clone(),
        key: key.as_str().to_owned(),
        outcome: ANSWERED.to_owned(),
        usage: *usage,
        usd: prices.of(&model).zip(*usage).map(|(price, usage)| entry.price_share * price.cost(usage)),
        model,
    }
}

impl Recovery {
    /// Logs what a user should know.
    pub(crate) fn log(&self) {
        if self.interrupted > 0 {
            tracing::warn!(
                "{} calls were in flight when an earlier process ended: they may be billed twice",
                self.interrupted
            );
        }
        if self.lost > 0 {
            tracing::warn!(
                "{} paid replies are missing: calls that need them are made, and billed, again",
                self.lost
            );
        }
        if self.booked > 0 {
            tracing::info!("{} replies were missing in the ledger and are now in it", self.booked);
        }
    }
}
