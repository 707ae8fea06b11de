//! How ranks part: the one that serves the store goes last, since through it the others hear why.

use std::thread;
use std::time::{Duration, Instant};

use torch_ext::distributed::{Rank, Store};

/// How long the rank that serves the store waits for the others to go.
const GRACE: Duration = Duration::from_secs(3);
/// How long it takes until it looks again.
const POLL: Duration = Duration::from_millis(10);
/// Counts the ranks that have gone.
const GONE: &str = "gone";

/// Says that this rank goes; rank 0 waits until all others have, or a few seconds have passed.
pub(super) fn part(store: &Store, rank: Rank) {
    let store = store.within(GRACE);
    // Whoever cannot be told any more need not be waited for.
    let Ok(mut gone) = store.add(GONE, 1) else { return };
    let began = Instant::now();
    while rank.index() == 0 && gone < rank.world_size() as i64 && began.elapsed() < GRACE {
        thread::sleep(POLL);
        match store.add(GONE, 0) {
            Ok(now) => gone = now,
            Err(_) => return,
        }
    }
}
