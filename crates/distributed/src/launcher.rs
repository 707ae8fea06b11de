//! A launcher for the ranks of one machine: starts this program once per rank, forwards logs, and ends all ranks together.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::placement::Token;

/// The interval between two looks at the processes.
const POLL: Duration = Duration::from_millis(20);
/// How long the other ranks have to end by themselves after one has failed.
const GRACE: Duration = Duration::from_secs(10);

/// Which ranks to start on this machine.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The number of ranks per machine.
    pub processes_per_node: u16,
    /// The number of machines.
    pub nodes: u16,
    /// The index of this machine.
    pub node_rank: u16,
    /// The argument that marks a process as started by a launcher.
    pub marker: &'static str,
    /// Whether the ranks share the cores of the machine, instead of each using the number of threads that is configured.
    pub shares_cores: bool,
    /// How to continue after a failure or an interruption; the end of the error message.
    pub resume_hint: &'static str,
    /// The place of these ranks among other groups of the same machine; `None` if there are no others.
    pub group: Option<LaunchedGroup>,
    /// Prints a line that a rank logs, such as [`print_line`].
    pub print: fn(usize, &str),
}

/// One of several groups of ranks that a machine runs at the same time.
#[derive(Clone, Debug)]
pub struct LaunchedGroup {
    /// The index of the group.
    pub index: usize,
    /// The number of groups.
    pub of: usize,
    /// Further arguments of its ranks.
    pub arguments: Vec<OsString>,
}

/// Why a launch ended without success.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// This process has a rank already.
    #[error(
        "this process has a rank already ({variable} = {rank}); omit --nproc-per-node under torchrun, srun or mpirun"
    )]
    AlreadyLaunched {
        /// The variable that names the rank.
        variable: &'static str,
        /// Its value.
        rank: String,
    },
    /// Several machines without the address of the first.
    #[error("MASTER_ADDR is not set; set it on all machines to the name or address of the first one")]
    NoMasterAddress,
    /// The system refuses a port, a process or its state.
    #[error("cannot {what}")]
    System {
        /// What was being done.
        what: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A signal stopped all ranks.
    #[error("all ranks have stopped; {resume_hint}")]
    Stopped {
        /// How to continue.
        resume_hint: &'static str,
    },
    /// A rank failed.
    #[error("rank {rank} failed ({ended}), and the run with it; {resume_hint}")]
    RankFailed {
        /// The rank that failed first.
        rank: usize,
        /// How its process ended.
        ended: ExitStatus,
        /// How to continue.
        resume_hint: &'static str,
    },
}

impl LaunchError {
    /// Whether a rank was killed, panicked, or lost another rank, so that the same ranks may succeed if they start again.
    pub fn is_death(&self) -> bool {
        let Self::RankFailed { ended, .. } = self else { return false };
        let deaths = [Launcher::ANOTHER_RANK_FAILED, Launcher::PANICKED].map(i32::from);
        ended.code().is_none_or(|code| deaths.contains(&code))
    }

    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what: what.into(), source }
    }
}

impl Launcher {
    /// The exit status of a rank that ends because another rank failed first.
    pub const ANOTHER_RANK_FAILED: u8 = 3;
    /// The exit status of a rank that ends by a panic, such as of libtorch without memory; also Rust's own.
    pub const PANICKED: u8 = 101;

