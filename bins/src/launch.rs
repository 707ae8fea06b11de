//! Several processes of this program on one machine that work together: started, watched, and brought down as one.

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fmt};

use anyhow::{Context as _, bail};
use clap::Args;
use trainer::recipe::DeviceChoice;
use trainer::{Place, TrainError, World};

use crate::{Signals, Stopped};

/// How long it takes until the processes are looked at again.
const POLL: Duration = Duration::from_millis(20);
/// How long the others have to end by themselves once one has failed.
const GRACE: Duration = Duration::from_secs(10);
/// The flag by which a process knows that it was started here.
const LAUNCHED: &str = "--launched";

/// The arguments that say which processes work together.
#[derive(Clone, Copy, Debug, Args)]
pub struct RanksArgs {
    /// Processes of this machine that work together
    ///
    /// Each computes its share. Under torchrun, srun or mpirun, leave it out: they start the processes.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub nproc_per_node: u16,
    /// Machines that work together, each started with --nproc-per-node; the environment variable `MASTER_ADDR` names the first one
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    pub nnodes: u16,
    /// Which of these machines this is, from 0
    #[arg(long, value_name = "N", default_value = "0")]
    pub node_rank: u16,
    /// This process was started by --nproc-per-node
    #[arg(long, hide = true)]
    pub launched: bool,
}

impl RanksArgs {
    /// Whether several processes are asked for, by whoever starts them.
    pub fn are_several(&self) -> bool {
        self.nproc_per_node > 1 || self.nnodes > 1
    }

    /// Whether this process does nothing but start the others.
    pub fn is_launcher(&self) -> bool {
        self.are_several() && !self.launched
    }

    /// The processes that work together with the one at `place`: it alone where that is none. Those that wait for each other give
    /// up after `seconds`.
    ///
    /// # Errors
    ///
    /// Where they cannot come together.
    pub fn join(
        &self,
        place: Option<&Place>,
        device: DeviceChoice,
        seconds: u64,
        signals: &Signals,
    ) -> Result<World, TrainError> {
        if self.launched {
            signals.stop_with_parent();
        }
        match place {
            Some(place) => World::join(place, device.of_rank(place.local_rank), Duration::from_secs(seconds)),
            None => Ok(World::alone()),
        }
    }
}

/// Where this process stands among others, as its environment says.
///
/// # Errors
///
/// As [`Place::from_environment`].
pub fn place() -> Result<Option<Place>, TrainError> {
    Place::from_environment(|name| env::var(name).ok())
}

/// What a process at `place` logs: what all ranks would log alike comes from the first.
pub fn logged(place: &Result<Option<Place>, TrainError>) -> &'static str {
    let is_first = !matches!(place, Ok(Some(place)) if place.rank.index() > 0);
    if is_first { "info" } else { "error,trainer::distributed=info" }
}

/// Which processes to start.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// The arguments that this process was given.
    pub ranks: RanksArgs,
    /// Whether nobody chose a number of threads: the processes then share the cores.
    pub shares_cores: bool,
    /// What to do once the run has failed or was stopped.
    pub goes_on: &'static str,
}

/// A process of the run failed.
#[derive(Debug)]
pub(crate) struct RanksFailed {
    words: String,
    /// The exit status to pass on.
    pub(crate) status: u8,
}

impl fmt::Display for RanksFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for RanksFailed {}

impl Launch {
    /// Starts this program again with its own arguments, once a rank, and waits until all have ended.
    ///
    /// What a rank logs comes out with its number. Where one fails, the others hear of it and end, or are ended; the error of
    /// the first comes first.
    ///
    /// # Errors
    ///
    /// The first failure; [`Stopped`] where a signal ended the run.
    pub fn run(&self, signals: &Signals) -> anyhow::Result<()> {
        for variable in ["RANK", "OMPI_COMM_WORLD_RANK"] {
            if let Ok(rank) = env::var(variable) {
                bail!(
                    "this process is one of several already ({variable} = {rank}); leave --nproc-per-node out under torchrun, \
                     srun or mpirun"
                );
            }
        }
        let meeting_place = self.meeting_place()?;
        let RanksArgs { nproc_per_node, node_rank, .. } = self.ranks;
        let first = usize::from(node_rank) * usize::from(nproc_per_node);
        let mut ranks = Vec::new();
        for local in 0..usize::from(nproc_per_node) {
            // Whoever is dropped half-way closes the pipes of those that were started, which then stop.
            ranks.push(RankProcess::start(
                self.command(first + local, local, &meeting_place)?,
                first + local,
            )?);
        }
        watch(ranks, signals, self.goes_on)
    }

