//! The stages of `cargo xtask test`, the cheapest first.
//!
//! A test that takes long says `#[ignore = "slow: cargo xtask test slow"]`. The stage `slow` runs these tests and no others.
//! Test binaries of the stage `rare` have `test = false` in their manifest, so that no other stage builds them; its
//! simulations say `#[ignore = "rare: cargo xtask test rare"]`.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, run as run_command};
use crate::{edges, nccl, package, test_times, tidy};

/// One check of the whole workspace.
pub(crate) struct Stage {
    name: &'static str,
    /// What it runs, as a person would type it.
    command: &'static str,
    check: fn(&Workspace) -> Result<()>,
}

impl Stage {
    /// Whether the stage builds crates that link libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        !matches!(self.name, "fmt" | "tidy" | "edges" | "package" | "polars" | "frameworks")
    }
}

/// The stage of long tests: runs only when it is named, or for [`ALL`].
const SLOW: &str = "slow";
/// Names every stage but [`RARE`].
const ALL: &str = "all";
/// Stages that take minutes and rarely find anything that the others let pass: each runs only when it is named.
const RARE: [&str; 5] = ["package", "rare", "nccl", "polars", "frameworks"];

/// No stage but `nccl` sets what an earlier one left unset (flags, features, profile), so nothing is built twice.
const STAGES: [Stage; 12] = [
    Stage {
        name: "fmt",
        command: "cargo fmt --all --check",
        check: |w| w.cargo(&["fmt", "--all", "--check"]),
    },
    Stage { name: "tidy", command: "cargo xtask test tidy", check: tidy::check },
    Stage { name: "edges", command: "cargo xtask test edges", check: edges::check },
    Stage { name: "package", command: "cargo xtask test package", check: package::check },
    Stage {
        name: "clippy",
        command: "cargo clippy --workspace --all-targets --test plan_memory --test parity_trl --test rehearsal -- -D warnings",
        check: clippy,
    },
    Stage {
        name: "doc",
        command: "RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --lib",
        check: doc,
    },
    Stage { name: "test", command: "cargo test --workspace --no-fail-fast --tests, then --doc", check: test },
    Stage {
        name: SLOW,
        command: "cargo test --workspace --no-fail-fast --tests -- --ignored --skip in_many_studies",
        check: |w| {
            let mut command = w.cargo_command();
            command.args(["test", "--workspace", "--no-fail-fast", "--tests"]);
            command.args(["--", "--ignored", "--skip", MANY_STUDIES]);
            test_times::run(&mut [command])
        },
    },
    Stage {
        name: "rare",
        command: "cargo test --workspace --test plan_memory --test parity_trl, then --test calibration -- --ignored",
        check: |w| {
            let [mut command, mut simulations] = [w.cargo_command(), w.cargo_command()];
            command.args(["test", "--workspace"]).args(RARE_TESTS);
            simulations.args(["test", "--workspace", "--test", "calibration", "--", "--ignored"]);
            test_times::run(&mut [command, simulations])
        },
    },
    Stage {
        name: "nccl",
        command: "cargo test --workspace --features torch-ext/nccl,trainer/nccl --test distributed --no-run",
        check: nccl::check,
    },
    Stage {
        name: "polars",
        command: "cargo test --manifest-path examples/with-polars/Cargo.toml",
        check: |w| outside(w, "examples/with-polars/Cargo.toml"),
    },
    Stage {
        name: "frameworks",
        command: "cargo test --manifest-path examples/other-frameworks/Cargo.toml",
        check: |w| outside(w, "examples/other-frameworks/Cargo.toml"),
    },
];

/// Tests a package outside of the workspace, which has a lock file of its own.
fn outside(workspace: &Workspace, manifest: &str) -> Result<()> {
    workspace.cargo(&["test", "--locked", "--manifest-path", manifest, "--target-dir", "target/outside"])
}

/// Ends the names of simulations, which belong to the stage `rare`.
const MANY_STUDIES: &str = "in_many_studies";
/// The test binaries of the stage `rare`.
const RARE_TESTS: [&str; 4] = ["--test", "plan_memory", "--test", "parity_trl"];

