//! Whether another process of this program has started this one.

use std::env;

/// The flag that marks a process as started by [`Launcher`](distributed::Launcher).
pub(crate) const LAUNCHED: &str = "--launched";

/// Returns whether this process has the flag.
pub(crate) fn is_launched() -> bool {
    env::args_os().any(|argument| argument == LAUNCHED)
}
