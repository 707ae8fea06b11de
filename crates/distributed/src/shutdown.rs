//! Shutdown order: rank 0 serves the store and ends last, because the others read errors from the store.

use std::thread;
use std::time::{Duration, Instant};

use torch_ext::distributed::{Rank, Store};

/// How long rank 0 waits for the other ranks.
const GRACE: Duration = Duration::from_secs(3);
/// The interval between two looks at the store.
const POLL: Duration = Duration::from_millis(10);
/// The key that counts the ranks that have ended.
const ENDED: &str = "ended";

/// Announces the end of this rank; rank 0 then waits for all others, or for a few seconds.
pub(super) fn announce(store: &Store, rank: Rank) {
    let store = store.within(GRACE);
    // Without a store, nobody can wait for anybody.
    let Ok(mut ended) = store.add(ENDED, 1) else { return };
    let began = Instant::now();
    while rank.index() == 0 && ended < rank.world_size() as i64 && began.elapsed() < GRACE {
        thread::sleep(POLL);
        match store.add(ENDED, 0) {
            Ok(now) => ended = now,
            Err(_) => return,
        }
    }
}
