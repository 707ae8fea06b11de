//! Distributed training: libtorch's c10d.
//!
//! Processes connect through a [`Store`], which rank 0 serves, and join a [`ProcessGroup`]. All ranks call its collectives in the
//! same order. A collective returns when its tensors hold the result or, in a [`scope`](ProcessGroup::scope), at once, with a
//! [`Work`] to wait for. An [`InFlight`] collective owns its tensors, and may outlive the call that started it.

mod agreement;
mod ffi;
mod group;
mod in_flight;
mod rank;
mod scope;
mod store;

pub use group::{AbortHandle, ProcessGroup, ReduceOp};
pub use in_flight::InFlight;
pub use rank::Rank;
pub use scope::{Scope, Work};
pub use store::Store;
