//! Progress on a terminal, plain lines elsewhere; the clock behind both.

use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use trainer::{Clock, Progress};

/// Interval between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts a clock.
    pub fn start() -> Self {
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

/// A progress bar on a terminal, and periodic log lines elsewhere. Both show rate and remaining time.
#[derive(Debug)]
pub struct ConsoleProgress {
    bar: ProgressBar,
    is_terminal: bool,
    what: String,
    /// Work and time at the first report, the origin of the rate.
    first: Option<(u64, Instant)>,
    last_line: Instant,
}

impl ConsoleProgress {
    /// Returns progress on stderr.
    pub fn stderr() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            is_terminal: std::io::stderr().is_terminal(),
            what: String::new(),
            first: None,
            last_line: Instant::now(),
        }
    }

    fn line(&self, done: u64, note: &str) {
        let total = self.bar.length().unwrap_or(done);
        let pace = self.first.filter(|(first, _)| done > *first).map_or(String::new(), |(first, since)| {
            let rate = (done - first) as f64 / since.elapsed().as_secs_f64().max(1e-9);
            let left = total.saturating_sub(done) as f64 / rate;
            format!(", {rate:.1}/s, {left:.0} s left")
        });
        let separator = if note.is_empty() { "" } else { ", " };
        tracing::info!("{}: {done}/{total}{pace}{separator}{note}", self.what);
    }
}

impl Progress for ConsoleProgress {
    fn begin(&mut self, what: &str, total: u64) {
        what.clone_into(&mut self.what);
        self.last_line = Instant::now();
        self.first = None;
        let target =
            if self.is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        self.bar = ProgressBar::with_draw_target(Some(total), target).with_message(self.what.clone());
        let style = ProgressStyle::with_template("{msg} {bar:24} {pos}/{len} {per_sec} {eta} left {prefix}");
        if let Ok(style) = style {
            self.bar.set_style(style);
        }
    }

    fn advance(&mut self, done: u64, note: &str) {
        // A resumed run starts in the middle, which must not count in the rate.
        self.first.get_or_insert_with(|| (done, Instant::now()));
        self.bar.set_prefix(note.to_owned());
        self.bar.set_position(done);
        if !self.is_terminal && self.last_line.elapsed() >= LINE_EVERY {
            self.line(done, note);
            self.last_line = Instant::now();
        }
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
