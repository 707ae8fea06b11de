//! The schedule: runs grids until their results request no further cells.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use distributed::{LaunchError, ProcessGroup};
use trainer::Context;

use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::runner::Runner;
use crate::shard::{Role, Shard};
use crate::tally::Tally;

/// The interval between two looks at what the workers have stored.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The interval between two looks at whether the workers have ended.
const POLL: Duration = Duration::from_millis(20);

/// The processes that compute the cells of a grid.
#[derive(Debug)]
pub enum Crew<'a> {
    /// This process alone.
    Alone,
    /// Groups of processes that this process starts.
    Workers(Workers<'a>),
    /// Ranks that a launcher has started. All of them call [`Runner::run_all`].
    Ranks {
        /// All ranks; rank 0 calls the judges. The context has the group of this rank.
        world: &'a ProcessGroup,
        /// The shard of this rank's group.
        shard: Shard,
        /// How many deaths of its processes a cell survives.
        max_restarts: u32,
        /// Whether the launcher has started the ranks again after a death.
        is_restart: bool,
    },
}

/// Groups of worker processes, which share the cells of a grid.
pub struct Workers<'a> {
    /// The number of groups.
    pub groups: usize,
    /// How often a group starts again after one of its processes has died, while it computes one cell. Then the cell fails.
    /// With 0 the first death ends the study.
    pub max_restarts: u32,
    /// Runs the group of a shard, and returns when all its processes have ended. Setting the flag asks them to stop.
    pub launch: Launch<'a>,
}

/// Runs the processes of a shard.
pub type Launch<'a> = &'a (dyn Fn(Shard, &AtomicBool) -> Result<(), LaunchError> + Sync);

impl fmt::Debug for Workers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { groups, max_restarts, .. } = self;
        f.debug_struct("Workers").field("groups", groups).field("max_restarts", max_restarts).finish()
    }
}

impl Runner {
    /// Computes the grid that `next_grid` returns, until it returns the same grid again, and returns that grid.
    ///
    /// `next_grid` reads stored results, and may request cells that depend on them. `begin` runs before the first cell is
    /// computed. Earlier failures are retried once.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run) and of the two callbacks, and [`ExperimentError::Worker`].
    pub fn run_all<E: From<ExperimentError>>(
        &self,
        next_grid: impl Fn() -> Result<Grid, E>,
        begin: impl Fn() -> Result<(), E>,
        crew: &Crew<'_>,
        context: &mut Context<'_>,
    ) -> Result<Grid, E> {
        let (mut grid, mut tried) = (next_grid()?, Grid::default());
        loop {
            if crew.is_main() {
                if !(tried == Grid::default() && crew.is_restart()) {
                    self.forget_failures(&grid.beyond(&tried), Shard::WHOLE)?;
                }
                if !self.plan(&grid)?.is_complete() {
                    self.open_judge()?;
                    begin()?;
                }
            }
            self.compute_with(crew, &grid, context)?;
            let next = next_grid()?;
            if next == grid {
                return Ok(grid);
            }
            tried = std::mem::replace(&mut grid, next);
        }
    }

    /// Computes a grid with all processes of `crew`.
    fn compute_with(
        &self,
        crew: &Crew<'_>,
        grid: &Grid,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        match crew {
            Crew::Alone => self.run(grid, Role::Lead, context),
            Crew::Workers(workers) => {
                self.prepare(context)?;
                if !self.plan(grid)?.is_complete() {
                    workers.run(self, grid, context)?;
                }
                self.run(grid, Role::Lead, context)
            }
            Crew::Ranks { world, shard, max_restarts, .. } => {
                let role = Role::Part { shard: *shard, max_restarts: *max_restarts };
                match self.compute_in_ranks(world, grid, role, context) {
                    Err(ExperimentError::Stopped) => Err(ExperimentError::Stopped),
                    computed => world.propagate_error(computed),
                }
            }
        }
    }

    /// Computes this rank's part of a grid; then rank 0 judges what all ranks have answered.
    fn compute_in_ranks(
        &self,
        world: &ProcessGroup,
        grid: &Grid,
        role: Role,
        context: &mut Context<'_>,
    ) -> Result<(), ExperimentError> {
        let meet = |stop| match world.long_barrier(stop)? {
            true => Ok(()),
            false => Err(ExperimentError::Stopped),
        };
        let group = std::mem::replace(&mut context.group, world.clone());
        let prepared = self.prepare(context);
        context.group = group;
        prepared?;
        self.run(grid, role, context)?;
        meet(context.stop)?;
        if world.is_main() {
            let group = std::mem::take(&mut context.group);
            let judged = self.run(grid, Role::Lead, context);
            context.group = group;
            judged?;
        }
        meet(context.stop)
    }
}

impl Crew<'_> {
    /// Returns whether this process calls the judges and writes tables.
    pub fn is_main(&self) -> bool {
        !matches!(self, Self::Ranks { world, .. } if !world.is_main())
    }

    fn is_restart(&self) -> bool {
        matches!(self, Self::Ranks { is_restart: true, .. })
    }
}

impl Workers<'_> {
    /// Runs all groups at the same time and waits for them.
    fn run(&self, runner: &Runner, grid: &Grid, context: &mut Context<'_>) -> Result<(), ExperimentError> {
        let (mut tally, stop) = (Tally::new(runner, grid)?, context.stop);
        let shard = |index| Shard { index, of: self.groups };
        let ended: Vec<Result<(), ExperimentError>> = thread::scope(|scope| {
            let start = |index| {
                let begun: Vec<PathBuf> =
                    shard(index).part(grid).map(|subject| runner.begun(subject)).collect();
                scope.spawn(move || self.supervise(shard(index), &begun, stop))
            };
            let groups: Vec<_> = (0..self.groups).map(start).collect();
            let mut next_look = Instant::now();
            while !groups.iter().all(ScopedJoinHandle::is_finished) {
                if Instant::now() >= next_look {
                    context.progress.overall(tally.look(runner, None));
                    next_look = Instant::now() + LOOK_EVERY;
                }
                thread::sleep(POLL);
            }
            context.progress.overall(tally.look(runner, None));
            groups
                .into_iter()
                .map(|group| group.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        if stop.load(Ordering::Relaxed) {
            return Err(ExperimentError::Stopped);
        }
        ended.into_iter().collect()
    }

    /// Runs the group of a shard, again after the death of a process. The group counts its attempts at each subject in a file
    /// of `begun`; this process counts the deaths outside of all subjects, which leave these files as they are.
    fn supervise(&self, shard: Shard, begun: &[PathBuf], stop: &AtomicBool) -> Result<(), ExperimentError> {
        let (index, of) = (shard.index + 1, shard.of);
        let mut deaths_outside = 0;
        loop {
            let attempts = || begun.iter().map(|path| fs::read(path).ok()).collect::<Vec<_>>();
            let before = attempts();
            let Err(source) = (self.launch)(shard, stop) else { return Ok(()) };
            deaths_outside += u32::from(attempts() == before);
            let goes_on = source.is_death() && !stop.load(Ordering::Relaxed);
            if !goes_on || self.max_restarts == 0 || deaths_outside > self.max_restarts {
                return Err(ExperimentError::Worker { shard: index, of, source });
            }
            tracing::warn!("group {index} of {of} starts again: {source}");
        }
    }
}

/// Returns the number of processor cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
