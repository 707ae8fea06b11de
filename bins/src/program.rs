//! How a program starts and ends.

use std::error::Error;
use std::fmt;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::launch::RanksFailed;
use annotate::AnnotateError;
use hub::HubError;
use pref_data::{DataError, Date};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use study::StudyError;
use tracing_subscriber::EnvFilter;
use trainer::TrainError;

/// Exit status of bad input.
const BAD_INPUT: u8 = 2;
/// Exit status where another process of the run failed first.
const ANOTHER_FAILED: u8 = 3;

/// A request to stop, by SIGINT or SIGTERM.
#[derive(Clone, Debug)]
pub struct Signals {
    stop: Arc<AtomicBool>,
    which: Arc<AtomicUsize>,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        let signals = Self { stop: Arc::new(AtomicBool::new(false)), which: Arc::new(AtomicUsize::new(0)) };
        for signal in [SIGINT, SIGTERM] {
            // The second signal of a kind does not wait for a checkpoint.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            flag::register_usize(signal, Arc::clone(&signals.which), signal as usize)?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// Set once somebody asks to stop.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Asks this process to stop when its standard input closes: its parent has ended, or wants it to.
    pub fn stop_with_parent(&self) {
        let signals = self.clone();
        std::thread::spawn(move || {
            // Whatever ends the read, nobody waits for this process any more.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            signals.stop().store(true, Ordering::Relaxed);
        });
    }
}

/// Work ended early because a signal asked for it.
#[derive(Debug)]
pub struct Stopped(
    /// What is kept and how to go on.
    pub String,
);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Stopped {}

/// Runs a program: logs to stderr (`RUST_LOG` chooses what), watches signals, turns an error into words and a status.
pub fn run(program: impl FnOnce(&Signals) -> anyhow::Result<()>) -> ExitCode {
    run_logging("info", program)
}

/// As [`run`], where `logged` is what is logged unless `RUST_LOG` chooses.
#[expect(clippy::print_stderr, reason = "the last words of a program")]
pub fn run_logging(logged: &str, program: impl FnOnce(&Signals) -> anyhow::Result<()>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(logged));
    // Colours are for people: files and pipes get plain lines.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: cannot watch signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    match program(&signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(status(&error, signals.which.load(Ordering::Relaxed)))
        }
    }
}

/// Reads the date of a chat template: a day, `today`, or `none`.
///
/// # Errors
///
/// What the option must be.
pub(crate) fn date(text: &str) -> Result<Date, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let day = if text == "today" { Date::day(now) } else { text.to_owned() };
    Date::parse(&day).ok_or_else(|| "must be a day such as 2026-11-29, today, or none".to_owned())
}

/// Prints a result on stdout. A reader who has seen enough (`| head`) is no error.
///
/// # Errors
///
/// Where stdout cannot be written to, such as a file on a full disk.
pub fn print_result(text: impl fmt::Display) -> std::io::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn status(error: &anyhow::Error, signal: usize) -> u8 {
    let stopped = error.is::<Stopped>() || matches!(error.downcast_ref(), Some(StudyError::Stopped));
    if stopped {
        return u8::try_from(128 + signal).unwrap_or(1);
    }
    if let Some(RanksFailed { status, .. }) = error.downcast_ref() {
        return *status;
    }
    if error.downcast_ref::<TrainError>().is_some_and(TrainError::is_anothers) {
        return ANOTHER_FAILED;
    }
    let bad_training = error.downcast_ref::<TrainError>().is_some_and(TrainError::is_bad_input);
    let bad_study = error.downcast_ref::<StudyError>().is_some_and(StudyError::is_bad_input);
    let bad_recipe = error.is::<trainer::recipe::RecipeError>();
    let bad_bench = error.downcast_ref::<mtbench::Error>().is_some_and(mtbench::Error::is_bad_input)
        || error.is::<crate::mtbench_program::NoAnswers>();
    let bad_call = error.downcast_ref::<llm_client::Error>().is_some_and(llm_client::Error::is_bad_input);
    let bad_ratings =
        error.downcast_ref::<human_study::Error>().is_some_and(human_study::Error::is_bad_input);
    let bad_labels = error.downcast_ref::<AnnotateError>().is_some_and(AnnotateError::is_bad_input);
    let bad_data =
        error.downcast_ref().is_some_and(|error| !matches!(error, DataError::Io { action: "write", .. }));
    let bad_hub = error.downcast_ref::<HubError>().is_some_and(HubError::is_bad_input);
    let bad_files = bad_labels || bad_data || bad_hub || bad_ratings || bad_bench;
    if bad_training || bad_study || bad_recipe || bad_call || bad_files { BAD_INPUT } else { 1 }
}
