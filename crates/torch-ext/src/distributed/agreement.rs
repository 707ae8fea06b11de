//! Control messages between ranks: rendezvous, descriptions of calls, and failures.
//!
//! Gloo and NCCL do not check their callers. An extra rank, or tensors of different sizes, cause a hang, wrong results or a crash.
//! Ranks therefore rendezvous in the store, and compare each call there, with one small request that does not block.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::rank::Rank;
use super::store::Store;
use crate::TorchExtError;

/// Number of recent calls in the store. A rank that is further behind is not compared.
const SLOTS: u64 = 64;
/// The polling interval.
const POLL: Duration = Duration::from_millis(10);
/// The timeout of reporting a failure, whose cause may be the network.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The key of the first failure.
const FAILURE: &str = "failure";

/// The control messages of one group.
#[derive(Debug)]
pub(crate) struct Agreement {
    store: Store,
    rank: Rank,
    /// The number of calls, and the last description in each slot.
    calls: Mutex<(u64, Vec<String>)>,
}

impl Agreement {
    /// Waits for all ranks in `store`, which has a prefix of its own for the group.
    pub(crate) fn join(store: Store, rank: Rank, timeout: Duration) -> Result<Self, TorchExtError> {
        let calls = Mutex::new((0, vec![String::new(); SLOTS as usize]));
        let group = Self { store, rank, calls };
        group.rendezvous(timeout).inspect_err(|error| group.give_up(error))?;
        Ok(group)
    }

    fn rendezvous(&self, timeout: Duration) -> Result<(), TorchExtError> {
        let (rank, world_size) = (self.rank.index(), self.rank.world_size());
        let here = world_size.to_string();
        let there = self.store.compare_set("world-size", b"", here.as_bytes())?;
        if there != here.as_bytes() {
            let there = String::from_utf8_lossy(&there).into_owned();
            return Err(TorchExtError::WorldSizeMismatch { rank, here: world_size, there });
        }
        if self.store.add(&present(rank), 1)? > 1 {
            return Err(TorchExtError::RankTwice { rank });
        }
        self.store.add("here", 1)?;
        let began = Instant::now();
        while self.store.add("here", 0)? < world_size as i64 {
            if let Some(reason) = self.failure()? {
                return Err(TorchExtError::OtherRank { reason });
            }
            if began.elapsed() >= timeout {
                let is_missing = |&rank: &usize| !self.store.contains(&present(rank)).unwrap_or(false);
                let missing = (0..world_size).filter(is_missing).collect();
                let seconds = timeout.as_secs_f64();
                return Err(TorchExtError::RanksMissing { missing, world_size, seconds });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Compares the next call, `what`, with that of other ranks.
    pub(crate) fn check(&self, what: &str) -> Result<(), TorchExtError> {
        let (number, slots) = &mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = *number % SLOTS;
        let here = format!("{number}: {what}");
        let before = std::mem::replace(&mut slots[slot as usize], here.clone());
        *number += 1;
        let there = self.store.compare_set(&format!("call-{slot}"), before.as_bytes(), here.as_bytes())?;
        let there = String::from_utf8_lossy(&there).into_owned();
        let is_later_round =
            there.split_once(':').and_then(|(n, _)| n.parse().ok()).is_some_and(|n: u64| n >= *number);
        if there == here || is_later_round {
            return Ok(());
        }
        Err(TorchExtError::Disagreement { rank: self.rank.index(), here, there })
    }

    /// Reports a failure of this rank, unless another rank reported one first.
    pub(crate) fn give_up(&self, error: &TorchExtError) {
        let is_reported = matches!(error, TorchExtError::OtherRank { .. } | TorchExtError::Unusable { .. });
        if !is_reported {
            self.give_up_because(&error.to_string());
        }
    }

    /// As [`give_up`](Self::give_up), with a text.
    pub(crate) fn give_up_because(&self, reason: &str) {
        let reason = format!("rank {} failed: {reason}", self.rank.index());
        // Without a store there is no way to report.
        let store = self.store.within(REPORT_TIMEOUT.min(self.store.timeout()));
        let _ = store.compare_set(FAILURE, b"", reason.as_bytes());
    }

    /// Returns the first reported failure, if any.
    pub(crate) fn failure(&self) -> Result<Option<String>, TorchExtError> {
        let store = self.store.within(REPORT_TIMEOUT.min(self.store.timeout()));
        if !store.contains(FAILURE)? {
            return Ok(None);
        }
        let reason = store.get(FAILURE, store.timeout())?;
        Ok(Some(String::from_utf8_lossy(&reason).into_owned()))
    }
}

fn present(rank: usize) -> String {
    format!("rank-{rank}")
}
