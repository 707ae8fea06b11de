//! Processes that compute together: libtorch's c10d.
//!
//! Processes find each other through a [`Store`], which rank 0 serves, and join a [`ProcessGroup`]. Its collectives are calls
//! that all ranks make in the same order; each comes back when its tensors hold the result, or, in a
//! [`scope`](ProcessGroup::scope), at once with a [`Work`] to wait for.

mod agreement;
mod ffi;
mod group;
mod rank;
mod scope;
mod store;

pub use group::{AbortHandle, ProcessGroup, ReduceOp};
pub use rank::Rank;
pub use scope::{Scope, Work};
pub use store::Store;
