//! What can go wrong at the door to C++.

use tch::{Device, Kind};

/// Why a call was not made, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchExtError {
    /// A tensor of another kind than the operation takes.
    #[error("{tensor} is {found:?}; it must be {expected:?}")]
    Kind {
        /// Which argument.
        tensor: &'static str,
        /// Its kind.
        found: Kind,
        /// What it must be.
        expected: Kind,
    },
    /// A tensor on another device than the first one.
    #[error("{tensor} lies on {found:?}; it must lie on {expected:?} with the others")]
    Device {
        /// Which argument.
        tensor: &'static str,
        /// Where it lies.
        found: Device,
        /// Where the others lie.
        expected: Device,
    },
    /// A tensor of another shape than the first one.
    #[error("{tensor} has shape {found:?}; it must have {expected:?} as the others")]
    Shape {
        /// Which argument.
        tensor: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// The others' shape.
        expected: Vec<i64>,
    },
    /// A tensor whose elements do not lie one behind the other.
    #[error("{tensor} is not contiguous; copy it with `contiguous()` first")]
    NotContiguous {
        /// Which argument.
        tensor: &'static str,
    },
    /// A tensor of a kind that cannot be sent.
    #[error("{tensor} is {found:?}, which cannot be sent between processes; convert it with `to_kind` first")]
    KindNotSent {
        /// Which argument.
        tensor: &'static str,
        /// Its kind.
        found: Kind,
    },
    /// A tensor on a device that the process group does not reach.
    #[error("{tensor} lies on {found:?}; this process group moves tensors on {expected}")]
    GroupDevice {
        /// Which argument.
        tensor: &'static str,
        /// Where it lies.
        found: Device,
        /// Where the group works.
        expected: &'static str,
    },
    /// A tensor without elements.
    #[error("{tensor} has no elements; leave the call out on all ranks")]
    Empty {
        /// Which argument.
        tensor: &'static str,
    },
    /// The whole and the part of a reduce-scatter or all-gather do not fit.
    #[error(
        "the whole has {whole} elements and the part {part}; over {world_size} ranks the whole is {world_size} parts"
    )]
    PartSize {
        /// Elements of the whole.
        whole: usize,
        /// Elements of the part.
        part: usize,
        /// Ranks of the group.
        world_size: usize,
    },
    /// Two arguments of one call share memory.
    #[error("{first} and {second} share memory; copy one of them first")]
    Overlap {
        /// An argument.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// A rank that the world does not have.
    #[error("rank {rank} does not exist among {world_size}; ranks count from 0")]
    NoSuchRank {
        /// The rank.
        rank: usize,
        /// How many there are.
        world_size: usize,
    },
    /// The port of the store is in use.
    #[error(
        "port {port} on {host} is taken by another program or job; choose another MASTER_PORT, on all ranks"
    )]
    PortTaken {
        /// Where it was to listen.
        host: String,
        /// The port.
        port: u16,
    },
    /// The store cannot listen, for another reason than a port in use.
    #[error("cannot listen on {host}:{port}; rank 0 serves the store, so MASTER_ADDR must name its machine")]
    Listen {
        /// Where it was to listen.
        host: String,
        /// The port.
        port: u16,
        /// The system's error.
        source: std::io::Error,
    },
    /// Nobody serves the store.
    #[error(
        "nobody answers at {host}:{port} after {seconds:.1} s; check that rank 0 runs there and that MASTER_ADDR and \
         MASTER_PORT are the same on all ranks"
    )]
    NoStore {
        /// Where it was looked for.
        host: String,
        /// The port.
        port: u16,
        /// How long.
        seconds: f64,
        /// The system's last error.
        source: std::io::Error,
    },
    /// Ranks were started with different world sizes.
    #[error(
        "rank {rank} was started as one of {here}, another rank as one of {there}; WORLD_SIZE must be the same on all"
    )]
    WorldSizeMismatch {
        /// This rank.
        rank: usize,
        /// Its world size.
        here: usize,
        /// What came first.
        there: String,
    },
    /// Two processes have one rank.
    #[error("rank {rank} is there twice; give each process a RANK of its own")]
    RankTwice {
        /// The rank.
        rank: usize,
    },
    /// Ranks did not come.
    #[error(
        "of {world_size} ranks {missing:?} did not come within {seconds:.1} s; look at what those processes say"
    )]
    RanksMissing {
        /// Those that did not come.
        missing: Vec<usize>,
        /// How many were to come.
        world_size: usize,
        /// How long they were waited for.
        seconds: f64,
    },
    /// Ranks do not call the same collective with tensors of the same kind and size.
    #[error(
        "rank {rank} is at call {here}, another rank at call {there}; all ranks must make the same calls in the same order"
    )]
    Disagreement {
        /// This rank.
        rank: usize,
        /// The number of its call in the group, and what it is.
        here: String,
        /// The other rank's.
        there: String,
    },
    /// Another rank gave up, and said why.
    #[error("{reason}")]
    OtherRank {
        /// Which rank, and its error.
        reason: String,
    },
    /// The group has failed or was aborted before.
    #[error("the process group cannot be used any more: {reason}")]
    Unusable {
        /// What happened first.
        reason: String,
    },
    /// Others took too long.
    #[error("cannot {what}, since the time for it ran out: {message}")]
    TimedOut {
        /// What was under way.
        what: &'static str,
        /// libtorch's words.
        message: String,
    },
    /// Another process has gone, or the network.
    #[error("cannot {what}, since a connection to another rank was lost: {message}")]
    ConnectionLost {
        /// What was under way.
        what: &'static str,
        /// libtorch's words.
        message: String,
    },
    /// libtorch refused.
    #[error("libtorch cannot {what}: {message}")]
    Torch {
        /// What was asked of it.
        what: &'static str,
        /// Its words.
        message: String,
    },
}
