//! Studies whose cells are computed by several processes: groups of ranks give the scores of one process, and survive deaths.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use experiment::results::{ScoreRow, read_parquet};
use files::fault;
use test_support::{SMALL_SANDBOX, free_port};

const RQ1: &str = env!("CARGO_BIN_EXE_rq1");
const STUDY: &str = env!("CARGO_BIN_EXE_study");

/// Two cells: DPO on the labels of two annotators, in six steps each.
const TWO_CELLS: &str = "study.losses=[\"dpo\"]";

fn command(out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(RQ1);
    command.args(["--preset", "sandbox"]).arg("--out").arg(out);
    command.env("RUST_LOG", "info").env("OMP_NUM_THREADS", "1");
    for setting in SMALL_SANDBOX.into_iter().chain([TWO_CELLS]) {
        command.args(["--set", setting]);
    }
    command.args(arguments);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a study, and returns its log.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

/// Returns each score with the length of its answer, by policy, question, turn and scorer.
fn scores(out: &Path) -> BTreeMap<String, (Option<f64>, u64)> {
    let key = |row: &ScoreRow| {
        let ScoreRow { annotator, loss, seed, step, question_set, question_id, turn, scorer, .. } = row;
        format!("{annotator} {loss} {seed} {step} {question_set} {question_id} {turn} {scorer}")
    };
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    rows.iter().map(|row| (key(row), (row.score, row.characters))).collect()
}

/// Asserts that the store has the scores of another one, no unfinished attempt, and intact files.
#[track_caller]
fn assert_same_whole_store(out: &Path, other: &Path) {
    assert_eq!(scores(out), scores(other));
    assert_eq!(fs::read_dir(out.join("store/begun")).map_or(0, Iterator::count), 0, "no attempt is open");
    let verified = Command::new(STUDY).arg("verify").arg(out).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn groups_of_every_size_give_the_scores_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    succeeds(&mut command(&out("alone"), &["--jobs", "1"]));
    for size in ["2", "1"] {
        let arguments = ["--nproc-per-node", "2", "--group-size", size];
        let log = succeeds(&mut command(&out(size), &arguments));
        assert_same_whole_store(&out(size), &out("alone"));
        assert_eq!(log.matches("rank 1 of 2 on Cpu").count(), usize::from(size == "2"), "{log}");
        let trainings = || log.lines().filter(|line| line.contains("training DPO"));
        let ranks: BTreeSet<&str> = trainings().filter_map(|line| line.split(']').next()).collect();
        assert_eq!((trainings().count(), ranks.len()), (if size == "2" { 4 } else { 2 }, 2), "{log}");
    }
}

#[test]
fn ranks_that_share_all_weights_train_and_answer_together() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    succeeds(&mut command(&out("whole"), &["--nproc-per-node", "2"]));
    let arguments = ["--nproc-per-node", "2", "--set", "distributed.zero=3"];
    let log = succeeds(&mut command(&out("shared"), &arguments));
    // Of the supervised policy and of two trained ones, on two ranks.
    assert_eq!(log.matches("the answers gather each layer").count(), 6, "{log}");
    // Gathered weights are summed in another order, and an answer that is sampled differently once goes on differently.
    let (shared, whole) = (scores(&out("shared")), scores(&out("whole")));
    let same = whole.iter().filter(|(key, score)| shared.get(*key) == Some(*score)).count();
    assert_eq!(shared.len(), whole.len());
    assert!(4 * same >= 3 * whole.len(), "{same} of {} scores are the same", whole.len());
}

