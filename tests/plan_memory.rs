//! Compares the memory of `pref-train --plan` with the measured peak of a run of the real 135M model.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Largest relative difference between planned and measured peak memory.
const PLANNED_MEMORY: f64 = 0.15;

fn command(model: &Path, pairs: &Path, out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pref-train"));
    command.arg("--recipe").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/laptop-135m.toml"));
    for (key, value) in [("model.path", model), ("data.path", pairs), ("output.dir", out)] {
        command.arg("--set").arg(format!("{key}={}", value.display()));
    }
    // Without a checkpoint: only training is measured.
    for setting in ["data.sample=16", "train.checkpoints=[]", "train.micro_batch_size=2"] {
        command.args(["--set", setting]);
    }
    command.args(arguments).stderr(Stdio::null());
    command
}

/// Largest relative difference between planned and measured peak memory of a rank.
const PLANNED_MEMORY_OF_A_RANK: f64 = 0.10;

/// Returns the plan's total memory in MB.
fn planned(command: Command) -> f64 {
    planned_at(command, "memory, MB")
}

/// Returns the number of a line of the plan.
fn planned_at(mut command: Command, name: &str) -> f64 {
    let output = command.arg("--plan").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let line = stdout.lines().find(|line| line.trim_start().starts_with(name)).expect("a line on memory");
    let number = line.trim_start().trim_start_matches(name).split_whitespace().next();
    number.and_then(|number| number.replace(',', "").parse().ok()).expect(line)
}

/// Returns the peak memory of a run in MB. Linux counts it, and a poll reads it until the run ends.
fn measured(command: Command) -> f64 {
    peak(start(command))
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).spawn().unwrap()
}

fn peak(mut child: Child) -> f64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0.0_f64;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        peak = peak.max(kb.unwrap_or(0.0) * 1024.0 / 1e6);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn planned_memory_matches_the_measured_peak() {
    const NAME: &str = "planned_memory_matches_the_measured_peak";
    let (Some(model), Some(data)) = (test_support::real_model(NAME), test_support::real_data(NAME)) else {
        return;
    };
    if !Path::new("/proc/self/status").exists() {
        return;
    }
    let pairs = data.join("hh-rlhf/harmless-base-test.jsonl.gz");
    let compare = |arguments: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let make = || command(&model, &pairs, &out.path().join("run"), arguments);
        (planned(make()), measured(make()))
    };
    let mut peaks = Vec::new();
    for arguments in [&[][..], &["--set", "train.gradient_checkpointing=true"], &["--set", "lora.rank=16"]] {
        let (planned, measured) = compare(arguments);
        let difference = (planned - measured).abs() / measured;
        assert!(difference < PLANNED_MEMORY, "{arguments:?}: {planned:.0} MB, measured {measured:.0} MB");
        peaks.push(measured);
    }
    assert!(peaks.is_sorted_by(|more, less| more > less), "each saves memory: {peaks:?}");
}

#[test]
fn planned_memory_of_each_stage_matches_the_peak_of_two_ranks() {
    const NAME: &str = "planned_memory_of_each_stage_matches_the_peak_of_two_ranks";
    let (Some(model), Some(data)) = (test_support::real_model(NAME), test_support::real_data(NAME)) else {
        return;
    };
    if !Path::new("/proc/self/status").exists() {
        return;
    }
    let pairs = data.join("hh-rlhf/harmless-base-test.jsonl.gz");
    let mut peaks = Vec::new();
    for zero in 0..4 {
        let out = tempfile::tempdir().unwrap();
        let stage = format!("distributed.zero={zero}");
        let less = ["--set", "train.epochs=1", "--set", "data.sample=8"];
        let make = || {
            let mut command = command(&model, &pairs, &out.path().join("run"), &["--set", &stage]);
            command.args(less);
            command
        };
        let mut plan = make();
        plan.args(["--nproc-per-node", "2"]);
        let planned = planned_at(plan, &format!("memory with zero = {zero}, MB"));
        let port = test_support::free_port().to_string();
        let ranks = ["0", "1"].map(|rank| {
            let mut command = make();
            command.env("RANK", rank).env("WORLD_SIZE", "2").env("OMP_NUM_THREADS", "1");
            command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", &port);
            start(command)
        });
        let polls = ranks.map(|child| std::thread::spawn(|| peak(child)));
        let measured = polls.map(|poll| poll.join().unwrap()).into_iter().fold(0.0, f64::max);
        let difference = (planned - measured).abs() / measured;
        println!("zero = {zero}: planned {planned:.0} MB, measured {measured:.0} MB");
        assert!(
            difference < PLANNED_MEMORY_OF_A_RANK,
            "zero = {zero}: {planned:.0} MB, measured {measured:.0} MB"
        );
        peaks.push(measured);
    }
    assert!(peaks.is_sorted_by(|more, less| more > less), "each stage saves memory: {peaks:?}");
}
