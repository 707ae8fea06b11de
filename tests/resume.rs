//! A training run that crashes at named points leaves the same bytes as an undisturbed one.

mod bench;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use bench::Bench;
use files::fault;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// The points at which a run crashes in turn, each with the pass through the point that it does not survive.
///
/// A checkpoint is written every 15 steps. Each row advances by 45 steps: three of its five runs write at least one
/// checkpoint.
const FAULTS: [[(&str, u64); 5]; 4] = [
    [
        ("files.write.written", 1),
        ("trainer.checkpoint.torn", 2),
        ("trainer.metrics", 16),
        ("trainer.checkpoint.model", 2),
        ("trainer.checkpoint.renamed", 1),
    ],
    [
        ("trainer.step", 1),
        ("trainer.checkpoint.part", 2),
        ("trainer.checkpoint.filled", 1),
        ("trainer.metrics", 1),
        ("trainer.checkpoint.renamed", 2),
    ],
    [
        ("trainer.checkpoint.filled", 2),
        ("trainer.metrics.torn", 14),
        ("trainer.step", 15),
        ("trainer.checkpoint.model", 1),
        ("trainer.checkpoint.renamed", 2),
    ],
    [
        ("trainer.metrics", 17),
        ("trainer.checkpoint.part", 1),
        ("trainer.step", 29),
        ("trainer.checkpoint.filled", 1),
        ("trainer.checkpoint.renamed", 1),
    ],
];

/// Training pairs of which a third has flipped labels, and held-out pairs.
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

/// Runs the training, with `fault` as the value of [`fault::VARIABLE`].
fn train(bench: &Bench, out: &str, resume: bool, fault: &str) -> ExitStatus {
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
    // Two tests at a time would compete for libtorch's threads.
    command
        .env("OMP_NUM_THREADS", "1")
        .env(fault::VARIABLE, fault)
        .current_dir(bench.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
}

/// Returns the files of a finished run, without times and paths.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // The checksums of a run cover its times.
            let of_run = folder == root && name == files::MANIFEST;
            // The log has times, and nothing reads it back.
            let of_run = of_run || folder == root && name == "log.txt";
            if name.starts_with("events.") || name == "recipe.toml" || of_run {
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
fn a_run_that_crashes_twenty_times_leaves_the_bytes_of_an_undisturbed_one() {
    let bench = bench();
    assert!(train(&bench, "undisturbed", false, "").success());
    let expected = contents(&bench.path("undisturbed"));
    assert!(expected.contains_key(Path::new("model/model.safetensors")));

    let mut resume = false;
    for (point, pass) in FAULTS.into_iter().flatten() {
        let status = train(&bench, "crashed", resume, &format!("{point}={pass}"));
        assert_eq!(status.code(), None, "pass {pass} through {point} does not end the run");
        resume = bench.path("crashed/recipe.toml").exists();
    }
    assert!(train(&bench, "crashed", resume, "").success());
    let checked = files::verify(&bench.path("crashed")).unwrap();
    assert!(checked.damaged.is_empty() && checked.intact > 20, "{checked:?}");
    let found = contents(&bench.path("crashed"));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
    let (found_names, expected_names) = (names(&found), names(&expected));
    let odd: Vec<_> = found_names.symmetric_difference(&expected_names).collect();
    assert!(odd.is_empty(), "missing or additional files: {odd:?}");
    for (path, content) in &expected {
        assert!(found[path] == *content, "{} differs", path.display());
    }
}

#[test]
fn a_flipped_bit_is_found_in_every_file_of_a_run() {
    let bench = bench();
    assert!(train(&bench, "out", false, "").success());
    let root = bench.path("out");
    let is_checked = |name: &str| name != files::MANIFEST && !name.starts_with('.');
    let paths = contents(&root).into_keys();
    let paths = paths.filter(|path| is_checked(path.file_name().unwrap().to_str().unwrap()));
    let paths: Vec<PathBuf> = paths.map(|path| root.join(path)).chain([root.join("recipe.toml")]).collect();
    for name in ["metrics.jsonl", "eval.jsonl", "pair_deltas.parquet", "model/model.safetensors"] {
        assert!(paths.contains(&root.join(name)), "{name} is not among {paths:?}");
    }
    for path in &paths {
        let intact = fs::read(path).unwrap();
        let mut flipped = intact.clone();
        flipped[intact.len() / 2] ^= 1;
        fs::write(path, &flipped).unwrap();
        let damaged = files::verify(&root).unwrap().damaged;
        assert_eq!(damaged.iter().map(|damage| &damage.path).collect::<Vec<_>>(), [path]);
        fs::write(path, &intact).unwrap();
    }
    fs::write(root.join("metrics.jsonl"), "").unwrap();
    let study = Command::new(env!("CARGO_BIN_EXE_study")).arg("verify").arg(&root).output().unwrap();
    assert_eq!(study.status.code(), Some(1));
    let printed = String::from_utf8(study.stdout).unwrap();
    assert!(printed.contains("damaged: ") && printed.contains("metrics.jsonl"), "{printed}");
}

#[test]
fn a_run_resumes_from_intact_files_only() {
    let bench = bench();
    assert_eq!(train(&bench, "out", false, "trainer.step=50").code(), None);
    let flip = |name: &str| {
        let mut bytes = fs::read(bench.path(name)).unwrap();
        // A digit, so that the row is still JSON.
        let at = (bytes.len() / 3..).find(|&at| bytes[at] == b'2').unwrap();
        bytes[at] = b'3';
        fs::write(bench.path(name), bytes).unwrap();
    };
    let copy = |name: &str| fs::copy(bench.path(name), bench.path("copy")).unwrap();
    for name in ["out/metrics.jsonl", "out/eval.jsonl", "out/pair_deltas.jsonl"] {
        copy(name);
        flip(name);
        assert_eq!(train(&bench, "out", true, "").code(), Some(1), "{name}");
        fs::rename(bench.path("copy"), bench.path(name)).unwrap();
    }
    // The newest checkpoint is skipped; the run continues from the one before.
    let state = bench.path("out/checkpoints/step-45/trainer/optimizer.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&state, bytes).unwrap();
    assert!(train(&bench, "out", true, "").success());
    assert!(train(&bench, "undisturbed", false, "").success());
    let (found, expected) = (contents(&bench.path("out")), contents(&bench.path("undisturbed")));
    assert!(found == expected, "the files differ from those of an undisturbed run");
}

#[test]
fn the_parquet_file_has_every_pair_of_every_epoch_and_marks_flips() {
    let bench = bench();
    assert!(train(&bench, "out", false, "").success());
    assert!(!bench.path("out/pair_deltas.jsonl").exists(), "the log of a finished run is removed");
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
    assert!(seen.values().all(|(times, _)| *times == 100), "once per epoch: {seen:?}");
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
