//! Start and end of a program.

use std::any::Any;
use std::env;
use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
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
use signal_hook::{flag, iterator};
use study::StudyError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};
use trainer::TrainError;

use crate::console_args::ConsoleArgs;
use crate::launch::is_launched;
use crate::{log_file, terminal};

/// Exit status of bad input.
const BAD_INPUT: u8 = 2;

/// A request to stop, by SIGINT or SIGTERM.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
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
        // The process that starts a rank speaks for it.
        if !is_launched() {
            acknowledge(iterator::Signals::new([SIGINT, SIGTERM])?);
        }
        Ok(signals)
    }

    /// Returns the flag that a request to stop sets.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Requests a stop when standard input closes, because the parent ended or wants this process to stop.
    pub(crate) fn stop_with_parent(&self) {
        let signals = self.clone();
        std::thread::spawn(move || {
            // The read ends when the parent ends or closes the pipe.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            signals.stop().store(true, Ordering::Relaxed);
        });
    }
}

/// Prints at once that a signal has arrived: the current step may take long.
fn acknowledge(mut signals: iterator::Signals) {
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            terminal::print_line("stopping after the current step; a second Ctrl-C stops at once");
        }
    });
}

/// A signal ended the work early.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stopped(
    /// The message: what is saved and how to resume.
    pub(crate) String,
);

/// What a program logs, as filters of `RUST_LOG`'s syntax.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logging {
    /// On standard error.
    pub(crate) shown: &'static str,
    /// On standard error with `--verbose`.
    pub(crate) verbose: &'static str,
    /// In the log of the output folder, if the program has one.
    pub(crate) filed: Option<&'static str>,
}

impl Logging {
    /// A program without a folder of its own, which shows its log.
    pub(crate) const SHOWN: Self = Self { shown: "info", verbose: Self::VERBOSE, filed: None };

    const VERBOSE: &'static str = "info,annotate=debug,hub=debug,llm_client=debug,mtbench=debug";

    /// A program without a folder of its own, which shows `shown`; ranks other than rank 0 show no more with `--verbose`.
    pub(crate) fn shown(shown: &'static str) -> Self {
        let verbose = if shown.starts_with("error") { shown } else { Self::VERBOSE };
        Self { shown, verbose, filed: None }
    }

    /// Starts the log.
    fn start(self, args: ConsoleArgs) {
        let chosen = EnvFilter::try_from_default_env().ok();
        let is_plain = chosen.is_none() && !args.verbose;
        let shown =
            chosen.unwrap_or_else(|| EnvFilter::new(if is_plain { self.shown } else { self.verbose }));
        let layer = || fmt::layer().with_target(false);
        let on_terminal =
            layer().with_writer(|| terminal::LogWriter).with_ansi(terminal::has_colors(args.color));
        // A program that hides its log shows only what a person reads at once.
        let mut layers = if is_plain && self.filed.is_some() {
            terminal::print_once();
            vec![on_terminal.without_time().with_filter(shown).boxed()]
        } else {
            vec![on_terminal.with_filter(shown).boxed()]
        };
        layers.extend(self.filed.map(|filed| {
            let in_file = layer().with_writer(|| log_file::LogWriter).with_ansi(false);
            in_file.with_filter(EnvFilter::new(filed)).boxed()
        }));
        tracing_subscriber::registry().with(layers).init();
    }
}

/// Runs a program: logs, handles signals, and maps an error to a message and a status.
pub(crate) fn run(
    logging: Logging,
    args: ConsoleArgs,
    program: impl FnOnce(&Signals) -> anyhow::Result<()>,
) -> ExitCode {
    logging.start(args);
    let is_red = terminal::has_colors(args.color);
    let report = |error: &str| {
        let label = if is_red { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
        terminal::print_line(&format!("{label} {error}"));
    };
    let signals = match Signals::watch() {
        Ok(signals) => signals,
        Err(error) => {
            report(&format!("cannot handle signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match caught(|| program(&signals)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&printable(&format!("{error:#}")));
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
pub(crate) fn print_result(text: impl Display) -> std::io::Result<()> {
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
