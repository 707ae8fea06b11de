//! `pref-train`, `mtbench answer` and `annotate score` in several processes. Their own launcher, torchrun, srun or
//! mpirun starts the ranks; ranks and launchers are killed.

mod bench;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bench::Bench;
use files::fault;
use serde_json::Value;
use test_support::free_port;

/// Maximum difference between losses of one process and of several, fp32.
const SAME_LOSS: f64 = 1e-5;
/// Fails a test that hangs. No result depends on it.
const HANGS: Duration = Duration::from_secs(600);
/// The message to a user about an interrupted run of answers.
const GOES_ON: &str = "answers on file are kept: run the same command to resume";
/// The points at which a rank crashes in turn: the rank, and the pass through the point that it does not survive.
///
/// A checkpoint is written every 9 steps. Rank 0 writes the model and renames the folder; each rank writes its shard of
/// the state.
const FAULTS: [(&str, u64, usize); 20] = [
    ("trainer.step", 1, 1),
    ("trainer.step", 12, 0),
    ("trainer.checkpoint.part", 1, 1),
    ("trainer.checkpoint.part", 2, 0),
    ("trainer.checkpoint.model", 1, 0),
    ("trainer.step", 10, 1),
    ("trainer.checkpoint.filled", 1, 0),
    ("trainer.checkpoint.renamed", 1, 0),
    ("trainer.metrics", 5, 0),
    ("trainer.checkpoint.part", 3, 1),
    ("trainer.checkpoint.renamed", 2, 0),
    ("trainer.step", 8, 1),
    ("trainer.metrics", 1, 0),
    ("trainer.checkpoint.model", 2, 0),
    ("trainer.checkpoint.part", 1, 0),
    ("trainer.step", 18, 1),
    ("trainer.checkpoint.filled", 2, 0),
    ("trainer.step", 3, 0),
    ("trainer.checkpoint.part", 2, 1),
    ("trainer.metrics", 10, 0),
];

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write_pairs(&[
        ("Say a .", "a .", "b ."),
        ("Say b .", "b .", "a , a , b ."),
        ("Say c .", "c .", "a ."),
        ("Say a , b .", "a , b .", "b ."),
        ("Say b , c .", "b , c .", "a ."),
        ("Say c , a .", "c , a , b , c .", "b ."),
    ]);
    bench
}

fn command(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pref-train"));
    command.args(["--recipe", "recipe.toml", "--set", "train.threads=1", "--verbose"]).args(arguments);
    command.current_dir(bench.folder.path());
    command
}

