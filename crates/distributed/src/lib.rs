#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod buckets;
mod digest;
mod error;
mod facts;
mod group;
mod launcher;
mod layout;
mod placement;
mod reduction;
mod regions;
mod settings;
mod shard;
mod shutdown;

pub use batch::balanced_shards;
pub use buckets::GradientBuckets;
pub use digest::{digest_of_model, digest_of_tensor, hash_model, hash_sequences};
pub use error::DistributedError;
pub use facts::Fact;
pub use group::ProcessGroup;
pub use launcher::{LaunchError, LaunchedGroup, Launcher, print_line};
pub use layout::{Layout, Region};
pub use placement::{Placement, Token};
pub use reduction::GradientSink;
pub use regions::{Pass, PendingGather, PendingSum};
pub use settings::{Exchange, Sharding, Timing};
pub use shard::{Run, Shard};
pub use torch_ext::distributed::Rank;
