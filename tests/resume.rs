//! A training run that is killed again and again, and what it leaves: the same bytes as one that nobody disturbed.

mod bench;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use bench::Bench;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::RngExt;
use seeds::Seeds;
use serde_json::Value;

/// How often a run is killed.
const KILLS: usize = 20;

/// Pairs that are trained on with a third of the labels swapped, others that are held out, and a run of many short steps with
/// a checkpoint now and then.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.write_pairs(&[("Say d .", "d .", "a ."), ("Say e .", "e .", "b .")]);
    fs::rename(bench.path("pairs.jsonl"), bench.path("held-out.jsonl")).unwrap();
    bench.write_pairs(&[
        ("Say a .", "a .", "b ."),
        ("Say b .", "b .", "a ."),
        ("Say c .", "c .", "a ."),
        ("Say a , b .", "a , b .", "b ."),
        ("Say b , c .", "b , c .", "a ."),
        ("Say c , a .", "c , a .", "b ."),
    ]);
    bench
}

fn start(bench: &Bench, out: &str, resume: bool) -> Child {
    let checkpoints: Vec<String> = (1..=20).map(|k| format!("{:.2}", f64::from(k) / 20.0)).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pref-train"));
    command.args(["--recipe", "recipe.toml", "--set", &format!("output.dir={out}")]);
    for setting in [
        "train.epochs=100",
        "train.learning_rate=1e-3",
        "train.keep_last=3",
        "data.flip_rate=0.34",
        "data.eval_path=held-out.jsonl",
        "watch.answers=2",
        "watch.answer_tokens=6",
        &format!("train.checkpoints=[{}]", checkpoints.join(", ")),
    ] {
        command.args(["--set", setting]);
    }
    if resume {
        command.arg("--resume");
    }
    // Two tests at a time: libtorch's threads would wait for each other.
    command
        .env("OMP_NUM_THREADS", "1")
        .current_dir(bench.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Makes the run that nobody disturbs, and says how long it took to its first step and from there to its end.
fn undisturbed(bench: &Bench) -> (Duration, Duration) {
    let began = Instant::now();
    let mut child = start(bench, "undisturbed", false);
    while child.try_wait().unwrap().is_none() && !bench.path("undisturbed/metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let startup = began.elapsed();
    assert!(child.wait().unwrap().success());
    (startup, began.elapsed() - startup)
}

/// Every file of a finished run with its content, apart from what a clock says and where the run lies.
fn left(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if name.starts_with("events.") || name == "recipe.toml" {
                continue;
            }
            let mut content = fs::read(&path).unwrap();
            if name.ends_with(".jsonl") {
                content = without_seconds(&String::from_utf8(content).unwrap()).into_bytes();
            }
            files.insert(path.strip_prefix(root).unwrap().to_owned(), content);
        }
    }
    files
}

fn without_seconds(lines: &str) -> String {
    let strip = |line: &str| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        for key in ["step_seconds", "eval_seconds"] {
            row.as_object_mut().unwrap().remove(key);
        }
        row.to_string() + "\n"
    };
    lines.lines().map(strip).collect()
}

#[test]
fn twenty_kills_leave_the_bytes_of_an_undisturbed_run() {
    let bench = bench();
    let (startup, training) = undisturbed(&bench);
    let expected = left(&bench.path("undisturbed"));
    assert!(expected.contains_key(Path::new("model/model.safetensors")));

    let mut moments = Seeds::new(7).stream("moments");
    let (mut kills, mut resume) = (0, false);
    while kills < KILLS {
        let mut child = start(&bench, "killed", resume);
        // From before the first file to some way into training.
        std::thread::sleep((startup + training / 6).mul_f64(moments.random_range(0.01..1.0)));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        resume = bench.path("killed/recipe.toml").exists();
    }
    assert!(start(&bench, "killed", resume).wait().unwrap().success());
    assert!(kills >= KILLS / 2, "{kills} kills are too few to say anything: the run is too short");
    let found = left(&bench.path("killed"));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
    let (found_names, expected_names) = (names(&found), names(&expected));
    let odd: Vec<_> = found_names.symmetric_difference(&expected_names).collect();
    assert!(odd.is_empty(), "too many or too few after {kills} kills: {odd:?}");
    for (path, content) in &expected {
        assert!(found[path] == *content, "{} differs after {kills} kills", path.display());
    }
}

#[test]
fn every_pair_of_every_epoch_is_in_the_parquet_file_and_flips_are_told_apart() {
    let bench = bench();
    assert!(start(&bench, "out", false).wait().unwrap().success());
    assert!(!bench.path("out/pair_deltas.jsonl").exists(), "what was under way is gone");
    let file = File::open(bench.path("out/pair_deltas.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    let mut seen: BTreeMap<String, (usize, bool)> = BTreeMap::new();
    let mut last_margin = (0, 0.0, 0);
    for batch in &batches {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let (steps, deltas) =
            (column("step").as_primitive::<UInt64Type>(), column("delta").as_primitive::<Float64Type>());
        let (pairs, flipped) = (column("pair").as_string::<i32>(), column("flipped").as_boolean());
        for row in 0..batch.num_rows() {
            let (times, _) = seen.entry(pairs.value(row).to_owned()).or_insert((0, flipped.value(row)));
            *times += 1;
            if steps.value(row) != last_margin.0 {
                last_margin = (steps.value(row), 0.0, 0);
            }
            last_margin = (last_margin.0, last_margin.1 + deltas.value(row), last_margin.2 + 1);
        }
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.values().all(|(times, _)| *times == 100), "once an epoch: {seen:?}");
    let log = fs::read_to_string(bench.path("out/noise.jsonl")).unwrap();
    let swapped = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["fate"] == "flipped";
    let swapped = log.lines().filter(swapped).count();
    assert_eq!(seen.values().filter(|(_, flipped)| *flipped).count(), swapped, "{log}");
    assert_eq!(swapped, 2);

    let lines = fs::read_to_string(bench.path("out/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["step"], last_margin.0);
    let margin = 0.1 * last_margin.1 / f64::from(last_margin.2);
    assert!((last["rewards/margins"].as_f64().unwrap() - margin).abs() < 1e-9);
    let evaluations = fs::read_to_string(bench.path("out/eval.jsonl")).unwrap();
    assert_eq!(evaluations.lines().count(), 21, "before the first step and at twenty checkpoints");
    let first: Value = serde_json::from_str(evaluations.lines().next().unwrap()).unwrap();
    assert_eq!((&first["step"], &first["eval_kl"]), (&Value::from(0), &Value::from(0.0)));
}
