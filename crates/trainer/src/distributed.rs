//! Several processes that train as one.
//!
//! Each process is a *rank*. All ranks read the same recipe, data and model and see the same batches; each computes its
//! share of a batch's gradient, the sum of the shares is the gradient of the batch, and so all ranks make the same update.
//! Rank 0 *leads*: it alone writes to the run's folder, and what it finds there the others hear from it.
//!
//! A [`World`] is what the loop asks. Of a process on its own it answers without looking anywhere, so that there is one
//! loop, whose results alone are what they were before anybody thought of several.

mod buckets;
mod environment;
mod facts;
mod farewell;
mod shard;
mod world;

pub(crate) use buckets::Buckets;
pub use environment::Place;
pub use facts::Fact;
pub(crate) use facts::{digest_of_files, digest_of_tensor, hash_model, hash_pair};
pub use shard::{Exchange, Sharding, Timing};
pub(crate) use shard::{Run, Shard};
pub use world::World;
