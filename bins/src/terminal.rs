//! Standard error: lines that do not disturb a progress line, and whether they have colors.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use clap::ColorChoice;
use indicatif::{MultiProgress, ProgressBar};

use crate::launch::is_launched;

/// Every progress line.
static LINES: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
/// The lines that are printed once; `None` if repeated lines are printed, too.
static PRINTED: Mutex<Option<BTreeSet<String>>> = Mutex::new(None);

/// Adds a progress line.
pub(crate) fn add(line: ProgressBar) -> ProgressBar {
    LINES.add(line)
}

/// Leaves out log lines that were printed before: the runs of a study repeat the warnings about its data.
pub(crate) fn print_once() {
    *PRINTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeSet::new());
}

/// Prints a line on standard error.
pub(crate) fn print_line(line: &str) {
    write(format!("{line}\n").as_bytes());
}

/// Prints a line that a process of the rank has logged.
pub(crate) fn print_log_line(rank: usize, line: &str) {
    if is_new(line) {
        print_line(&format!("[rank {rank}] {line}"));
    }
}

fn write(bytes: &[u8]) {
    // A closed standard error does not end a run.
    let _ = LINES.suspend(|| io::stderr().write_all(bytes));
}

fn is_new(line: &str) -> bool {
    let is_event = ["INFO", "WARN"].iter().any(|level| line.trim_start().starts_with(level));
    let mut printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner);
    !is_event || printed.as_mut().is_none_or(|printed| printed.insert(line.trim_end().to_owned()))
}

/// The writer of the log on standard error, which gets one event a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if is_new(&String::from_utf8_lossy(event)) {
            write(event);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns whether standard error has colors: as `choice` says, otherwise by `NO_COLOR`, `CLICOLOR_FORCE` and the kind of
/// terminal.
pub(crate) fn has_colors(choice: ColorChoice) -> bool {
    // The process that starts a rank looks for its error message.
    !is_launched() && colors(choice, |name| env::var_os(name), io::stderr().is_terminal())
}

fn colors<T: AsRef<OsStr>>(
    choice: ColorChoice,
    variable: impl Fn(&str) -> Option<T>,
    is_terminal: bool,
) -> bool {
    let is_set = |name| variable(name).is_some_and(|value| !value.as_ref().is_empty());
    let is = |name, wanted: &str| variable(name).is_some_and(|value| value.as_ref() == wanted);
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if is_set("NO_COLOR") => false,
        ColorChoice::Auto if is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") => true,
        ColorChoice::Auto => is_terminal && !is("TERM", "dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_follow_the_argument_then_the_environment_then_the_terminal() {
        let with = |choice, set: &[(&str, &'static str)], is_terminal| {
            let variable = |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
            colors(choice, variable, is_terminal)
        };
        let auto = ColorChoice::Auto;
        assert!(with(auto, &[], true) && !with(auto, &[], false));
        assert!(with(auto, &[("CLICOLOR_FORCE", "1")], false));
        assert!(!with(auto, &[("CLICOLOR_FORCE", "0")], false));
        assert!(!with(auto, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(with(auto, &[("NO_COLOR", "")], true), "an empty value does not count");
        assert!(!with(auto, &[("TERM", "dumb")], true));
        assert!(with(ColorChoice::Always, &[("NO_COLOR", "1")], false));
        assert!(!with(ColorChoice::Never, &[("CLICOLOR_FORCE", "1")], true));
    }
}
