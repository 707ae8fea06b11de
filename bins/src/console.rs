//! Progress on a terminal, plain lines elsewhere; the clock behind both.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use trainer::{Clock, Overall, Progress};

use crate::units::duration;
use crate::{log_file, terminal};

/// The time before the first plain line.
const FIRST_LINE: Duration = Duration::from_secs(2);
/// The interval between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The interval between two pictures of a progress line.
const TICK: Duration = Duration::from_millis(250);
/// The positions of the bar.
const BAR: u64 = 1000;

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts a clock.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn unix_seconds(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}

/// One progress line on a terminal, and periodic plain lines elsewhere, on standard error. Both show the remaining time, of all runs
/// if there are several.
#[derive(Debug)]
pub(crate) struct ConsoleProgress {
    line: Option<ProgressBar>,
    is_terminal: bool,
    next_plain_line: Instant,
    work: Option<Work>,
    all: Option<All>,
    /// The folder of the log, which exists when work begins.
    log_folder: Option<PathBuf>,
}

/// The work that is being done.
#[derive(Debug)]
struct Work {
    what: String,
    total: u64,
    done: u64,
    note: String,
    /// Work and time at the first report, the origin of the rate.
    first: Option<(u64, Instant)>,
}

/// The runs that the work is a part of.
#[derive(Debug)]
struct All {
    overall: Overall,
    /// Share and time at the first report.
    first: (f64, Instant),
}

impl ConsoleProgress {
    /// Returns progress on stderr.
    pub(crate) fn stderr() -> Self {
        Self {
            line: None,
            is_terminal: std::io::stderr().is_terminal(),
            next_plain_line: Instant::now() + FIRST_LINE,
            work: None,
            all: None,
            log_folder: None,
        }
    }

    /// Opens the log in `folder` when work begins.
    #[must_use]
    pub(crate) fn with_log(mut self, folder: PathBuf) -> Self {
        self.log_folder = Some(folder);
        self
    }

    /// Shows work of unknown length before the folder of the log exists.
    pub(crate) fn wait(&mut self, what: &str) {
        let (what, note) = (what.to_owned(), String::new());
        self.work = Some(Work { what, total: 1, done: 0, note, first: None });
        self.show();
    }

    fn open_log(&mut self) {
        if let Some(folder) = self.log_folder.take() {
            log_file::open(&folder, true);
        }
    }

    fn show(&mut self) {
        if self.is_terminal {
            let line = self.line.get_or_insert_with(new_line);
            line.set_position((share(self.work.as_ref(), self.all.as_ref()) * BAR as f64) as u64);
            line.set_message(text(self.work.as_ref(), self.all.as_ref()));
        } else if Instant::now() >= self.next_plain_line {
            terminal::print_line(&text(self.work.as_ref(), self.all.as_ref()));
            self.next_plain_line = Instant::now() + LINE_EVERY;
        }
    }
}

fn new_line() -> ProgressBar {
    let line = terminal::add(ProgressBar::new(BAR));
    let style = ProgressStyle::with_template("{spinner} {bar:20} {wide_msg} {elapsed_precise}");
    if let Ok(style) = style {
        line.set_style(style);
    }
    // The line moves while a library computes.
    line.enable_steady_tick(TICK);
    line
}

/// Returns the finished share.
fn share(work: Option<&Work>, all: Option<&All>) -> f64 {
    let of_work = work.map_or(0.0, |work| work.done as f64 / work.total.max(1) as f64);
    match all {
        // Evaluation and reference log-probabilities take little of a run.
        Some(All { overall, .. }) if work.is_some_and(|work| work.what == TRAINING) => {
            overall.share + overall.next * of_work
        }
        Some(All { overall, .. }) => overall.share,
        None => of_work,
    }
}

/// What the trainer calls its steps.
const TRAINING: &str = "training";

/// Returns the line: the run and the time left, then the work with its rate and note.
fn text(work: Option<&Work>, all: Option<&All>) -> String {
    let mut parts = Vec::new();
    if let Some(All { overall: Overall { done, runs, .. }, first: (from, since) }) = all
        && done < runs
    {
        let run = done + 1;
        let left = time_left(since.elapsed(), share(work, all) - from, 1.0 - share(work, all));
        parts.push(format!(
            "run {run} of {runs}{}",
            left.map_or_else(String::new, |left| format!(", {left} left"))
        ));
    }
    if let Some(Work { what, total, done, note, first }) = work {
        parts.push(if *total > 1 { format!("{what} {done}/{total}") } else { what.clone() });
        let (first_done, since) = first.unwrap_or((*done, Instant::now()));
        let left = time_left(
            since.elapsed(),
            done.saturating_sub(first_done) as f64,
            total.saturating_sub(*done) as f64,
        );
        parts.extend(left.filter(|_| all.is_none()).map(|left| format!("{left} left")));
        parts.extend(Some(note.clone()).filter(|note| !note.is_empty()));
    }
    parts.join(", ")
}

/// Returns the time that `remaining` work takes at the pace of the `done` work; `None` without a pace.
fn time_left(elapsed: Duration, done: f64, remaining: f64) -> Option<String> {
    (done > 0.0).then(|| duration(elapsed.as_secs_f64() * remaining.max(0.0) / done))
}

impl Progress for ConsoleProgress {
    fn begin(&mut self, what: &str, total: u64) {
        self.open_log();
        let (what, note) = (what.to_owned(), String::new());
        self.work = Some(Work { what, total, done: 0, note, first: None });
        self.show();
    }

    fn advance(&mut self, done: u64, note: &str) {
        if let Some(work) = &mut self.work {
            // A resumed run starts in the middle, which must not count in the rate.
            work.first.get_or_insert_with(|| (done, Instant::now()));
            work.done = done;
            note.clone_into(&mut work.note);
        }
        self.show();
    }

    fn end(&mut self) {
        self.work = None;
        match (&self.all, self.line.take()) {
            // The next work of these runs has the same line.
            (Some(All { overall, .. }), line) if overall.done < overall.runs => self.line = line,
            (_, Some(line)) => line.finish_and_clear(),
            (_, None) => {}
        }
    }

    fn overall(&mut self, overall: Overall) {
        self.open_log();
        let same = self.all.as_ref().filter(|all| all.overall.runs == overall.runs);
        let first = same.map_or_else(|| (overall.share, Instant::now()), |all| all.first);
        self.all = Some(All { overall, first });
        self.show();
    }
}

impl Drop for ConsoleProgress {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_run_and_the_time_left_of_all_runs() {
        let a_minute_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let overall = Overall { done: 6, runs: 46, share: 0.1, next: 0.1 };
        let all = All { overall, first: (0.0, a_minute_ago) };
        let work = |what: &str| Work {
            what: what.to_owned(),
            total: 40,
            done: 20,
            note: "loss 0.6".to_owned(),
            first: None,
        };
        let training = text(Some(&work(TRAINING)), Some(&all));
        assert_eq!(training, "run 7 of 46, 5 min 40 s left, training 20/40, loss 0.6");
        let answering = text(Some(&work("answers")), Some(&all));
        assert_eq!(answering, "run 7 of 46, 9 min left, answers 20/40, loss 0.6");
        let alone = Work { first: Some((10, a_minute_ago)), ..work(TRAINING) };
        assert_eq!(text(Some(&alone), None), "training 20/40, 2 min left, loss 0.6");
        assert_eq!(text(Some(&work(TRAINING)), None), "training 20/40, loss 0.6", "no pace yet");
    }
}
