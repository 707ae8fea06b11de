//! Set-up and checks of this repository: `cargo xtask setup|demo|test|rehearse|bench|dist|gpu-check|book|sanitize|fuzz`.
//!
//! It builds before libtorch is installed, so it does not link libtorch and depends on anyhow alone.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "its output is what a person or CI reads")]

mod book;
mod checks;
mod circles;
mod edges;
mod fuzz;
mod nccl;
mod package;
mod readme;
mod reference;
mod rust_items;
mod sanitize;
mod setup;
mod source;
mod test_times;
mod tidy;
mod tracked;
mod wheel;
mod workspace;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use checks::Stage;
use setup::Want;
use workspace::Workspace;

const HELP: &str = "\
Set-up and checks of this repository.

Usage: cargo xtask <COMMAND>

Commands:
  setup [--cpu]     Install libtorch into .libtorch and configure cargo. Safe to repeat and to interrupt.
                    With an NVIDIA driver the CUDA libraries are included, except with --cpu.
                    An exported LIBTORCH is used as it is.
  demo              Build study and run the paper's four questions on the sandbox with two seeds. Prints the result of
                    each claim and writes runs/sandbox/report.html.
  test [STAGE]...   Run the checks, the cheapest first, or only the named ones: fmt tidy edges clippy doc test slow
                    package rare nccl polars frameworks. Without a name the stages up to test run; `all` adds slow.
  rehearse          Run the paper's study, from its plan to its report, with a tiny model, generated preferences and a
                    local judge, on two processes. Minutes.
  bench [ARG]...    Run the benchmarks; arguments go to `cargo bench` (such as -- --save-baseline NAME).
  dist              Write shell completions and manual pages of all programs into target/dist.
  gpu-check         Compare each path on a GPU with the CPU, in about a minute. Fails without a GPU.
  book [--write]    Build docs/ into target/book with mdbook; --write updates docs/reference from the code.
  sanitize          Run torch-ext's tests with its C++ under GCC's address and undefined-behaviour sanitizers.
  fuzz [--seconds N] [TARGET]...
                    Run the fuzz targets that do not link libtorch, or the named ones, for N seconds each (10).
                    Skipped without cargo-fuzz and a nightly compiler.

Commands and stages that link libtorch begin with setup.
";

/// Where the demo's tables, figures and report go.
const DEMO_OUT: &str = "runs/sandbox";

/// Where completions and manual pages go.
const DIST: &str = "target/dist";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some((&command, rest)) = arguments.split_first() else {
        print!("{HELP}");
        return Ok(());
    };
    if matches!(command, "help" | "-h" | "--help") || matches!(rest, ["-h" | "--help"]) {
        print!("{HELP}");
        return Ok(());
    }
    let workspace = Workspace::locate()?;
    match (command, rest) {
        ("setup", []) => setup::run(&workspace, Want::Detected),
        ("setup", ["--cpu"]) => setup::run(&workspace, Want::Cpu),
        ("demo", []) => demo(&workspace),
        ("test", stages) => test(&workspace, stages),
        ("rehearse", []) => rehearse(&workspace),
        ("bench", arguments) => bench(&workspace, arguments),
        ("dist", []) => dist(&workspace),
        ("gpu-check", []) => gpu_check(&workspace),
        ("sanitize", []) => sanitize(&workspace),
        ("fuzz", arguments) => fuzz::run(&workspace, arguments),
        ("book", []) => book::build(&workspace),
        ("book", ["--write"]) => book::write(&workspace),
        ("setup" | "demo" | "rehearse" | "dist" | "gpu-check" | "sanitize" | "book", [unknown, ..]) => {
            bail!("`cargo xtask {command}` does not know `{unknown}`; see `cargo xtask --help`")
        }
        _ => bail!("there is no command `{command}`; see `cargo xtask --help`"),
    }
}

/// Builds `study` and runs it on the sandbox. Times the run without the build.
fn demo(workspace: &Workspace) -> Result<()> {
    const PROGRAM: [&str; 4] = ["--package", "bins", "--bin", "study"];
    const QUESTIONS: &str = "--preset sandbox --seeds 2 --tables 1,2,3,4,5 --brief";
    setup::run(workspace, Want::Any)?;
    println!("Building study (minutes in a new clone, seconds later)");
    workspace.cargo(&[&["build"], PROGRAM.as_slice()].concat())?;
    println!("Running study {QUESTIONS} --out {DEMO_OUT}\n");
    let begin = Instant::now();
    let questions: Vec<&str> = QUESTIONS.split(' ').collect();
    let run = [&["run", "--quiet"], PROGRAM.as_slice(), &["--"], &questions, &["--out", DEMO_OUT]].concat();
    workspace.cargo(&run)?;
    let seconds = begin.elapsed().as_secs_f64();
    let folder = workspace.root().join(DEMO_OUT);
    let report = folder.join("report.html");
    ensure!(report.is_file(), "study ended well but {} is missing", report.display());
    println!("\nThe run took {seconds:.0} s after the build. The report: {}", report.display());
    println!("Every table: {}", folder.join("tables").display());
    let shown = workspace::output(workspace.cargo_command().args(&run))?;
    let readme =
        std::fs::read_to_string(workspace.root().join("README.md")).context("cannot read README.md")?;
    println!("{}", readme::compared(&readme, &shown));
    Ok(())
}

fn test(workspace: &Workspace, stages: &[&str]) -> Result<()> {
    let stages = checks::select(stages)?;
    if stages.iter().any(Stage::needs_libtorch) {
        setup::run(workspace, Want::Any)?;
    }
    checks::run(workspace, &stages)
}

fn bench(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    setup::run(workspace, Want::Any)?;
    let command: Vec<&str> = ["bench"].iter().chain(arguments).copied().collect();
    workspace.cargo(&command).context("the benchmarks did not end well")
}

/// Runs the study of the preset `paper` on stand-ins for its model, data and judge.
fn rehearse(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, Want::Any)?;
    workspace.cargo(&["test", "--package", "bins", "--test", "rehearsal", "--", "--nocapture"])
}

/// Writes completions and manual pages. Only this command builds what generates them.
fn dist(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, Want::Any)?;
    let run = ["run", "--quiet", "--package", "bins", "--example", "dist", "--", DIST];
    workspace.cargo(&run)?;
    let folder = workspace.root().join(DIST);
    println!(
        "Completions: {}\nManual pages: {}",
        folder.join("completions").display(),
        folder.join("man").display()
    );
    Ok(())
}

fn gpu_check(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, Want::Any)?;
    workspace
        .cargo(&["run", "--quiet", "--package", "trainer", "--example", "gpu_check"])
        .context("the GPU was not checked, or does not compute as the CPU does")
}

fn sanitize(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, Want::Any)?;
    sanitize::run(workspace)
}