#[test]
fn a_group_whose_rank_dies_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    succeeds(&mut command(&out("alone"), &["--jobs", "1"]));
    let together = ["--nproc-per-node", "2", "--max-restarts", "1"];
    // The first cell has six steps, and the second one resumes before its third.
    let log = succeeds(command(&out("crashed"), &together).env(fault::VARIABLE, "trainer.step=9@1"));
    assert_eq!(log.matches("group 1 of 1 starts again").count(), 1, "{log}");
    assert_same_whole_store(&out("crashed"), &out("alone"));
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn a_cell_whose_processes_die_too_often_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let together = ["--nproc-per-node", "2", "--max-restarts", "1", "--group-size", "2"];
    // The first cell survives a death at its fourth step, since a checkpoint of the third exists. The second one has three
    // steps fewer until the next death, and dies at its first step, and then at its fourth.
    let output = command(&out, &together).env(fault::VARIABLE, "trainer.step=4@1").output().unwrap();
    let (log, stdout) = (stderr(&output), String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("1 of 2 trained policies failed"), "{log}");
    assert!(stdout.contains("a process died 2 times while computing it"), "{stdout}");
    // Without faults, the failed cell is tried again.
    succeeds(&mut command(&out, &together));
    assert_eq!(scores(&out).values().filter(|(score, _)| score.is_none()).count(), 0);
}

#[test]
fn without_restarts_the_first_death_ends_the_study() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let ended = command(&out, &["--nproc-per-node", "2", "--max-restarts", "0"])
        .env(fault::VARIABLE, "trainer.step=1@1")
        .output()
        .unwrap();
    let log = stderr(&ended);
    assert!(ended.status.code() == Some(1) && log.contains("error: group 1 of 1 failed"), "{log}");
}

#[test]
fn an_error_in_a_group_fails_its_cell_only() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    // Under the larger β, gradients are not finite.
    let betas = ["--set", "study.betas=[1e39, 0.1]", "--nproc-per-node", "2"];
    let output = command(&out, &betas).output().unwrap();
    let (log, stdout) = (stderr(&output), String::from_utf8_lossy(&output.stdout).into_owned());
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("2 of 4 trained policies failed") && !log.contains("starts again"), "{log}");
    assert!(stdout.contains("the loss is inf at step 1"), "{stdout}");
}

/// Starts one process per rank with the variables of torchrun, and returns their outputs.
fn torchrun(commands: impl Iterator<Item = Command>, restart: &str) -> Vec<Output> {
    let port = free_port().to_string();
    let start = |(rank, mut command): (usize, Command)| {
        let rank = rank.to_string();
        command.envs([("RANK", &*rank), ("LOCAL_RANK", &rank), ("WORLD_SIZE", "2"), ("MASTER_PORT", &port)]);
        command.envs([("MASTER_ADDR", "127.0.0.1"), ("TORCHELASTIC_RESTART_COUNT", restart)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ranks: Vec<Child> = commands.enumerate().map(start).collect();
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

#[test]
fn ranks_of_another_launcher_compute_a_study() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    succeeds(&mut command(&out("alone"), &["--jobs", "1"]));
    for size in ["2", "1"] {
        let ranks = || (0..2).map(|_| command(&out(size), &["--group-size", size]));
        let outputs = torchrun(ranks(), "0");
        for output in &outputs {
            assert!(output.status.success(), "{}", stderr(output));
        }
        assert!(!outputs[0].stdout.is_empty() && outputs[1].stdout.is_empty(), "only rank 0 prints");
        assert_same_whole_store(&out(size), &out("alone"));
    }
    let uneven = torchrun((0..2).map(|_| command(&out("uneven"), &["--group-size", "3"])), "0");
    for output in uneven {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("--group-size 3 does not divide the 2 processes"), "{output:?}");
    }
    assert!(!out("uneven").exists());
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn a_launcher_that_starts_the_ranks_again_knows_how_often_they_died() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let died = || (0..2).map(|_| command(&out, &["--max-restarts", "0"]));
    let fault = |mut command: Command| {
        command.env(fault::VARIABLE, "trainer.step=1@1");
        command
    };
    assert!(torchrun(died().map(fault), "0").iter().all(|output| !output.status.success()));
    let again = torchrun(died(), "1").swap_remove(0);
    assert_eq!(again.status.code(), Some(1), "{}", stderr(&again));
    let printed = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(printed.contains("a process died once while computing it"), "{printed}");
}
