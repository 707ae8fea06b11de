//! Two hosts, as network namespaces with addresses of their own, and a network between them that goes silent in mid-run.
//!
//! Where namespaces cannot be made (who may not, where there is no `ip`), the test says so and passes.

#![cfg(target_os = "linux")]

mod bench;

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::Bench;

/// How long ranks wait for each other.
const TIMEOUT: Duration = Duration::from_secs(4);
/// What they may take beside that until they have ended: asking the store in vain, and parting.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// Long beside anything that works, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two namespaces, each with one end of a cable.
struct Hosts {
    names: [String; 2],
}

/// The addresses of the cable's ends.
const ADDRESSES: [&str; 2] = ["10.77.13.1", "10.77.13.2"];

impl Hosts {
    /// # Errors
    ///
    /// Why the system has no such hosts to offer.
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
    fn start(&self, bench: &Bench, index: usize, arguments: &[&str]) -> Child {
        Command::new("ip")
            .args(["netns", "exec", &self.names[index], env!("CARGO_BIN_EXE_pref-train")])
            .args(["--recipe", "recipe.toml", "--timeout", &TIMEOUT.as_secs().to_string()])
            .args(arguments)
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

    fn start_both(&self, bench: &Bench, arguments: &[&str]) -> [Child; 2] {
        [0, 1].map(|index| self.start(bench, index, arguments))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // A namespace that was never made is as good as one that is gone.
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
fn a_network_that_goes_silent_ends_both_sides_and_costs_no_bytes() {
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(why) => {
            eprintln!("SKIPPED a_network_that_goes_silent_ends_both_sides_and_costs_no_bytes: {why}");
            return;
        }
    };
    let bench = Bench::new();
    let run = |out: &str| {
        let settings = [
            "train.epochs=400",
            "train.learning_rate=1e-3",
            "train.threads=1",
            "train.checkpoints=[0.1, 0.5, 1.0]",
        ];
        let settings = settings.map(str::to_owned).into_iter().chain([format!("output.dir={out}")]);
        settings.flat_map(|setting| ["--set".to_owned(), setting]).collect::<Vec<String>>()
    };
    let whole = run("whole");
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    assert_success(&ended(hosts.start_both(&bench, &whole)));

    let cut = run("cut");
    let mut cut: Vec<&str> = cut.iter().map(String::as_str).collect();
    let mut ranks = hosts.start_both(&bench, &cut);
    let steps = || fs::read_to_string(bench.path("cut/metrics.jsonl")).map_or(0, |text| text.lines().count());
    let began = Instant::now();
    while steps() < 100 {
        assert!(
            began.elapsed() < PATIENCE && ranks[0].try_wait().unwrap().is_none(),
            "the run makes no steps"
        );
        thread::sleep(Duration::from_millis(2));
    }
    // The far end: on this one only the carrier goes, as when somebody pulls the cable at the other machine.
    hosts.set_cable(&hosts.names[1], "down");
    let silent = Instant::now();
    for output in ended(ranks) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 3)), "{:?}: {said}", output.status);
        assert!(
            said.contains("timed out") || said.contains("lost the connection to another rank"),
            "{said}"
        );
    }
    assert!(silent.elapsed() < TIMEOUT + LAST_WORDS, "{:?}", silent.elapsed());
    assert!(!bench.path("cut/model").exists());

    hosts.set_cable(&hosts.names[1], "up");
    cut.push("--resume");
    assert_success(&ended(hosts.start_both(&bench, &cut)));
    for file in ["model/model.safetensors", "pair_deltas.parquet"] {
        let read = |out: &str| fs::read(bench.path(out).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs");
    }
}
