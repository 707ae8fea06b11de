//! The arguments of programs that run in several processes.

use std::env;
use std::time::Duration;

use clap::Args;
use distributed::{DistributedError, Launcher, Placement, ProcessGroup};
use trainer::recipe::DeviceChoice;

use crate::program::{Logging, Signals, Stopped};
use crate::terminal;

/// The flag that marks a process as started by [`Launcher`].
pub(crate) const LAUNCHED: &str = "--launched";

/// The arguments that say which processes work together.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RanksArgs {
    /// Processes of this machine that work together
    ///
    /// Each computes its share. Under torchrun, srun or mpirun, omit it: they start the processes.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nproc_per_node: u16,
    /// Machines that work together, each started with --nproc-per-node; the environment variable `MASTER_ADDR` names the first one
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nnodes: u16,
    /// The index of this machine, from 0
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) node_rank: u16,
    /// This process was started by --nproc-per-node
    #[arg(long, hide = true)]
    pub(crate) launched: bool,
}

impl RanksArgs {
    /// Whether several processes are asked for, whichever launcher starts them.
    pub(crate) fn are_several(&self) -> bool {
        self.nproc_per_node > 1 || self.nnodes > 1
    }

    /// Whether this process only starts the others.
    pub(crate) fn is_launcher(&self) -> bool {
        self.are_several() && !self.launched
    }

    /// Starts this program once per rank and waits for all ranks. The ranks share the cores if `shares_cores`; `resume_hint`
    /// says how to continue after a failure or an interruption.
    ///
    /// # Errors
    ///
    /// [`Stopped`] after a signal; otherwise [`distributed::LaunchError`].
    pub(crate) fn launch(
        &self,
        shares_cores: bool,
        resume_hint: &'static str,
        signals: &Signals,
    ) -> anyhow::Result<()> {
        let launcher = Launcher {
            processes_per_node: self.nproc_per_node,
            nodes: self.nnodes,
            node_rank: self.node_rank,
            marker: LAUNCHED,
            shares_cores,
            resume_hint,
            group: None,
            print: terminal::print_log_line,
        };
        launcher.run(signals.stop()).map_err(|error| match error {
            distributed::LaunchError::Stopped { .. } => Stopped(error.to_string()).into(),
            error => error.into(),
        })
    }

    /// Joins the process group of `placement`, or returns a single process. Ranks give up after waiting for `seconds`.
    ///
    /// # Errors
    ///
    /// As [`ProcessGroup::join`].
    pub(crate) fn join(
        &self,
        placement: Option<&Placement>,
        device: DeviceChoice,
        seconds: u64,
        signals: &Signals,
    ) -> Result<ProcessGroup, DistributedError> {
        if self.launched {
            signals.stop_with_parent();
        }
        let Some(placement) = placement else { return Ok(self.single(device)) };
        ProcessGroup::join(placement, device.of_rank(placement.local_rank), Duration::from_secs(seconds))
    }

    /// Returns the group of a process without others; among several groups of one process, each has its own GPU.
    fn single(&self, device: DeviceChoice) -> ProcessGroup {
        let local_rank = env::var("LOCAL_RANK").ok().and_then(|text| text.parse().ok());
        match local_rank.filter(|_| self.launched && self.are_several()) {
            Some(local_rank) => ProcessGroup::single_on(device.of_rank(local_rank)),
            None => ProcessGroup::single(),
        }
    }
}

/// Reads the placement of this process from its environment.
///
/// # Errors
///
/// As [`Placement::from_environment`].
pub(crate) fn placement() -> Result<Option<Placement>, DistributedError> {
    Placement::from_environment(|name| env::var(name).ok())
}

/// The default log filter of a process: only rank 0 logs what all ranks would log.
pub(crate) fn log_filter(placement: &Result<Option<Placement>, DistributedError>) -> &'static str {
    if is_main(placement) { "info" } else { OTHER_RANKS }
}

/// What ranks other than rank 0 log.
const OTHER_RANKS: &str = "error,distributed=info";

/// The log of a program with a folder of its own, which shows `shown`.
pub(crate) fn logging(
    placement: &Result<Option<Placement>, DistributedError>,
    shown: &'static str,
) -> Logging {
    match is_main(placement) {
        true => Logging { shown, verbose: "info", filed: Some("info") },
        false => Logging { shown: "error", verbose: OTHER_RANKS, filed: None },
    }
}

fn is_main(placement: &Result<Option<Placement>, DistributedError>) -> bool {
    !matches!(placement, Ok(Some(placement)) if placement.rank.index() > 0)
}

/// Returns whether a [`Launcher`] of this program started this process.
pub(crate) fn is_launched() -> bool {
    env::args_os().any(|argument| argument == LAUNCHED)
}
