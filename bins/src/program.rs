//! Start and end of a program.

use std::any::Any;
use std::env;
use std::error::Error;
use std::fmt;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use annotate::AnnotateError;
use audit::AuditError;
use distributed::{DistributedError, LaunchError, Launcher};
use experiment::ExperimentError;
use hub::HubError;
use inference::InferenceError;
use llm_client::printable;
use pref_data::{DataError, Date};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use study::StudyError;
use tracing_subscriber::EnvFilter;
use trainer::TrainError;

/// Exit status of bad input.
const BAD_INPUT: u8 = 2;

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
            // A second signal of a kind does not wait for a checkpoint.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))?;
            flag::register_usize(signal, Arc::clone(&signals.which), signal as usize)?;
            flag::register(signal, Arc::clone(&signals.stop))?;
        }
        Ok(signals)
    }

    /// Returns the flag that a request to stop sets.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Requests a stop when standard input closes, because the parent ended or wants this process to stop.
    pub fn stop_with_parent(&self) {
        let signals = self.clone();
        std::thread::spawn(move || {
            // The read ends when the parent ends or closes the pipe.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            signals.stop().store(true, Ordering::Relaxed);
        });
    }
}

/// A signal ended the work early.
#[derive(Debug)]
pub struct Stopped(
    /// The message: what is saved and how to resume.
    pub String,
);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Stopped {}

/// Runs a program: logs to stderr with the filter `RUST_LOG`, handles signals, and maps an error to a message and a status.
pub fn run(program: impl FnOnce(&Signals) -> anyhow::Result<()>) -> ExitCode {
    run_logging("info", program)
}

/// Runs a program with the log filter `logged` unless `RUST_LOG` is set.
#[expect(clippy::print_stderr, reason = "the error of a program")]
pub fn run_logging(logged: &str, program: impl FnOnce(&Signals) -> anyhow::Result<()>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(logged));
    // Only terminals get colors.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("error: cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    match caught(|| program(&signals)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(&format!("{error:#}")));
            ExitCode::from(status(&error, signals.which.load(Ordering::Relaxed)))
        }
    }
}

/// Runs a program. A panic, of a dependency as of this code, becomes an error with its place.
fn caught(program: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let place = Arc::new(Mutex::new(String::new()));
    let last = Arc::clone(&place);
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        // The log has the panics of threads that nobody waits for, and of libraries whose callers catch them.
        tracing::debug!("panic at {at}: {}", panic_text(info.payload()));
        *last.lock().unwrap_or_else(PoisonError::into_inner) = at;
        if env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            report(info);
        }
    }));
    // Nothing of the program is used afterward.
    panic::catch_unwind(AssertUnwindSafe(program)).unwrap_or_else(|payload| {
        let place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let what = panic_text(&*payload);
        Err(Panicked { place: place.clone(), what: what.to_owned() }.into())
    })
}

/// A panic, as an error.
#[derive(Debug, thiserror::Error)]
#[error("internal error at {place}: {what}; it is a bug worth a report, with the input that triggers it")]
struct Panicked {
    place: String,
    what: String,
}

fn panic_text(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}

/// Parses the date of a chat template: a day, `today`, or `none`.
///
/// # Errors
///
/// A description of the accepted values.
pub(crate) fn date(text: &str) -> Result<Date, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let day = if text == "today" { Date::day(now) } else { text.to_owned() };
    Date::parse(&day).ok_or_else(|| "must be a day such as 2026-11-29, today, or none".to_owned())
}

/// Prints a result on stdout. A closed pipe (`| head`) is not an error.
///
/// # Errors
///
/// If stdout cannot be written, such as a file on a full disk.
pub fn print_result(text: impl fmt::Display) -> std::io::Result<()> {
    // Names and texts come from files: a terminal must not obey their escapes.
    match writeln!(std::io::stdout(), "{}", printable(&text.to_string())) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Parses a share for clap.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a number from 0 to 1".to_owned())
}

fn status(error: &anyhow::Error, signal: usize) -> u8 {
    let stopped = error.is::<Stopped>() || error.downcast_ref().is_some_and(StudyError::is_stop);
    if stopped {
        return u8::try_from(128 + signal).unwrap_or(1);
    }
    if error.is::<Panicked>() {
        return Launcher::PANICKED;
    }
    if let Some(LaunchError::RankFailed { ended, .. }) = error.downcast_ref() {
        let status = ended.code().and_then(|code| u8::try_from(code).ok());
        return status.filter(|status| *status != Launcher::ANOTHER_RANK_FAILED).unwrap_or(1);
    }
    let distributed = error.downcast_ref::<DistributedError>();
    if distributed.is_some_and(DistributedError::is_from_another_rank)
        || error.downcast_ref::<TrainError>().is_some_and(TrainError::is_from_another_rank)
        || error.downcast_ref::<StudyError>().is_some_and(StudyError::is_from_another_rank)
    {
        return Launcher::ANOTHER_RANK_FAILED;
    }
    let bad_ranks = distributed.is_some_and(DistributedError::is_bad_input);
    let bad_training = error.downcast_ref::<TrainError>().is_some_and(TrainError::is_bad_input);
    let bad_study = error.downcast_ref::<StudyError>().is_some_and(StudyError::is_bad_input)
        || error.downcast_ref::<ExperimentError>().is_some_and(ExperimentError::is_bad_input);
    let bad_model = error.downcast_ref::<InferenceError>().is_some_and(InferenceError::is_bad_input);
    let bad_recipe = error.is::<trainer::recipe::RecipeError>();
    let bad_bench = error.downcast_ref::<mtbench::Error>().is_some_and(mtbench::Error::is_bad_input)
        || error.is::<crate::no_answers::NoAnswers>()
        || error.is::<crate::group_error::GroupError>();
    let bad_call = error.downcast_ref::<llm_client::Error>().is_some_and(llm_client::Error::is_bad_input);
    let bad_ratings =
        error.downcast_ref::<human_study::Error>().is_some_and(human_study::Error::is_bad_input);
    let bad_labels = error.downcast_ref::<AnnotateError>().is_some_and(AnnotateError::is_bad_input);
    let bad_audit = error.downcast_ref::<AuditError>().is_some_and(AuditError::is_bad_input);
    let bad_data =
        error.downcast_ref().is_some_and(|error| !matches!(error, DataError::Io { action: "write", .. }));
    // Comparisons only read.
    let bad_scores = error.is::<compare::Error>();
    let bad_hub = error.downcast_ref::<HubError>().is_some_and(HubError::is_bad_input);
    let bad_files = bad_labels || bad_audit || bad_data || bad_scores || bad_hub || bad_ratings || bad_bench;
    let bad_input =
        bad_ranks || bad_training || bad_study || bad_model || bad_recipe || bad_call || bad_files;
    if bad_input { BAD_INPUT } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_place() {
        let error = caught(|| panic!("the index is {}", 24)).unwrap_err();
        assert_eq!(status(&error, 0), 101);
        let text = error.to_string();
        assert!(text.contains("program.rs") && text.contains("the index is 24"), "{text}");
        caught(|| Ok(())).unwrap();
    }
}
