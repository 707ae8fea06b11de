//! The schedule: runs grids until their results request no further cells.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trainer::Context;

use crate::error::ExperimentError;
use crate::grid::Grid;
use crate::runner::Runner;
use crate::shard::Shard;

/// Interval at which a waiting process looks after its workers.
const WORKER_POLL: Duration = Duration::from_millis(50);

/// Worker processes, which share the cells of a grid.
#[derive(Debug)]
pub struct Workers<F> {
    /// Number of workers; 1 computes in this process.
    pub jobs: usize,
    /// Returns the command of the worker for a shard. It receives a pipe as standard input, which closes when this process
    /// ends or wants the worker to stop.
    pub command: F,
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
        workers: &Workers<impl Fn(Shard) -> std::io::Result<Command>>,
        context: &mut Context<'_>,
    ) -> Result<Grid, E> {
        let (mut grid, mut tried) = (next_grid()?, Grid::default());
        loop {
            self.forget_failures(&grid.beyond(&tried), Shard::WHOLE)?;
            if !self.plan(&grid)?.is_complete() {
                self.open_judge()?;
                begin()?;
            }
            self.prepare(context)?;
            if workers.jobs > 1 && !self.plan(&grid)?.is_complete() {
                workers.run(context.stop)?;
            }
            self.run(&grid, Shard::WHOLE, context)?;
            let next = next_grid()?;
            if next == grid {
                return Ok(grid);
            }
            tried = std::mem::replace(&mut grid, next);
        }
    }
}

impl<F: Fn(Shard) -> std::io::Result<Command>> Workers<F> {
    /// Starts all workers and waits for them.
    fn run(&self, stop: &AtomicBool) -> Result<(), ExperimentError> {
        let io = || ExperimentError::io("cannot run the worker program", "(this program)");
        let threads = (cores() / self.jobs).max(1).to_string();
        let mut workers = Vec::new();
        for index in 0..self.jobs {
            let mut command = (self.command)(Shard { index, of: self.jobs }).map_err(io())?;
            let worker = command
                .env("OMP_NUM_THREADS", &threads)
                .env("RAYON_NUM_THREADS", &threads)
                // The pipe carries no data: it closes when this process ends, however it ends.
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn();
            workers.push(worker.map_err(io())?);
        }
        let mut failed = None;
        for (index, mut worker) in workers.into_iter().enumerate() {
            let status = wait(&mut worker, stop).map_err(io())?;
            if !status.success() {
                failed.get_or_insert(ExperimentError::Worker { shard: index + 1, of: self.jobs, status });
            }
        }
        match failed {
            _ if stop.load(Ordering::Relaxed) => Err(ExperimentError::Stopped),
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Waits for a worker, and asks it to stop once `stop` is set.
fn wait(worker: &mut Child, stop: &AtomicBool) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = worker.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::Relaxed) {
            drop(worker.stdin.take());
        }
        std::thread::sleep(WORKER_POLL);
    }
}

/// Returns the number of processor cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
