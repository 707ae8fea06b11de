//! The errors of this crate.

use tch::{Device, Kind};

/// An error of a call into libtorch, or of its arguments.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchExtError {
    /// A tensor without a value, such as an absent gradient.
    #[error("{tensor} is undefined; pass a tensor that has a value")]
    Undefined {
        /// The argument.
        tensor: &'static str,
    },
    /// A tensor of another kind than the operation takes.
    #[error("{tensor} is {found:?}; it must be {expected:?}")]
    Kind {
        /// The argument.
        tensor: &'static str,
        /// Its kind.
        found: Kind,
        /// The kind that it must have.
        expected: Kind,
    },
    /// A tensor on another device than the first one.
    #[error("{tensor} is on {found:?}; it must be on {expected:?} like the others")]
    Device {
        /// The argument.
        tensor: &'static str,
        /// Its device.
        found: Device,
        /// The device of the others.
        expected: Device,
    },
    /// A tensor of another shape than the first one.
    #[error("{tensor} has shape {found:?}; it must have {expected:?} to fit the others")]
    Shape {
        /// The argument.
        tensor: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// The shape that fits the others, where -1 is any size.
        expected: Vec<i64>,
    },
    /// A tensor that is not contiguous memory, or has a pending negation.
    #[error("{tensor} is not contiguous memory; pass a `copy()` of it")]
    NotContiguous {
        /// The argument.
        tensor: &'static str,
    },
    /// A tensor of a kind that collectives do not support.
    #[error("{tensor} is {found:?}, which collectives do not support; convert it with `to_kind` first")]
    KindNotSent {
        /// The argument.
        tensor: &'static str,
        /// Its kind.
        found: Kind,
    },
    /// A tensor on a device that the process group does not support.
    #[error("{tensor} is on {found:?}; this process group supports {expected}")]
    GroupDevice {
        /// The argument.
        tensor: &'static str,
        /// Its device.
        found: Device,
        /// The devices of the group.
        expected: &'static str,
    },
    /// A tensor without elements.
    #[error("{tensor} has no elements; omit the call on all ranks")]
    Empty {
        /// The argument.
        tensor: &'static str,
    },
    /// The whole and the part of a reduce-scatter or all-gather do not fit each other.
    #[error(
        "the whole has {whole} elements and the part {part}; over {world_size} ranks the whole must have {world_size} times the part's"
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
    /// A rank beyond the world size.
    #[error("rank {rank} is not below the world size {world_size}")]
    NoSuchRank {
        /// The rank.
        rank: usize,
        /// The number of ranks.
        world_size: usize,
    },
    /// The port of the store is in use.
    #[error(
        "port {port} on {host} is in use by another program or job; set another MASTER_PORT on all ranks"
    )]
    PortTaken {
        /// The address to listen on.
        host: String,
        /// The port.
        port: u16,
    },
    /// The store cannot listen, except for a port in use.
    #[error(
        "cannot listen on {host}:{port}; MASTER_ADDR must name the machine of rank 0, which serves the store"
    )]
    Listen {
        /// The address to listen on.
        host: String,
        /// The port.
        port: u16,
        /// The system's error.
        source: std::io::Error,
    },
    /// No store at the address.
    #[error(
        "no store answers at {host}:{port} after {seconds:.1} s; check that rank 0 runs there and that MASTER_ADDR and \
         MASTER_PORT are the same on all ranks"
    )]
    NoStore {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// Seconds waited.
        seconds: f64,
        /// The system's last error.
        source: std::io::Error,
    },
    /// Ranks were started with different world sizes.
    #[error(
        "rank {rank} has the world size {here}, another rank {there}; set the same WORLD_SIZE on all ranks"
    )]
    WorldSizeMismatch {
        /// This rank.
        rank: usize,
        /// Its world size.
        here: usize,
        /// The world size of another rank.
        there: String,
    },
    /// Two processes have one rank.
    #[error("two processes have rank {rank}; set another RANK for each process")]
    RankTwice {
        /// The rank.
        rank: usize,
    },
    /// Ranks did not arrive in time.
    #[error(
        "of {world_size} ranks, {missing:?} did not arrive within {seconds:.1} s; check the logs of those processes"
    )]
    RanksMissing {
        /// The missing ranks.
        missing: Vec<usize>,
        /// The number of ranks.
        world_size: usize,
        /// Seconds waited.
        seconds: f64,
    },
    /// Ranks call different collectives, or with tensors of different kinds or sizes.
    #[error(
        "rank {rank} is at call {here}, another rank at call {there}; all ranks must make the same calls in the same order"
    )]
    Disagreement {
        /// This rank.
        rank: usize,
        /// The number of its call in the group, and a description.
        here: String,
        /// The call of the other rank.
        there: String,
    },
    /// Another rank failed first.
    #[error("{reason}")]
    OtherRank {
        /// The rank and its error.
        reason: String,
    },
    /// The group failed or was aborted before.
    #[error("the process group is unusable after an error: {reason}")]
    Unusable {
        /// The first error.
        reason: String,
    },
    /// A timeout.
    #[error("cannot {what}: timed out: {message}")]
    TimedOut {
        /// The operation.
        what: &'static str,
        /// libtorch's message.
        message: String,
    },
    /// A lost connection to another process.
    #[error("cannot {what}: lost the connection to another rank: {message}")]
    ConnectionLost {
        /// The operation.
        what: &'static str,
        /// libtorch's message.
        message: String,
    },
    /// An error of libtorch, such as exhausted memory.
    #[error("libtorch cannot {what}: {message}")]
    Torch {
        /// The operation.
        what: &'static str,
        /// Its message.
        message: String,
    },
}
