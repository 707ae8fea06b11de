//! Why processes cannot form groups.

/// Processes that cannot form the groups that are asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    /// Groups of this size cannot divide the processes.
    #[error("--group-size {size} does not divide the {processes} processes; give one of {}", divisors(*processes))]
    Uneven {
        /// The size.
        size: u16,
        /// The number of processes.
        processes: usize,
    },
    /// Several groups for one shard.
    #[error(
        "--shard is computed by one group of all processes; omit --group-size {size}, or take more shards"
    )]
    SeveralForShard {
        /// The size.
        size: u16,
    },
}

fn divisors(number: usize) -> String {
    let divisors = (1..=number).filter(|divisor| number.is_multiple_of(*divisor));
    divisors.map(|divisor| divisor.to_string()).collect::<Vec<_>>().join(", ")
}