    /// Starts this program with its own arguments, once per rank, and waits until all ranks have ended. A rank that gets the
    /// marker ends when its standard input closes, so that no rank outlives its launcher.
    ///
    /// `print` gets each line that a rank logs. If one fails, the others learn of it and end, or
    /// are killed; the error of the first failure is printed first. Setting `stop` asks all ranks to stop.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]; [`LaunchError::RankFailed`] for the first failure.
    pub fn run(&self, stop: &AtomicBool) -> Result<(), LaunchError> {
        for variable in ["RANK", "OMPI_COMM_WORLD_RANK"] {
            if let Ok(rank) = env::var(variable) {
                return Err(LaunchError::AlreadyLaunched { variable, rank });
            }
        }
        let address = self.rendezvous()?;
        // Launchers of other machines cannot know a random token: they share the variable.
        let token = (self.nodes == 1 && env::var_os(Token::VARIABLE).is_none()).then(Token::random);
        let first = usize::from(self.node_rank) * usize::from(self.processes_per_node);
        let others = self.processes_before();
        let mut ranks = Vec::new();
        for local in 0..usize::from(self.processes_per_node) {
            // After an error, dropping closes the standard input of the ranks that have started; they then stop.
            ranks.push(RankProcess::start(
                self.command(first + local, others + local, &address, token.as_ref())?,
                others + first + local,
                self.print,
            )?);
        }
        wait(&mut ranks, stop)?;
        self.conclude(ranks, stop.load(Ordering::Relaxed))
    }

    /// The number of ranks of this machine that belong to groups before this one.
    fn processes_before(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.index) * usize::from(self.processes_per_node)
    }

    /// The address and port of rank 0; on a single machine, any free port.
    fn rendezvous(&self) -> Result<(String, String), LaunchError> {
        let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        match (variable("MASTER_ADDR"), variable("MASTER_PORT")) {
            (Some(host), port) if self.nodes > 1 => Ok((host, port.unwrap_or_else(|| "29500".to_owned()))),
            (None, _) if self.nodes > 1 => Err(LaunchError::NoMasterAddress),
            // Several groups cannot share a port.
            (_, Some(port)) if self.group.is_none() => Ok(("127.0.0.1".to_owned(), port)),
            _ => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
                let address = listener.map_err(LaunchError::system("find a free port"))?;
                Ok(("127.0.0.1".to_owned(), address.port().to_string()))
            }
        }
    }

    fn command(
        &self,
        rank: usize,
        local: usize,
        (host, port): &(String, String),
        token: Option<&Token>,
    ) -> Result<Command, LaunchError> {
        let program = env::current_exe().map_err(LaunchError::system("find this program"))?;
        let mut command = Command::new(program);
        command.args(env::args_os().skip(1)).arg(self.marker);
        command.args(self.group.iter().flat_map(|group| &group.arguments));
        let world_size = usize::from(self.nodes) * usize::from(self.processes_per_node);
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", local), ("WORLD_SIZE", world_size)] {
            command.env(name, value.to_string());
        }
        command.env("MASTER_ADDR", host).env("MASTER_PORT", port);
        if let Some(token) = token {
            command.env(Token::VARIABLE, token.text());
        }
        if self.shares_cores {
            let groups = self.group.as_ref().map_or(1, |group| group.of);
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let threads = (cores / (groups * usize::from(self.processes_per_node))).max(1);
            for variable in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
                if env::var_os(variable).is_none() {
                    command.env(variable, threads.to_string());
                }
            }
        }
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        // Only the first rank prints results, and a group among others leaves that to the process that starts it.
        let prints = rank == 0 && self.group.is_none();
        command.stdout(if prints { Stdio::inherit() } else { Stdio::null() });
        Ok(command)
    }

    /// Reports how the ranks ended, the root failure first. After a request to stop, a rank that misses another one has not
    /// failed.
    fn conclude(&self, mut ranks: Vec<RankProcess>, stopped: bool) -> Result<(), LaunchError> {
        ranks.sort_by_key(|rank| (Reverse(rank.severity()), rank.rank));
        let deaths = ranks.iter().filter(|rank| rank.severity() == Severity::Killed);
        for (rank, ended) in deaths.filter_map(|rank| Some((rank.rank, rank.ended?))) {
            (self.print)(rank, &format!("ended without an error message: {ended}"));
        }
        ranks.iter_mut().for_each(|rank| rank.print_error(self.print));
        let resume_hint = self.resume_hint;
        let Some((worst, ended)) = ranks.first().and_then(|rank| Some((rank, rank.ended?))) else {
            return Ok(());
        };
        match worst.severity() {
            Severity::Success => Ok(()),
            Severity::Stopped => Err(LaunchError::Stopped { resume_hint }),
            Severity::AnotherFailed if stopped => Err(LaunchError::Stopped { resume_hint }),
            _ => Err(LaunchError::RankFailed { rank: worst.rank, ended, resume_hint }),
        }
    }
}