/// Returns the stages of these names in their own order; without a name all but `slow` and the rare ones.
pub(crate) fn select(names: &[&str]) -> Result<Vec<Stage>> {
    for name in names.iter().filter(|name| **name != ALL) {
        STAGES.iter().find(|stage| stage.name == *name).with_context(|| {
            let known: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
            format!("there is no stage `{name}`; the stages are {}, or {ALL}", known.join(", "))
        })?;
    }
    let is_selected = |stage: &Stage| match names {
        [] => stage.name != SLOW && !RARE.contains(&stage.name),
        _ if RARE.contains(&stage.name) => names.contains(&stage.name),
        _ => names.contains(&ALL) || names.contains(&stage.name),
    };
    Ok(STAGES.into_iter().filter(is_selected).collect())
}

/// Runs stages until one fails, and closes with what each took.
pub(crate) fn run(workspace: &Workspace, stages: &[Stage]) -> Result<()> {
    let mut summary = Vec::new();
    for stage in stages {
        println!("== {}: {}", stage.name, stage.command);
        let begin = Instant::now();
        let outcome = (stage.check)(workspace);
        let line = format!("{:<7} {:>7.1} s", stage.name, begin.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            close(&summary);
            println!("   {line}  FAILED");
            return Err(error).with_context(|| {
                format!("stage {0} failed; run it alone with `cargo xtask test {0}`", stage.name)
            });
        }
        println!("== {line}\n");
        summary.push(line);
    }
    close(&summary);
    println!("All checks passed.");
    Ok(())
}

fn close(summary: &[String]) {
    println!("Stages:");
    for line in summary {
        println!("   {line}  ok");
    }
}

/// Lints of all targets, the rare tests included.
fn clippy(workspace: &Workspace) -> Result<()> {
    let targets = ["clippy", "--workspace", "--all-targets"];
    workspace
        .cargo(&[targets.as_slice(), &RARE_TESTS, &["--test", "rehearsal", "--", "-D", "warnings"]].concat())
}

/// Unit, integration and documentation tests. The examples are left out: linking them takes long, and clippy checks them.
fn test(workspace: &Workspace) -> Result<()> {
    let mut command = workspace.cargo_command();
    command.args(["test", "--workspace", "--no-fail-fast", "--tests"]);
    let mut documentation = workspace.cargo_command();
    documentation.args(["test", "--workspace", "--no-fail-fast", "--doc"]);
    test_times::run(&mut [command, documentation])
}

/// Documentation, with rustdoc's warnings denied. Nothing is linked, so no run-time search path is lost here.
fn doc(workspace: &Workspace) -> Result<()> {
    let exported = std::env::var("RUSTDOCFLAGS").unwrap_or_default();
    let mut command = workspace.cargo_command();
    command.args(["doc", "--workspace", "--no-deps", "--lib"]);
    command.env("RUSTDOCFLAGS", format!("{exported} -D warnings"));
    run_command(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_stages_run_in_their_own_order() {
        let names = |selected: Vec<Stage>| selected.iter().map(|stage| stage.name).collect::<Vec<_>>();
        assert_eq!(names(select(&["test", "fmt"]).unwrap()), ["fmt", "test"]);
        let all = names(select(&["all"]).unwrap());
        assert!(all.len() == STAGES.len() - RARE.len() && all.contains(&"slow"), "{all:?}");
        let default = names(select(&[]).unwrap());
        assert!(default.len() == STAGES.len() - RARE.len() - 1 && !default.contains(&"slow"), "{default:?}");
        assert_eq!(names(select(&["nccl", "all"]).unwrap()).len(), STAGES.len() - RARE.len() + 1);
        let error = select(&["tests"]).err().unwrap().to_string();
        assert!(error.contains("no stage `tests`") && error.contains("clippy"), "{error}");
    }

    #[test]
    fn a_failing_stage_stops_the_rest_and_says_how_to_run_it_alone() {
        let workspace = Workspace::locate().unwrap();
        let fails = Stage { name: "fmt", command: "-", check: |_| anyhow::bail!("crooked") };
        let unreached = Stage { name: "tidy", command: "-", check: |_| panic!("must not run") };
        let error = format!("{:#}", run(&workspace, &[fails, unreached]).unwrap_err());
        assert_eq!(error, "stage fmt failed; run it alone with `cargo xtask test fmt`: crooked");
    }
}
