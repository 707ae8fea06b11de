//! The arguments of programs whose processes form groups, each of which computes cells of its own.

use std::sync::atomic::AtomicBool;

use clap::Args;
use distributed::{DistributedError, LaunchError, LaunchedGroup, Launcher, ProcessGroup};
use experiment::Shard;

use crate::group_error::GroupError;
use crate::launch::{LAUNCHED, RanksArgs};
use crate::terminal;

/// The arguments that say which processes compute a cell together.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct GroupArgs {
    #[command(flatten)]
    pub(crate) ranks: RanksArgs,
    /// Processes that compute a cell together; the others compute other cells at the same time [default: all]
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u16).range(1..))]
    group_size: Option<u16>,
    /// How often a group starts again after one of its processes has died, while it computes one cell; then the cell fails, and
    /// the others continue. 0 ends the study
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) max_restarts: u32,
    /// How many seconds the processes of a group wait for each other
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}

/// The groups of a number of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    /// The number of processes in each.
    pub(crate) size: u16,
    /// Their number.
    pub(crate) count: usize,
}

impl GroupArgs {
    /// Returns the number of processes that the arguments ask for.
    pub(crate) fn processes(&self) -> usize {
        usize::from(self.ranks.nproc_per_node) * usize::from(self.ranks.nnodes)
    }

    /// Checks that all processes form one group.
    pub(crate) fn one_group(&self) -> Result<(), GroupError> {
        match self.group_size {
            Some(size) if usize::from(size) != self.processes() => Err(GroupError::SeveralForShard { size }),
            _ => Ok(()),
        }
    }

    /// Divides `processes` into groups.
    pub(crate) fn groups(&self, processes: usize) -> Result<Groups, GroupError> {
        let size = self.group_size.map_or(processes, usize::from);
        match u16::try_from(size) {
            Ok(size) if processes.is_multiple_of(usize::from(size)) => {
                Ok(Groups { size, count: processes / usize::from(size) })
            }
            _ => Err(GroupError::Uneven { size: self.group_size.unwrap_or(u16::MAX), processes }),
        }
    }
}

impl Groups {
    /// A single process.
    pub(crate) const ALONE: Self = Self { size: 1, count: 1 };

    /// Returns the group of a rank of `world`, and the group's shard.
    pub(crate) fn of_rank(self, world: &ProcessGroup) -> Result<(ProcessGroup, Shard), DistributedError> {
        let index = world.rank().index() / usize::from(self.size);
        Ok((world.split(self.size)?, Shard { index, of: self.count }))
    }

    /// Starts this program once per process of the group that computes `shard`, and waits for all.
    pub(crate) fn launch(self, shard: Shard, stop: &AtomicBool) -> Result<(), LaunchError> {
        let part = format!("--shard={}/{}", shard.index + 1, shard.of);
        let launcher = Launcher {
            processes_per_node: self.size,
            nodes: 1,
            node_rank: 0,
            marker: LAUNCHED,
            shares_cores: true,
            resume_hint: "finished cells are in the store",
            group: Some(LaunchedGroup { index: shard.index, of: shard.of, arguments: vec![part.into()] }),
            print: terminal::print_log_line,
        };
        launcher.run(stop)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        groups: GroupArgs,
    }

    fn groups(arguments: &[&str]) -> Result<Groups, GroupError> {
        let args = Program::parse_from([&["study"], arguments].concat()).groups;
        args.groups(args.processes())
    }

    #[test]
    fn processes_form_groups_of_equal_size() {
        assert_eq!(groups(&[]), Ok(Groups { size: 1, count: 1 }));
        assert_eq!(groups(&["--nproc-per-node", "8"]), Ok(Groups { size: 8, count: 1 }));
        let two = ["--nproc-per-node", "4", "--nnodes", "2", "--group-size", "4"];
        assert_eq!(groups(&two), Ok(Groups { size: 4, count: 2 }));
        let uneven = groups(&["--nproc-per-node", "8", "--group-size", "3"]).unwrap_err().to_string();
        assert_eq!(uneven, "--group-size 3 does not divide the 8 processes; give one of 1, 2, 4, 8");
        assert!(groups(&["--nproc-per-node", "2", "--group-size", "4"]).is_err());
        let args = Program::parse_from(["study", "--nproc-per-node", "2", "--group-size", "1"]).groups;
        assert!(args.one_group().unwrap_err().to_string().contains("omit --group-size 1"));
    }
}