fn train(bench: &Bench, arguments: &[&str]) -> Output {
    command(bench, arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn losses(bench: &Bench, out: &str) -> Vec<f64> {
    let text = fs::read_to_string(bench.path(out).join("metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap();
    text.lines().map(loss).collect()
}

fn assert_same_losses(bench: &Bench, a: &str, b: &str) {
    let (a, b) = (losses(bench, a), losses(bench, b));
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= SAME_LOSS), "{a:?} and {b:?}");
}

#[test]
fn processes_train_as_one_and_log_their_ranks() {
    let bench = bench();
    assert!(train(&bench, &["--set", "output.dir=alone"]).status.success());
    let output = train(&bench, &["--nproc-per-node", "2", "--set", "output.dir=together"]);
    let (stderr, stdout) = (stderr(&output), String::from_utf8_lossy(&output.stdout).into_owned());
    assert!(output.status.success(), "{stderr}");
    assert_same_losses(&bench, "alone", "together");
    assert_eq!(stdout.matches("loss 0.6931").count(), 1, "only rank 0 prints: {stdout}");
    let of_second: Vec<&str> = stderr.lines().filter(|line| line.starts_with("[rank 1]")).collect();
    assert_eq!(of_second.len(), 1, "{stderr}");
    assert!(of_second[0].contains("rank 1 of 2 on Cpu"), "{stderr}");
    assert!(stderr.lines().all(|line| line.starts_with("[rank ")), "{stderr}");
}

/// The environment variables of each launcher.
type Variables = Vec<(&'static str, String)>;

/// Starts two processes with these variables, and waits for both.
fn two(bench: &Bench, out: &str, variables: impl Fn(usize) -> Variables) -> Vec<Output> {
    let start = |index: usize| {
        command(bench, &["--set", &format!("output.dir={out}")])
            .envs(variables(index))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let both: Vec<Child> = (0..2).map(start).collect();
    both.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
fn torchrun_slurm_and_mpirun_start_ranks() {
    let bench = bench();
    assert!(train(&bench, &["--set", "output.dir=alone"]).status.success());
    let [first, second, third] = [(); 3].map(|()| free_port().to_string());
    let torchrun = |rank: usize| {
        let (rank, here) = (rank.to_string(), "127.0.0.1".to_owned());
        vec![
            ("RANK", rank.clone()),
            ("LOCAL_RANK", rank),
            ("WORLD_SIZE", "2".to_owned()),
            ("MASTER_ADDR", here),
            ("MASTER_PORT", first.clone()),
        ]
    };
    let slurm = |rank: usize| {
        vec![
            ("SLURM_PROCID", rank.to_string()),
            ("SLURM_LOCALID", rank.to_string()),
            ("SLURM_NTASKS", "2".to_owned()),
            ("SLURM_STEP_ID", "0".to_owned()),
            ("SLURM_STEP_NODELIST", "localhost".to_owned()),
            ("MASTER_PORT", second.clone()),
        ]
    };
    let mpirun = |rank: usize| {
        vec![
            ("OMPI_COMM_WORLD_RANK", rank.to_string()),
            ("OMPI_COMM_WORLD_LOCAL_RANK", rank.to_string()),
            ("OMPI_COMM_WORLD_SIZE", "2".to_owned()),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2".to_owned()),
            ("MASTER_PORT", third.clone()),
        ]
    };
    let ways: [(&str, &dyn Fn(usize) -> Variables); 3] =
        [("torchrun", &torchrun), ("slurm", &slurm), ("mpirun", &mpirun)];
    for (out, variables) in ways {
        for output in two(&bench, out, variables) {
            assert!(output.status.success(), "{out}: {}", stderr(&output));
        }
        assert_same_losses(&bench, "alone", out);
    }
    let half = two(&bench, "half", |rank| vec![("RANK", rank.to_string())]);
    for output in half {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("WORLD_SIZE is not set"), "{}", stderr(&output));
    }
    assert!(!bench.path("half").exists());
}

/// A run of several processes that would take hours, and its process ids.
struct Long {
    launcher: Child,
    ranks: Vec<u32>,
    said: thread::JoinHandle<String>,
}

/// Starts a run and waits until it has made some steps.
fn long(bench: &Bench, processes: usize, arguments: &[&str]) -> Long {
    let count = processes.to_string();
    let mut launcher = command(bench, &["--nproc-per-node", &count, "--set", "train.epochs=1000000"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(launcher.stderr.take().unwrap());
    let (mut said, mut ranks) = (String::new(), BTreeMap::new());
    while ranks.len() < processes {
        let from = said.len();
        assert!(reader.read_line(&mut said).unwrap() > 0, "{said}");
        // "[rank 1] … process 4711": the first line may come from any rank.
        let line = said[from..].trim();
        let rank = line.strip_prefix("[rank ").and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
        let process = line.split("process ").nth(1).and_then(|number| number.parse::<u32>().ok());
        ranks.extend(rank.zip(process));
    }
    let ranks = ranks.into_values().collect();
    let said = thread::spawn(move || {
        // Ignores output that is not text: the ranks write none.
        let _ = reader.read_to_string(&mut said);
        said
    });
    let steps = || fs::read_to_string(bench.path("out/metrics.jsonl")).map_or(0, |text| text.lines().count());
    let began = Instant::now();
    while steps() < 3 && launcher.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < HANGS, "the run makes no step");
        thread::sleep(Duration::from_millis(5));
    }
    Long { launcher, ranks, said }
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until all processes have ended.
fn assert_gone(processes: &[u32]) {
    let began = Instant::now();
    while processes.iter().any(|process| Path::new(&format!("/proc/{process}")).exists()) {
        assert!(began.elapsed() < HANGS, "some of {processes:?} still run");
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_rank_ends_all_and_is_reported_first() {
    for victim in 0..3 {
        let bench = bench();
        let Long { mut launcher, ranks, said } = long(&bench, 3, &[]);
        signal("KILL", ranks[victim]);
        let status = launcher.wait().unwrap();
        assert_gone(&ranks);
        let said = said.join().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        let mut ends = said.lines().filter(|line| line.contains("ended without") || line.contains("error:"));
        let first = ends.next().unwrap();
        assert!(first.starts_with(&format!("[rank {victim}]")) && first.contains("signal: 9"), "{said}");
        assert_eq!(
            ends.filter(|line| line.starts_with("[rank ")).count(),
            2,
            "the others say why they go: {said}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_to_the_launcher_or_its_death_ends_all_ranks_with_a_checkpoint() {
    for (name, status) in [("TERM", Some(143)), ("INT", Some(130)), ("KILL", None)] {
        let bench = bench();
        let Long { mut launcher, ranks, said } = long(&bench, 2, &[]);
        signal(name, launcher.id());
        assert_eq!(launcher.wait().unwrap().code(), status);
        assert_gone(&ranks);
        let checkpoints = fs::read_dir(bench.path("out/checkpoints")).unwrap().count();
        assert_eq!(checkpoints, 1, "SIG{name}: {}", said.join().unwrap());
    }
}

/// Runs many short steps in two processes, with `fault` as the value of [`fault::VARIABLE`].
fn many_steps(bench: &Bench, out: &str, resume: bool, fault: &str) -> Output {
    let checkpoints: Vec<String> = (1..=20).map(|k| format!("{:.2}", f64::from(k) / 20.0)).collect();
    let checkpoints = format!("train.checkpoints=[{}]", checkpoints.join(", "));
    let out = format!("output.dir={out}");
    let settings = ["train.epochs=60", "train.learning_rate=1e-3", "train.keep_last=3", &checkpoints, &out];
    let mut command = command(bench, &["--nproc-per-node", "2", "--timeout", "600"]);
    settings.iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    if resume {
        command.arg("--resume");
    }
    command.env(fault::VARIABLE, fault).output().unwrap()
}

/// Returns the ids of a launcher's processes, in the order of their ranks.
#[cfg(target_os = "linux")]
fn children(launcher: &Child) -> Vec<u32> {
    let id = launcher.id();
    let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn crashed_ranks_lose_only_steps_since_the_last_checkpoint() {
    let bench = bench();
    assert!(many_steps(&bench, "undisturbed", false, "").status.success());
    for (point, pass, rank) in FAULTS {
        let resume = bench.path("crashed/recipe.toml").exists();
        let output = many_steps(&bench, "crashed", resume, &format!("{point}={pass}@{rank}"));
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "pass {pass} of rank {rank} through {point}: {said}");
        assert!(said.contains(&format!("[rank {rank}] ended without an error message")), "{point}: {said}");
        assert!(!said.contains("ran out"), "the other rank learns it from the connection: {said}");
    }
    assert!(many_steps(&bench, "crashed", true, "").status.success());
    for file in ["model/model.safetensors", "pair_deltas.parquet", "checkpoints/step-180/model.safetensors"] {
        let read = |out: &str| fs::read(bench.path(out).join(file)).unwrap();
        assert!(read("undisturbed") == read("crashed"), "{file} differs");
    }
}

/// A benchmark's folder with questions, and the command that answers them with the bench's model.
fn answering(bench: &Bench, data: &str, arguments: &[&str]) -> Command {
    let folder = bench.path(data);
    fs::create_dir_all(&folder).unwrap();
    let question = |id: u64| {
        let turns = [format!("Say {} .", ["a", "b", "c"][id as usize % 3]), "Say it again .".to_owned()];
        let category = if id.is_multiple_of(2) { "writing" } else { "math" };
        serde_json::json!({"question_id": id, "category": category, "turns": turns}).to_string() + "\n"
    };
    fs::write(folder.join("question.jsonl"), (1..=11).map(question).collect::<String>()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtbench"));
    command
        .args(["answer", "--data", data])
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .current_dir(bench.folder.path());
    command
}

/// Returns the outputs of two ranks that another launcher starts.
fn two_ranks(command: impl Fn(usize) -> Command) -> Vec<Output> {
    let port = free_port().to_string();
    let start = |rank: usize| {
        let mut command = command(rank);
        command.envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".to_owned())]);
        command.envs([("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &port)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both: Vec<Child> = (0..2).map(start).collect();
    both.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// The arguments for answering three questions at a time with the bench's model.
const MODEL: [&str; 8] = ["--model", "model", "--model-id", "m", "--max-new-tokens", "24", "--wave", "3"];

/// Returns the model's answers by question.
fn said(bench: &Bench, data: &str) -> Vec<Value> {
    let text = fs::read_to_string(bench.path(data).join("model_answer/m.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            serde_json::json!([row["question_id"], row["choices"]])
        })
        .collect()
}

#[test]
fn answers_do_not_depend_on_the_number_of_processes() {
    let bench = bench();
    assert!(answering(&bench, "alone", &MODEL).status().unwrap().success());
    let alone = said(&bench, "alone");
    assert_eq!(alone.len(), 11);
    let words: usize = alone.iter().map(|row| row.to_string().split(' ').count()).sum();
    assert!(words > 11 * 8, "answers are not empty: {alone:?}");
    for (data, count) in [("two", "2"), ("three", "3")] {
        let output = answering(&bench, data, &MODEL).args(["--nproc-per-node", count]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(said(&bench, data), alone, "{count} processes");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(stdout.matches("m.jsonl").count(), 1, "only rank 0 prints: {stdout}");
    }
    // Half of the answers are on file; another number of processes answers the rest.
    let path = bench.path("two/model_answer/m.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let first: Vec<&str> = text.lines().take(6).collect();
    fs::write(&path, first.join("\n") + "\n").unwrap();
    assert!(answering(&bench, "two", &MODEL).status().unwrap().success());
    assert_eq!(said(&bench, "two"), alone);
}

#[test]
fn ranks_with_different_inputs_or_bad_setups_report_errors() {
    let bench = bench();
    let with_seed = |rank: usize| {
        let mut command = answering(&bench, "ranks", &MODEL);
        command.args(["--seed", &rank.to_string()]);
        command
    };
    for output in two_ranks(with_seed) {
        assert!(!output.status.success());
        assert!(
            stderr(&output).contains("the same --system, --date, --max-new-tokens, --wave and --seed"),
            "{output:?}"
        );
    }
    assert!(!bench.path("ranks/model_answer").exists());
    for (model, id, expected) in
        [("model", "../evil", "cannot name a file"), ("nowhere", "m", "model nowhere")]
    {
        let arguments = ["--model", model, "--model-id", id, "--nproc-per-node", "2"];
        let output = answering(&bench, "wrong", &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(expected) && !stderr(&output).contains("[rank"),
            "{}",
            stderr(&output)
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_process_ends_the_others_and_keeps_answers_on_file() {
    let bench = bench();
    let long = ["--model", "model", "--model-id", "m", "--max-new-tokens", "400", "--wave", "1"];
    let mut launcher = answering(&bench, "killed", &long)
        .args(["--nproc-per-node", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !bench.path("killed/model_answer/m.jsonl").exists() {
        assert!(began.elapsed() < HANGS && launcher.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(1));
    }
    let ranks = children(&launcher);
    signal("KILL", ranks[1]);
    let output = launcher.wait_with_output().unwrap();
    assert_gone(&ranks);
    let words = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("[rank 1] ended without an error message") && words.contains(GOES_ON), "{words}");
    let kept = said(&bench, "killed");
    assert!(!kept.is_empty() && kept.len() < 11, "{} answers", kept.len());
    assert!(answering(&bench, "killed", &long).status().unwrap().success());
    let all = said(&bench, "killed");
    assert_eq!((all.len(), &all[..kept.len()]), (11, &kept[..]));
}

fn scoring(bench: &Bench, out: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annotate"));
    command
        .args(["score", "pairs.jsonl", "--layout", "pairs", "--model", "model", "--annotator", "scorer"])
        .args(["--out", out])
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .current_dir(bench.folder.path());
    command
}

/// A bench whose pairs take several forward passes, so that ranks have shards.
fn bench_of_long_pairs(count: usize) -> Bench {
    let bench = bench();
    let responses: Vec<[String; 2]> =
        (0..count).map(|pair| ["a , ".repeat(20 + pair % 50), "b c ".repeat(70 - pair % 40)]).collect();
    let pairs: Vec<_> =
        responses.iter().map(|[chosen, rejected]| ("Say a .", chosen.as_str(), rejected.as_str())).collect();
    bench.write_pairs(&pairs);
    bench
}

#[test]
fn labels_do_not_depend_on_the_number_of_processes() {
    let bench = bench_of_long_pairs(120);
    assert!(scoring(&bench, "alone.jsonl", &[]).status().unwrap().success());
    let alone = fs::read_to_string(bench.path("alone.jsonl")).unwrap();
    assert_eq!(alone.matches("\"scorer\"").count(), 120, "{alone}");
    for count in ["2", "3"] {
        let out = format!("{count}.jsonl");
        let output = scoring(&bench, &out, &["--nproc-per-node", count]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(bench.path(&out)).unwrap(), alone, "{count} processes");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(stdout.matches("120 of 120 records labelled").count(), 1, "only rank 0 prints: {stdout}");
    }
}

#[test]
fn ranks_with_different_scoring_inputs_report_errors() {
    let bench = bench_of_long_pairs(120);
    let with_sample = |rank: usize| scoring(&bench, "ranks.jsonl", &["--sample", ["100", "90"][rank]]);
    for output in two_ranks(with_sample) {
        assert!(!output.status.success());
        assert!(stderr(&output).contains("another set of pairs"), "{}", stderr(&output));
    }
    assert!(!bench.path("ranks.jsonl").exists());
    fs::rename(bench.path("model"), bench.path("elsewhere")).unwrap();
    let output = scoring(&bench, "wrong.jsonl", &["--nproc-per-node", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("error: model model") && !stderr(&output).contains("[rank"),
        "{output:?}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn scoring_processes_stop_on_a_signal() {
    let bench = bench_of_long_pairs(3000);
    let mut launcher = scoring(&bench, "stopped.jsonl", &["--nproc-per-node", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(launcher.stderr.take().unwrap());
    let mut said = String::new();
    while said.matches("on Cpu, process").count() < 2 {
        assert!(reader.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let ranks = children(&launcher);
    signal("TERM", launcher.id());
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(launcher.wait().unwrap().code(), Some(143), "{said}");
    assert!(said.contains("all ranks have stopped; nothing is written before all is scored"), "{said}");
    assert_gone(&ranks);
    assert!(!bench.path("stopped.jsonl").exists());
}
