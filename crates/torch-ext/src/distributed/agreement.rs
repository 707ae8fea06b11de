//! What ranks tell each other beside the data: that they are all there, what they call, and why they gave up.
//!
//! Gloo and NCCL trust their callers. A rank too many, or two ranks whose tensors differ in size, end in a hang, in wrong
//! numbers, or with the end of the process. So ranks meet in the store first, and compare each call there: one small request,
//! which waits for nobody.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use super::{Rank, Store};
use crate::TorchExtError;

/// Calls whose description stays in the store. A rank that is further behind than that is not compared.
const SLOTS: u64 = 64;
/// How long it takes until somebody who waits looks again.
const POLL: Duration = Duration::from_millis(10);
/// How long somebody who has failed already speaks of it: the network may be what failed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Says why the first rank gave up.
const FAILURE: &str = "failure";

/// The ranks of one group, as they see each other in the store.
#[derive(Debug)]
pub(crate) struct Agreement {
    store: Store,
    rank: Rank,
    /// Calls made so far, and what was called last in each slot.
    calls: RefCell<(u64, Vec<String>)>,
}

impl Agreement {
    /// Comes together with all other ranks in `store`, which belongs to the group alone.
    pub(crate) fn join(store: Store, rank: Rank, timeout: Duration) -> Result<Self, TorchExtError> {
        let calls = RefCell::new((0, vec![String::new(); SLOTS as usize]));
        let group = Self { store, rank, calls };
        group.meet(timeout).inspect_err(|error| group.give_up(error))?;
        Ok(group)
    }

    fn meet(&self, timeout: Duration) -> Result<(), TorchExtError> {
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

    /// Compares the next call, `what`, with what other ranks call at this place.
    pub(crate) fn check(&self, what: &str) -> Result<(), TorchExtError> {
        let (number, slots) = &mut *self.calls.borrow_mut();
        let slot = *number % SLOTS;
        let here = format!("{number}: {what}");
        let before = std::mem::replace(&mut slots[slot as usize], here.clone());
        *number += 1;
        let there = self.store.compare_set(&format!("call-{slot}"), before.as_bytes(), here.as_bytes())?;
        let there = String::from_utf8_lossy(&there).into_owned();
        let of_later_round =
            there.split_once(':').and_then(|(n, _)| n.parse().ok()).is_some_and(|n: u64| n >= *number);
        if there == here || of_later_round {
            return Ok(());
        }
        Err(TorchExtError::Disagreement { rank: self.rank.index(), here, there })
    }

    /// Tells the others why this rank goes, unless another one was first.
    pub(crate) fn give_up(&self, error: &TorchExtError) {
        let told = matches!(error, TorchExtError::OtherRank { .. } | TorchExtError::Unusable { .. });
        if !told {
            self.give_up_because(&error.to_string());
        }
    }

    /// As [`give_up`](Self::give_up), in words.
    pub(crate) fn give_up_because(&self, reason: &str) {
        let reason = format!("rank {} gave up: {reason}", self.rank.index());
        // Where the store is gone too, nobody can be told.
        let store = self.store.within(LAST_WORDS.min(self.store.timeout()));
        let _ = store.compare_set(FAILURE, b"", reason.as_bytes());
    }

    /// Why another rank gave up, if one did.
    pub(crate) fn failure(&self) -> Result<Option<String>, TorchExtError> {
        let store = self.store.within(LAST_WORDS.min(self.store.timeout()));
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
