//! The fuzz targets of `fuzz/`, each for some seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{Workspace, run as run_command};

/// How long each target runs if nobody says otherwise.
const SECONDS: &str = "10";

/// Targets that link libtorch, which makes their build long.
const OF_LIBTORCH: [&str; 2] = ["recipe", "safetensors"];

/// Folders whose files are further seeds of a target, from the root.
const FIXTURES: [(&str, &str); 3] = [
    ("parquet", "crates/pref-data/tests/fixtures/parquet"),
    ("arrow", "crates/pref-data/tests/fixtures/kinds"),
    ("tokenizer_json", "crates/pref-data/tests/fixtures/tiny"),
];

/// A folder in memory, on Linux.
const MEMORY: &str = "/dev/shm";

/// The nightly toolchain, whose sanitizers libFuzzer needs.
const TOOLCHAIN: &str = "nightly";

/// What to run.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    seconds: &'a str,
    targets: Vec<&'a str>,
}

/// Runs the targets with these names, or all that do not link libtorch, and stops at the first finding. Does nothing but
/// say so where cargo-fuzz or a nightly compiler is missing.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let known = targets(workspace)?;
    let wanted = parse(arguments, &known)?;
    if let Some(missing) = missing() {
        println!("skipped: {missing}");
        return Ok(());
    }
    for target in wanted.targets {
        println!("fuzzing {target} for {} s", wanted.seconds);
        let corpus = workspace.root().join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
        run_command(&mut command(workspace, target, wanted.seconds, corpus)).with_context(|| {
            format!(
                "{target} found something: the input is in fuzz/artifacts/{target}, and the report is above"
            )
        })?;
    }
    Ok(())
}

fn command(workspace: &Workspace, target: &str, seconds: &str, corpus: PathBuf) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(workspace.root()).env("RUSTUP_TOOLCHAIN", TOOLCHAIN);
    command.args(["fuzz", "run"]);
    // Most targets write files, which is many times as fast in memory.
    if Path::new(MEMORY).is_dir() {
        command.env("TMPDIR", MEMORY);
    }
    if OF_LIBTORCH.contains(&target) {
        command.args(["--features", "torch"]);
    }
    let of_target = |(name, folder): (&str, &str)| (name == target).then(|| workspace.root().join(folder));
    let seeds = [workspace.root().join("fuzz/seeds").join(target)].into_iter();
    let seeds = seeds.chain(FIXTURES.into_iter().filter_map(of_target)).filter(|folder| folder.is_dir());
    command.arg(target).arg(corpus).args(seeds);
    command.arg("--").args([
        &format!("-max_total_time={seconds}"),
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-max_len=65536",
    ]);
    command
}

/// Returns what is missing to run cargo-fuzz, and how to get it.
fn missing() -> Option<&'static str> {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.env("RUSTUP_TOOLCHAIN", TOOLCHAIN).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    match () {
        () if !works(&["--version"]) => {
            Some("there is no nightly compiler; install it with `rustup toolchain install nightly`")
        }
        () if !works(&["fuzz", "--version"]) => {
            Some("there is no cargo-fuzz; install it with `cargo install cargo-fuzz`")
        }
        () => None,
    }
}

/// The names of all targets, in order.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn parse<'a>(arguments: &[&'a str], known: &'a [String]) -> Result<Wanted<'a>> {
    let (seconds, names) = match arguments {
        ["--seconds", seconds, names @ ..] => (*seconds, names),
        names => (SECONDS, names),
    };
    ensure!(seconds.parse::<u32>().is_ok_and(|n| n > 0), "--seconds takes a number from 1, not `{seconds}`");
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|target| target == **name)) {
        bail!("there is no target `{unknown}`; the targets are {}", known.join(", "));
    }
    let targets = match names {
        [] => known.iter().map(String::as_str).filter(|name| !OF_LIBTORCH.contains(name)).collect(),
        names => names.to_vec(),
    };
    Ok(Wanted { seconds, targets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_seed() {
        let workspace = Workspace::locate().unwrap();
        for target in targets(&workspace).unwrap() {
            let seeds = workspace.root().join("fuzz/seeds").join(&target);
            let fixtures = FIXTURES
                .iter()
                .any(|(name, folder)| *name == target && workspace.root().join(folder).is_dir());
            assert!(fixtures || seeds.is_dir(), "{target} has no seed");
        }
    }

    #[test]
    fn arguments_name_seconds_and_targets() {
        let known = ["recipe", "rows", "verdict"].map(str::to_owned);
        let all = parse(&[], &known).unwrap();
        assert_eq!(all, Wanted { seconds: SECONDS, targets: vec!["rows", "verdict"] });
        let one = parse(&["--seconds", "600", "recipe"], &known).unwrap();
        assert_eq!(one, Wanted { seconds: "600", targets: vec!["recipe"] });
        assert!(parse(&["row"], &known).unwrap_err().to_string().contains("rows, verdict"));
        assert!(parse(&["--seconds", "soon"], &known).is_err());
    }
}
