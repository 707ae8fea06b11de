//! `cargo test` with the time of each test binary.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// A binary that takes longer should shrink, or move its long tests to the stage `slow`.
const LONG: Duration = Duration::from_secs(20);
/// Binaries below this share one line of the table.
const SHORT: Duration = Duration::from_secs(1);

/// The time of one test binary, or of the documentation tests of one crate.
#[derive(Debug, PartialEq)]
struct Timed {
    name: String,
    time: Duration,
    /// The sum of its tests that were left out, such as slow ones.
    ignored: usize,
}

/// Runs `cargo test` commands in turn, passes their output on and prints the times of all binaries. A failing command
/// does not keep the next one from running.
pub(crate) fn run(commands: &mut [Command]) -> Result<()> {
    let mut times = Times::default();
    let mut failures = Vec::new();
    for command in commands {
        let status = pass_on(command, &mut times)?;
        if !status.success() {
            failures.push(status.to_string());
        }
    }
    print!("{}", table(&times.finish(Instant::now())));
    ensure!(failures.is_empty(), "`cargo test` failed ({})", failures.join(", "));
    Ok(())
}

/// Runs one command, prints its output and reads the times from it.
fn pass_on(command: &mut Command, times: &mut Times) -> Result<ExitStatus> {
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    let second = writer.try_clone().context("cannot share a pipe")?;
    let mut child = command.stdout(writer).stderr(second).spawn().context("cannot start `cargo test`")?;
    // The command keeps its ends of the pipe open, and the reader would wait for them.
    command.stdout(io::stdout()).stderr(io::stderr());
    let mut out = io::stdout().lock();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read the output of `cargo test`")?;
        out.write_all(&line).and_then(|()| out.write_all(b"\n")).context("cannot pass on the output")?;
        times.read(&String::from_utf8_lossy(&line), Instant::now());
    }
    let status = child.wait().context("cannot wait for `cargo test`")?;
    // What follows until the next binary is building.
    times.stop(Instant::now());
    Ok(status)
}

/// Collects times from the lines of `cargo test`, which says what it starts next.
#[derive(Default)]
struct Times {
    done: Vec<Timed>,
    running: Option<(Timed, Instant)>,
    package: String,
}

impl Times {
    fn read(&mut self, line: &str, now: Instant) {
        let line = line.trim();
        if let Some(name) = self.started(line) {
            self.stop(now);
            self.running = Some((Timed { name, time: Duration::ZERO, ignored: 0 }, now));
        } else if let (Some((timed, _)), Some(counts)) =
            (&mut self.running, line.strip_prefix("test result: "))
        {
            let ignored = counts.split(';').find_map(|part| part.trim().strip_suffix(" ignored"));
            timed.ignored += ignored.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
        }
    }

    /// Returns the name of the binary that a line announces.
    fn started(&mut self, line: &str) -> Option<String> {
        if let Some(library) = line.strip_prefix("Doc-tests ") {
            return Some(format!("{} documentation", library.replace('_', "-")));
        }
        let (source, binary) = line.strip_prefix("Running ")?.split_once(" (")?;
        let binary = binary.trim_end_matches(')').rsplit(['/', '\\']).next()?;
        let target = binary.rsplit_once('-').map_or(binary, |(target, _)| target).replace('_', "-");
        match source.strip_prefix("unittests ") {
            Some("src/lib.rs" | "src/main.rs") => {
                self.package = target;
                Some(format!("{} unit tests", self.package))
            }
            _ => Some(format!("{} {target}", self.package)),
        }
    }

    fn stop(&mut self, now: Instant) {
        if let Some((timed, since)) = self.running.take() {
            self.done.push(Timed { time: now - since, ..timed });
        }
    }

    fn finish(mut self, now: Instant) -> Vec<Timed> {
        self.stop(now);
        self.done.sort_by_key(|timed| std::cmp::Reverse(timed.time));
        self.done
    }
}

/// The table of times, the longest first.
fn table(times: &[Timed]) -> String {
    let seconds = |time: Duration| format!("{:>8.1} s", time.as_secs_f64());
    let (long, short): (Vec<_>, Vec<_>) = times.iter().partition(|timed| timed.time >= SHORT);
    let mut lines = String::from("Test binaries:\n");
    for timed in long {
        let note = if timed.time > LONG { "  over 20 s" } else { "" };
        let ignored = if timed.ignored > 0 { format!("  {} ignored", timed.ignored) } else { String::new() };
        lines += &format!("{}  {}{note}{ignored}\n", seconds(timed.time), timed.name);
    }
    if !short.is_empty() {
        let sum = short.iter().map(|timed| timed.time).sum();
        lines += &format!("{}  {} others, below 1 s each\n", seconds(sum), short.len());
    }
    lines + &format!("{}  in all\n", seconds(times.iter().map(|timed| timed.time).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_timed_from_their_start_to_the_next() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut times = Times::default();
        for (second, line) in [
            (0, "   Compiling stats v0.1.0"),
            (10, "     Running unittests src/lib.rs (target/debug/deps/pref_loss-01ab)"),
            (
                12,
                "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
            ),
            (13, "     Running tests/closed_forms.rs (target/debug/deps/closed_forms-02cd)"),
            (
                40,
                "test result: ok. 3 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 9s",
            ),
            (41, "   Doc-tests pref_loss"),
        ] {
            times.read(line, at(second));
        }
        let printed = table(&times.finish(at(41)));
        let expected = "Test binaries:\n    28.0 s  pref-loss closed-forms  over 20 s  2 ignored\n     \
                        3.0 s  pref-loss unit tests\n     0.0 s  1 others, below 1 s each\n    31.0 s  in all\n";
        assert_eq!(printed, expected);
    }

    #[test]
    fn a_failure_is_kept_and_the_next_command_runs() {
        let second = std::env::temp_dir().join(format!("xtask-second-{}", std::process::id()));
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]).env("SECOND", &second);
            command
        };
        let first = script("echo '     Running tests/a.rs (a-1)'; echo said >&2; exit 3");
        let error = run(&mut [first, script("touch \"$SECOND\"")]).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(std::fs::remove_file(&second).is_ok(), "the second command has run");
    }
}