    /// Where rank 0 is found; on one machine at any port that is free.
    fn meeting_place(&self) -> anyhow::Result<(String, String)> {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        match (variable("MASTER_ADDR"), variable("MASTER_PORT")) {
            (Some(host), port) if self.ranks.nnodes > 1 => {
                Ok((host, port.unwrap_or_else(|| "29500".to_owned())))
            }
            (None, _) if self.ranks.nnodes > 1 => {
                bail!(
                    "MASTER_ADDR is not set; set it on all machines to the name or address of the first one"
                )
            }
            (_, Some(port)) => Ok(("127.0.0.1".to_owned(), port)),
            (_, None) => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot find a free port")?;
                Ok(("127.0.0.1".to_owned(), listener.local_addr()?.port().to_string()))
            }
        }
    }

    fn command(&self, rank: usize, local: usize, (host, port): &(String, String)) -> anyhow::Result<Command> {
        let mut command = Command::new(env::current_exe().context("cannot find this program")?);
        command.args(env::args_os().skip(1)).arg(LAUNCHED);
        let world_size = usize::from(self.ranks.nnodes) * usize::from(self.ranks.nproc_per_node);
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", local), ("WORLD_SIZE", world_size)] {
            command.env(name, value.to_string());
        }
        command.env("MASTER_ADDR", host).env("MASTER_PORT", port);
        if self.shares_cores && env::var_os("OMP_NUM_THREADS").is_none() {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            command
                .env("OMP_NUM_THREADS", (cores / usize::from(self.ranks.nproc_per_node)).max(1).to_string());
        }
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        // Results come from the first.
        command.stdout(if rank == 0 { Stdio::inherit() } else { Stdio::null() });
        Ok(command)
    }
}

/// A rank under way. While it runs, what it logs comes out; its last words are kept.
struct RankProcess {
    rank: usize,
    child: Child,
    last_words: Option<JoinHandle<Vec<String>>>,
    ended: Option<ExitStatus>,
}

impl RankProcess {
    fn start(mut command: Command, rank: usize) -> anyhow::Result<Self> {
        let mut child = command.spawn().with_context(|| format!("cannot start rank {rank}"))?;
        let stderr = child.stderr.take();
        let last_words = stderr.map(|stderr| thread::spawn(move || pass_on(stderr, rank)));
        Ok(Self { rank, child, last_words, ended: None })
    }

    fn look(&mut self) -> anyhow::Result<()> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot watch rank {}", self.rank))?;
        }
        Ok(())
    }

    /// How bad its end is: a death without a word before an error, and that before one that another rank brought about.
    fn badness(&self) -> u8 {
        match self.ended.and_then(|status| status.code()) {
            Some(0) => 0,
            Some(128..) => 1,
            Some(3) => 2,
            Some(_) => 3,
            None => 4,
        }
    }

    fn print_last_words(&mut self) {
        let kept = self.last_words.take().and_then(|thread| thread.join().ok());
        for line in kept.unwrap_or_default() {
            print_line(self.rank, &line);
        }
    }
}

/// Prints what a rank logs, up to its error, which is kept.
fn pass_on(stderr: ChildStderr, rank: usize) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if kept.is_empty() && !line.starts_with("error:") {
            print_line(rank, &line);
        } else {
            kept.push(line);
        }
    }
    kept
}

fn print_line(rank: usize, line: &str) {
    // Where nobody reads what is logged, training goes on.
    let _ = writeln!(std::io::stderr().lock(), "[rank {rank}] {line}");
}

/// Waits for all ranks.
fn watch(mut ranks: Vec<RankProcess>, signals: &Signals, goes_on: &str) -> anyhow::Result<()> {
    let mut failed_at: Option<Instant> = None;
    while ranks.iter().any(|rank| rank.ended.is_none()) {
        thread::sleep(POLL);
        let asked = signals.stop().load(Ordering::Relaxed);
        for rank in &mut ranks {
            if asked {
                // A closed pipe asks to stop, once more or for the first time.
                rank.child.stdin = None;
            }
            rank.look()?;
        }
        if failed_at.is_none() && ranks.iter().any(|rank| rank.ended.is_some() && rank.badness() > 1) {
            failed_at = Some(Instant::now());
        }
        if failed_at.is_some_and(|since| since.elapsed() > GRACE) {
            for rank in ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
                tracing::warn!("rank {} does not end by itself and is killed", rank.rank);
                // It may have ended just now, which is as good.
                let _ = rank.child.kill();
            }
        }
    }
    conclude(ranks, goes_on, signals.stop().load(Ordering::Relaxed))
}

/// Says what the ranks came to, the cause before what followed from it. Once all were `asked` to stop, those that miss the ones
/// that did so first have not failed.
fn conclude(mut ranks: Vec<RankProcess>, goes_on: &str, asked: bool) -> anyhow::Result<()> {
    ranks.sort_by_key(|rank| (std::cmp::Reverse(rank.badness()), rank.rank));
    let (worst, number, ended) = (ranks[0].badness(), ranks[0].rank, ranks[0].ended);
    let deaths =
        ranks.iter().filter(|rank| rank.badness() == 4).filter_map(|rank| Some((rank.rank, rank.ended?)));
    for (rank, ended) in deaths.collect::<Vec<_>>() {
        print_line(rank, &format!("ended without a word: {ended}"));
    }
    ranks.iter_mut().for_each(RankProcess::print_last_words);
    match (worst, ended) {
        (0, _) | (_, None) => Ok(()),
        (1 | 2, _) if worst == 1 || asked => {
            Err(Stopped(format!("all ranks have stopped; {goes_on}")).into())
        }
        (_, Some(ended)) => {
            let status =
                ended.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 3).unwrap_or(1);
            let words = format!("rank {number} failed ({ended}), and the run with it; {goes_on}");
            Err(RanksFailed { words, status }.into())
        }
    }
}
