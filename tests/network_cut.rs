//! Two hosts, as network namespaces with their own addresses, and a network between them that fails during a run.
//!
//! Without the permission to create namespaces, or without `ip`, the test prints that it is skipped and passes.

#![cfg(target_os = "linux")]

mod bench;

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::Bench;
use files::fault;

/// The timeout of collectives in seconds while the network fails.
const TIMEOUT: &str = "10";
/// The timeout while the network works.
const LONG_TIMEOUT: &str = "600";
/// Fails a test that hangs. No result depends on it.
const HANGS: Duration = Duration::from_secs(600);
/// The step after which the network fails.
const CUT_AFTER: usize = 100;

/// Two namespaces, each with one end of a cable.
struct Hosts {
    names: [String; 2],
}

/// The addresses of the cable's ends.
const ADDRESSES: [&str; 2] = ["10.77.13.1", "10.77.13.2"];

impl Hosts {
    /// # Errors
    ///
    /// The reason why the system cannot provide such hosts.
    fn new() -> Result<Self, String> {
        let hosts = Self { names: ["a", "b"].map(|end| format!("pt-{end}-{}", std::process::id())) };
        let [a, b] = &hosts.names;
        try_ip(&["netns", "add", a])?;
        try_ip(&["netns", "add", b])?;
        try_ip(&["link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b])?;
        for (name, address) in hosts.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "cable"]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
            hosts.set_cable(name, "up");
        }
        Ok(hosts)
    }

    fn set_cable(&self, name: &str, state: &str) {
        ip(&["-n", name, "link", "set", "cable", state]);
    }

    /// Starts rank `index` on its host.
    fn start(&self, bench: &Bench, index: usize, arguments: &[&str], fault: &str) -> Child {
        Command::new("ip")
            .args(["netns", "exec", &self.names[index], env!("CARGO_BIN_EXE_pref-train")])
            .args(["--recipe", "recipe.toml"])
            .args(arguments)
            .env(fault::VARIABLE, fault)
            .envs([
                ("RANK", index.to_string()),
                ("LOCAL_RANK", "0".to_owned()),
                ("WORLD_SIZE", "2".to_owned()),
            ])
            .envs([("MASTER_ADDR", ADDRESSES[0]), ("MASTER_PORT", "29500"), ("OMP_NUM_THREADS", "1")])
            .current_dir(bench.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn start_both(&self, bench: &Bench, arguments: &[&str], fault: &str) -> [Child; 2] {
        [0, 1].map(|index| self.start(bench, index, arguments, fault))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // A namespace that was never created needs no removal.
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    try_ip(arguments).unwrap();
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments:?}: {}", said.trim())) }
}

fn ended(ranks: [Child; 2]) -> [Output; 2] {
    ranks.map(|rank| rank.wait_with_output().unwrap())
}

fn assert_success(outputs: &[Output]) {
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn both_ranks_end_when_the_network_fails_and_a_resumed_run_has_the_same_bytes() {
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(why) => {
            eprintln!(
                "SKIPPED both_ranks_end_when_the_network_fails_and_a_resumed_run_has_the_same_bytes: {why}"
            );
            return;
        }
    };
    let bench = Bench::new();
    let run = |out: &str, timeout: &str, resume: bool, fault: &str| {
        let out = format!("output.dir={out}");
        let mut arguments = vec!["--timeout", timeout];
        for setting in [
            "train.epochs=400",
            "train.learning_rate=1e-3",
            "train.threads=1",
            "train.checkpoints=[0.1, 0.5, 1.0]",
            &out,
        ] {
            arguments.extend(["--set", setting]);
        }
        if resume {
            arguments.push("--resume");
        }
        hosts.start_both(&bench, &arguments, fault)
    };
    assert_success(&ended(run("whole", LONG_TIMEOUT, false, "")));

    let hold = bench.path("hold");
    let fault = format!("trainer.step={CUT_AFTER}@0:{}", hold.display());
    let mut ranks = run("cut", TIMEOUT, false, &fault);
    let began = Instant::now();
    while !hold.join("held").exists() {
        assert!(began.elapsed() < HANGS && ranks[0].try_wait().unwrap().is_none(), "the run makes no steps");
        thread::sleep(Duration::from_millis(2));
    }
    // The far end: this end only loses the carrier, as if a cable were unplugged at the other host.
    hosts.set_cable(&hosts.names[1], "down");
    fs::write(hold.join("released"), "").unwrap();
    for output in ended(ranks) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 3)), "{:?}: {said}", output.status);
        assert!(said.contains("timed out") || said.contains("lost the connection to another rank"), "{said}");
    }
    assert!(!bench.path("cut/model").exists());

    hosts.set_cable(&hosts.names[1], "up");
    assert_success(&ended(run("cut", LONG_TIMEOUT, true, "")));
    for file in ["model/model.safetensors", "pair_deltas.parquet"] {
        let read = |out: &str| fs::read(bench.path(out).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs");
    }
}