/// Exit severity, used to report the root failure first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Success,
    Stopped,
    AnotherFailed,
    Failed,
    /// By a signal, without an error message.
    Killed,
}

/// A running rank. Its log lines are forwarded; its error message is kept until all ranks have ended.
struct RankProcess {
    rank: usize,
    child: Child,
    error: Option<JoinHandle<Vec<String>>>,
    ended: Option<ExitStatus>,
}

impl RankProcess {
    fn start(mut command: Command, rank: usize, print: fn(usize, &str)) -> Result<Self, LaunchError> {
        let spawned = command.spawn();
        let mut child = spawned.map_err(LaunchError::system(format!("start rank {rank}")))?;
        let stderr = child.stderr.take();
        let error = stderr.map(|stderr| thread::spawn(move || forward(stderr, rank, print)));
        Ok(Self { rank, child, error, ended: None })
    }

    fn poll(&mut self) -> Result<(), LaunchError> {
        if self.ended.is_none() {
            let ended = self.child.try_wait();
            self.ended = ended.map_err(LaunchError::system(format!("watch rank {}", self.rank)))?;
        }
        Ok(())
    }

    fn severity(&self) -> Severity {
        const ANOTHER_FAILED: i32 = Launcher::ANOTHER_RANK_FAILED as i32;
        match self.ended.and_then(|status| status.code()) {
            Some(0) => Severity::Success,
            Some(128..) => Severity::Stopped,
            Some(ANOTHER_FAILED) => Severity::AnotherFailed,
            Some(_) => Severity::Failed,
            None => Severity::Killed,
        }
    }

    fn print_error(&mut self, print: fn(usize, &str)) {
        let kept = self.error.take().and_then(|thread| thread.join().ok());
        for line in kept.unwrap_or_default() {
            print(self.rank, &line);
        }
    }
}

/// Prints what a rank logs up to its error message, and returns the message.
fn forward(stderr: ChildStderr, rank: usize, print: fn(usize, &str)) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if kept.is_empty() && !line.starts_with("error:") {
            print(rank, &line);
        } else {
            kept.push(line);
        }
    }
    kept
}

/// Prints a line of a rank on standard error, with the rank's number.
pub fn print_line(rank: usize, line: &str) {
    // A closed stderr does not end the run.
    let _ = writeln!(std::io::stderr().lock(), "[rank {rank}] {line}");
}

/// Waits for all ranks.
fn wait(ranks: &mut [RankProcess], stop: &AtomicBool) -> Result<(), LaunchError> {
    let mut failed_at: Option<Instant> = None;
    while ranks.iter().any(|rank| rank.ended.is_none()) {
        thread::sleep(POLL);
        let stopped = stop.load(Ordering::Relaxed);
        for rank in &mut *ranks {
            if stopped {
                // A closed standard input asks a rank to stop.
                rank.child.stdin = None;
            }
            rank.poll()?;
        }
        let has_failed = |rank: &RankProcess| rank.ended.is_some() && rank.severity() > Severity::Stopped;
        if failed_at.is_none() && ranks.iter().any(has_failed) {
            failed_at = Some(Instant::now());
        }
        if failed_at.is_some_and(|since| since.elapsed() > GRACE) {
            for rank in ranks.iter_mut().filter(|rank| rank.ended.is_none()) {
                tracing::warn!("rank {} does not end by itself and is killed", rank.rank);
                // It may have ended by itself just now.
                let _ = rank.child.kill();
            }
        }
    }
    Ok(())
}
