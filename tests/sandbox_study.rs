//! The research questions in a small sandbox: shared cells are computed once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use experiment::results::{ScoreRow, read_parquet};
use files::fault;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use test_support::SMALL_SANDBOX;

fn question(program: &str, out: &Path, arguments: &[&str]) -> Output {
    command(program, out, arguments).output().unwrap()
}

fn command(program: &str, out: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["--preset", "sandbox"]).arg("--out").arg(out).env("RUST_LOG", "info");
    for setting in SMALL_SANDBOX {
        command.args(["--set", setting]);
    }
    command.args(arguments);
    command
}

fn succeeds(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

fn runs(out: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(out.join("store/runs")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Returns the words after `label` on the line that starts with it.
fn line_of<'a>(table: &'a str, label: &str) -> Vec<&'a str> {
    let line = table.lines().find_map(|line| line.strip_prefix(label));
    line.unwrap_or_else(|| panic!("`{label}` is missing in {table}")).split_whitespace().collect()
}

const RQ1: &str = env!("CARGO_BIN_EXE_rq1");
const RQ2: &str = env!("CARGO_BIN_EXE_rq2");
const RQ3: &str = env!("CARGO_BIN_EXE_rq3");
const RQ4: &str = env!("CARGO_BIN_EXE_rq4");
const STUDY: &str = env!("CARGO_BIN_EXE_study");

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn cells_are_trained_once_and_shared_by_the_questions() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let (plan, _) = succeeds(&question(RQ1, &out, &["--plan"]));
    assert!(plan.contains("0 of 4 training runs and 0 of 5 evaluations"), "{plan}");
    // 160 and 64 demonstrations in batches of 32; two epochs of 48 pairs in batches of 16, four times.
    let left = line_of(&plan, "remaining work");
    assert_eq!(
        left[..3],
        ["31", "5", "160"],
        "steps, evaluations, calls of two judges on 8 questions of 2 turns"
    );
    assert!(plan.contains("assumed, since no step") && plan.contains("none in the sandbox"), "{plan}");
    assert!(!out.exists(), "a plan computes nothing");

    let (first, _) = succeeds(&question(RQ1, &out, &[]));
    assert!(first.contains("SFT (baseline)") && first.contains("Difference from SFT"), "{first}");
    assert!(first.contains("Minimum detectable effect (80% power) with 8 questions"), "{first}");
    assert!(first.contains("Fleiss"), "Table 2 follows: {first}");
    for file in
        ["tables/table-1.md", "tables/table-2.tex", "figures/figure-1.svg", "results.parquet", "report.html"]
    {
        assert!(out.join(file).exists(), "{file} is missing");
    }
    let trained = runs(&out);
    assert_eq!(trained.len(), 4);

    let (plan, _) = succeeds(&question(RQ4, &out, &["--plan"]));
    assert_eq!(line_of(&plan, "remaining work")[..3], ["0", "12", "384"], "three earlier checkpoints a run");
    assert!(plan.contains("measured over 24 steps"), "{plan}");

    let (second, log) = succeeds(&question(RQ1, &out, &[]));
    assert_eq!(first, second);
    assert!(!log.contains("training"), "nothing is trained again: {log}");

    let (table_5, log) = succeeds(&question(RQ4, &out, &[]));
    assert!(table_5.contains("DPO on human: "), "a verdict for each policy: {table_5}");
    assert!(table_5.contains("100%") && !log.contains("training"), "Table 5 looks into the same runs: {log}");
    assert_eq!(runs(&out), trained);

    succeeds(&question(RQ2, &out, &["--set", "study.volumes=[1.0, 0.5]"]));
    assert_eq!(runs(&out).len(), 8, "only the smaller share is new");
    let rq3 = ["--set", "study.flip_rates=[0.0, 0.5]"];
    let (noise, _) = succeeds(&question(RQ3, &out, &rq3));
    assert!(noise.contains("Fit to kept and flipped labels"), "{noise}");
    let labels = fs::read_to_string(out.join("tables/table-4-labels.csv")).unwrap();
    assert_eq!(labels.lines().count(), 1 + 2 * 2 * 2, "two annotators, losses and shares of flips: {labels}");
    assert_eq!(runs(&out).len(), 8 + 2 + 4, "DPO on clean labels is there, cDPO and the noisy runs are new");

    assert_eq!(questions_in_report(&out), ["RQ1", "RQ2", "RQ3", "RQ4"]);
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    // Every run has its last checkpoint's scores. RQ1's four also have those of three earlier ones, and SFT its own.
    let evaluations: BTreeSet<_> = rows.iter().map(|row| (&row.cell, row.step)).collect();
    assert_eq!(evaluations.len(), 14 + 4 * 3 + 1);
    assert_eq!(rows.len() % evaluations.len(), 0);
    let score = |row: &ScoreRow| {
        let question = (row.question_set.clone(), row.question_id, row.turn);
        (row.cell.clone(), row.seed, row.step, question, row.scorer.clone())
    };
    let scores: BTreeSet<_> = rows.iter().map(score).collect();
    assert_eq!(scores.len(), rows.len(), "a score shared by several questions is listed once");

    let policies = policies(&out);
    let names = policies.iter().map(|(cell, step, _)| (cell, *step)).collect::<BTreeSet<_>>();
    assert_eq!((names.len(), policies.len()), (evaluations.len(), evaluations.len()), "one row a policy");
    let flipped = policies.iter().filter(|(.., flipped)| flipped.is_some_and(|pairs| pairs > 0)).count();
    assert_eq!(flipped, 4, "two annotators, two losses, at one share of flips");

    let files = || {
        ["report.html", "results.parquet", "policies.parquet"].map(|file| fs::read(out.join(file)).unwrap())
    };
    let before = files();
    let (again, _) = succeeds(&question(RQ1, &out, &[]));
    assert_eq!(again, first);
    assert!(files() == before, "whichever question ran last, the files are the same");

    // Tables 1 and 5 use 5 and 17 policies, of which 5 are the same.
    let (plan, _) = succeeds(&question(STUDY, &out, &["--tables", "5,1", "--plan"]));
    assert!(plan.contains("Evaluations requested: 22, distinct: 17."), "{plan}");
    assert_eq!(line_of(&plan, "remaining work")[..3], ["none", "0", "0"]);
    let (both, log) = succeeds(&question(STUDY, &out, &["--tables", "5,1"]));
    assert!(!log.contains("training"), "nothing is trained again: {log}");
    let tables = |printed: &str| printed[printed.find("\nTable ").expect("tables") + 1..].to_owned();
    let opening = both
        .strip_suffix(&format!("{}{}", tables(&first), tables(&table_5)))
        .expect("the tables of either question");
    let (answers, verdicts) = opening.split_once("Benchmark results vs. ground truth").expect("verdicts");
    assert!(answers.starts_with("Answers from 1 seed × 8 questions"), "{answers}");
    assert!(answers.lines().all(|line| line.chars().count() <= 80), "{answers}");
    for question in ["Does training help?", "Whose labels", "Does it overfit?"] {
        assert!(answers.contains(question), "{question}: {answers}");
    }
    assert!(verdicts.contains("Table 1  DPO: gpt-4-turbo − human"), "verdicts come first: {verdicts}");
    assert!(verdicts.contains("Of 10 comparisons: "), "6 of Table 1, 4 of Table 5: {verdicts}");
    let coverage =
        verdicts.split("Coverage of 95% intervals over 8 questions").nth(1).expect("a second table opens");
    assert!(coverage.contains("2 other sets of 8"), "16 further questions: {coverage}");
    assert!(files() == before, "the whole study and its questions write the same files");

    cells_are_listed_and_shown(&out);
    another_study_stands_alone(&out, &rq3);
}

/// `study` reads the folder without a recipe.
fn cells_are_listed_and_shown(out: &Path) {
    let ask =
        |arguments: &[&str]| Command::new(STUDY).args(arguments).arg("--out").arg(out).output().unwrap();
    let (list, _) = succeeds(&ask(&["ls", "--format", "csv"]));
    let rows = list.trim().lines().skip(1);
    let lines: Vec<Vec<&str>> = rows.map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 1 + 14, "SFT and every run: {list}");
    assert!(lines.iter().all(|line| line.contains(&"evaluated")), "{list}");
    let shared = || lines.iter().filter(|line| line[3] == "DPO" && line[1] == "rq1 rq2 rq3 rq4");
    assert_eq!(
        shared().count(),
        2,
        "DPO on all clean pairs of either annotator serves every question: {list}"
    );

    let cell = shared().next().unwrap()[0];
    let (shown, _) = succeeds(&ask(&["show", &cell[..12]]));
    for part in ["DPO on human", "Training", "100% of training", "this cell", "loss.beta"] {
        assert!(shown.contains(part), "`{part}` is missing in {shown}");
    }
    let (markdown, _) = succeeds(&ask(&["show", lines[0][0], "--format", "md"]));
    assert!(markdown.contains("the supervised policy") && markdown.contains("| seed 0 |"), "{markdown}");
    for (arguments, words) in
        [(vec!["show", "zz"], "`study ls` lists them"), (vec!["show", ""], "several cells")]
    {
        let refused = ask(&arguments);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && stderr.contains(words), "{arguments:?}: {stderr}");
    }

    let describe = ["describe", "--preset", "sandbox", "--format", "csv"];
    let small = SMALL_SANDBOX.iter().flat_map(|setting| ["--set", setting]);
    let (described, _) = succeeds(&ask(&describe.into_iter().chain(small).collect::<Vec<_>>()));
    assert!(
        described.contains(",8,") && described.contains("gpt-4-turbo"),
        "held-out pairs, annotators: {described}"
    );
}

/// Returns address, step and flipped pairs of every policy in `policies.parquet`.
fn policies(out: &Path) -> Vec<(String, u64, Option<u64>)> {
    let file = fs::File::open(out.join("policies.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut policies = Vec::new();
    for batch in reader.map(Result::unwrap) {
        let cell = batch.column_by_name("cell").unwrap().as_string::<i32>().clone();
        let whole = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<UInt64Type>().clone();
        let (step, flipped) = (whole("step"), whole("flipped_pairs"));
        let row = |at| (cell.value(at).to_owned(), step.value(at), flipped.iter().nth(at).flatten());
        policies.extend((0..batch.num_rows()).map(row));
    }
    policies
}

/// A changed recipe is another study: its page and rows have no results of the first one.
fn another_study_stands_alone(out: &Path, rq3: &[&str]) {
    let smoothing = ["--set", "loss.label_smoothing=0.2"];
    let (_, log) = succeeds(&question(RQ3, out, &[rq3, &smoothing].concat()));
    assert!(
        log.contains("leaves out the earlier results of rq1") && log.contains("label_smoothing = 0.1"),
        "{log}"
    );
    assert_eq!(questions_in_report(out), ["RQ3"]);
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    assert!(rows.iter().all(|row| row.loss != "ipo"), "IPO is in the other study only");
    assert!(rows.iter().all(|row| row.loss != "cdpo" || row.label_smoothing == 0.2));
    // The first recipe shows its own results again.
    succeeds(&question(RQ1, out, &[]));
    assert_eq!(questions_in_report(out), ["RQ1", "RQ2", "RQ4"]);
}

/// Returns the questions that have a section of results, in the page's order.
fn questions_in_report(out: &Path) -> Vec<String> {
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    let headings =
        html.split("<h2 id=\"").skip(1).filter_map(|rest| rest.split_once('>')).map(|(_, rest)| rest);
    let results =
        headings.filter(|heading| heading.starts_with("RQ") && !heading.contains("sample answers</h2>"));
    results.map(|heading| heading[..3].to_owned()).collect()
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn the_sweep_selects_settings_for_the_next_question() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let sweep =
        ["--tables", "sweep,8", "--set", "study.sweep_betas=[0.05, 0.5]", "--set", "sandbox.pairs=96"];
    let (tables, _) = succeeds(&question(STUDY, &out, &sweep));
    // DPO and IPO on clean labels, DPO and cDPO on noisy ones, at two β each; then DPO and IPO on three smaller
    // fractions.
    assert_eq!(runs(&out).len(), 4 * 2 + 2 * 3);
    let sweep_part = tables.split("The sweep over β").nth(1).unwrap();
    let marks = sweep_part.lines().filter(|line| line.contains("held-out accuracy")).count();
    assert!(marks >= 4, "each setting chooses one β: {sweep_part}");
    assert!(sweep_part.contains("optimism") && sweep_part.contains("optimum"), "{sweep_part}");
    for part in ["Table 5-tuned", "Table 8. ", "Table 9. "] {
        assert!(tables.contains(part), "{part} is missing in {tables}");
    }
    assert!(out.join("figures/figure-sweep.svg").exists());
    let (_, log) = succeeds(&question(STUDY, &out, &sweep));
    assert!(!log.contains("training"), "the selection is cached: {log}");
}

#[test]
fn labels_are_mixed_and_sliced() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let (table, _) = succeeds(&question(STUDY, &out, &["--tables", "mixed"]));
    for row in ["75% human, 25% gpt-4-turbo", "human = gpt-4-turbo", "human != gpt-4-turbo"] {
        assert!(table.contains(row), "`{row}` is missing in {table}");
    }
    assert_eq!(runs(&out).len(), 2 + 3 + 3, "alone, mixtures, slices");
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    let slices: BTreeSet<&str> = rows.iter().map(|row| row.slice.as_str()).collect();
    assert_eq!(Vec::from_iter(slices), ["", "human != gpt-4-turbo", "human = gpt-4-turbo"]);
    let answers = folder.path().join("study/store/scores");
    assert_eq!(fs::read_dir(answers).unwrap().count(), 1 + 8, "every name makes a file");
}

#[test]
fn both_rules_for_epsilon_are_trained() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let settings = ["--set", "study.flip_rates=[0.25]", "--set", "study.annotators=[\"human\"]"];
    let (table, _) = succeeds(&question(STUDY, &out, &[&["--tables", "smoothing"], &settings[..]].concat()));
    assert!(table.contains("cDPO, ε = 0.1") && table.contains("cDPO, ε = the flip rate"), "{table}");
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    let of_cdpo =
        rows.iter().filter(|row| row.loss == "cdpo").map(|row| (row.label_smoothing * 100.0) as u64);
    assert_eq!(Vec::from_iter(of_cdpo.collect::<BTreeSet<_>>()), [10, 25]);
}

#[test]
fn any_loss_is_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let losses = "study.losses=[\"dpo\", \"simpo\", \"kto\", \"orpo\", \"aot\", \"sum\"]";
    let terms = "loss.terms=[{ kind = \"dpo\" }, { kind = \"sft\", weight = 0.5 }]";
    let settings = ["--set", losses, "--set", terms, "--set", "study.annotators=[\"human\"]"];
    let (table, _) = succeeds(&question(RQ1, &out, &settings));
    for row in ["DPO", "SimPO", "KTO", "ORPO", "AOT", "sum of losses"] {
        assert!(table.contains(row), "`{row}` is missing in {table}");
    }
    assert!(out.join("report.html").exists());
    let rows = read_parquet(&out.join("results.parquet")).unwrap();
    let trained: BTreeSet<&str> = rows.iter().map(|row| row.loss.as_str()).collect();
    assert_eq!(Vec::from_iter(trained), ["aot", "dpo", "kto", "orpo", "sft", "simpo", "sum"]);
    let orpo = runs(&out).into_iter().map(|run| fs::read_to_string(run.join("recipe.toml")).unwrap());
    let orpo = orpo.filter(|recipe| recipe.contains("kind = \"orpo\"")).collect::<Vec<_>>().concat();
    assert!(orpo.contains("lambda = 0.1"), "β of a study is ORPO's λ: {orpo}");
}

#[test]
fn workers_and_formats() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    let only = ["--set", "study.losses=[\"dpo\"]", "--format", "csv", "--jobs"];
    let (table, _) = succeeds(&question(RQ1, &alone, &[&only[..], &["1"]].concat()));
    assert!(table.starts_with("Scorer,Algorithm,"), "{table}");
    let mut with_jobs = only.to_vec();
    with_jobs.push("2");
    let (same, _) = succeeds(&question(RQ1, &together, &with_jobs));
    assert_eq!(table.lines().count(), same.lines().count());
    assert_eq!(runs(&alone).len(), runs(&together).len());
}

/// The points at which a study crashes in turn, each with the pass through the point that a process does not survive.
const FAULTS: [(&str, u64); 8] = [
    ("trainer.step", 2),
    ("trainer.checkpoint.model", 1),
    ("trainer.checkpoint.renamed", 1),
    ("files.create_dir.filled", 1),
    ("files.create_dir.renamed", 1),
    ("files.write.written", 3),
    ("trainer.checkpoint.filled", 2),
    ("trainer.step", 9),
];

#[cfg(unix)]
#[test]
fn a_failed_run_does_not_fail_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let dpo = ["--set", "study.losses=[\"dpo\"]", "--jobs", "2"];
    // Under the larger β, gradients are not finite.
    let both = [&dpo[..], &["--set", "study.betas=[0.1, 1e39]"]].concat();
    let run = question(RQ1, &out, &both);
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("2 of 4 trained policies failed"), "{stderr}");
    let failed = runs(&out).len();
    assert_eq!(failed, 4, "failed runs keep their folders for inspection");
    let reason = ["inf", "NaN"].map(|loss| format!("the loss is {loss} at step 1"));
    assert!(stdout.contains("Failed policies") && reason.iter().any(|r| stdout.contains(r)), "{stdout}");
    assert!(stdout.contains("failed: see the table of failed policies"), "{stdout}");
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("Failed policies") && report.contains("Failed, and left out"));
    let scores = read_parquet(&out.join("results.parquet")).unwrap();
    let betas: BTreeSet<String> = scores.iter().map(|row| row.beta.to_string()).collect();
    assert_eq!(betas, BTreeSet::from(["0".to_owned(), "0.1".to_owned()]), "SFT and the runs that succeeded");

    let (listed, _) = succeeds(&Command::new(STUDY).args(["ls", "--out"]).arg(&out).output().unwrap());
    assert_eq!(listed.matches("failed: ").count(), 2, "{listed}");
    let (plan, _) = succeeds(&question(RQ1, &out, &[&both[..], &["--plan"]].concat()));
    assert_eq!(plan.matches("failed, to be retried").count(), 2, "{plan}");
    let again = question(RQ1, &out, &both);
    let log = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.stdout, run.stdout);
    assert_eq!(
        log.matches("training DPO").count(),
        2 + 2,
        "tried again and failed again, two lines each: {log}"
    );

    let (whole, _) = succeeds(&question(RQ1, &out, &dpo));
    assert!(!whole.contains("Failed policies"), "no failed policy is requested: {whole}");
    let none = question(RQ1, &out, &[&dpo[..], &["--set", "study.betas=[1e39]"]].concat());
    let log = String::from_utf8_lossy(&none.stderr);
    assert_eq!(none.status.code(), Some(1), "{log}");
    assert!(log.contains("all 2 trained policies failed"), "{log}");
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn a_study_that_crashes_ten_times_leaves_the_files_of_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, crashed) = (folder.path().join("whole"), folder.path().join("crashed"));
    // Each of the two workers ends at the fault, and the study with it.
    let asked = ["--tables", "1,5", "--jobs", "2", "--max-restarts", "0"];
    let (expected, _) = succeeds(&question(STUDY, &whole, &asked));
    for (point, pass) in FAULTS {
        let fault = format!("{point}={pass}");
        let status = quiet(STUDY, &crashed, &asked).env(fault::VARIABLE, fault).status().unwrap();
        assert!(!status.success(), "pass {pass} through {point} does not end the study");
    }
    for (kill, point) in ["trainer.step", "files.create_dir.filled"].into_iter().enumerate() {
        // The workers of a killed study end on their own.
        let hold = folder.path().join(format!("hold-{kill}"));
        let fault = format!("{point}=2:{}", hold.display());
        let mut study = quiet(STUDY, &crashed, &asked).env(fault::VARIABLE, fault).spawn().unwrap();
        while !hold.join("held").exists() {
            assert!(study.try_wait().unwrap().is_none(), "no worker reaches {point}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        study.kill().unwrap();
        study.wait().unwrap();
        fs::write(hold.join("released"), "").unwrap();
    }
    let (resumed, _) = succeeds(&question(STUDY, &crashed, &asked));
    assert_eq!(resumed, expected);
    for file in ["results.parquet", "policies.parquet", "tables/coverage.csv", "figures/figure-1.svg"] {
        let [whole, crashed] = [&whole, &crashed].map(|out| fs::read(out.join(file)).unwrap());
        assert!(whole == crashed, "{file} differs");
    }
}

/// Returns the command of a question, without output.
fn quiet(program: &str, out: &Path, arguments: &[&str]) -> Command {
    let mut command = command(program, out, arguments);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn parts_of_a_study_write_the_files_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let asked = ["--set", "study.volumes=[1.0, 0.5]", "--jobs", "1"];
    succeeds(&question(RQ2, &whole, &asked));
    for part in ["2/3", "1/3", "3/3"] {
        let (printed, _) = succeeds(&question(RQ2, &parts, &[&asked[..], &["--shard", part]].concat()));
        assert!(
            printed.is_empty() && !parts.join("results.parquet").exists(),
            "a part concludes nothing: {printed}"
        );
    }
    assert_eq!(runs(&parts).len(), runs(&whole).len(), "every cell is in some part");
    let (_, log) = succeeds(&question(RQ2, &parts, &asked));
    assert!(!log.contains("training "), "nothing is left to train: {log}");
    for file in ["results.parquet", "policies.parquet"] {
        let [whole, parts] = [&whole, &parts].map(|out| fs::read(out.join(file)).unwrap());
        assert!(whole == parts, "{file} differs");
    }
}

#[test]
fn two_checkpoints_of_one_step_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    // 100 pairs in batches of 16: RQ2's quarter has two steps and four checkpoints.
    let settings = ["--set", "sandbox.pairs=100", "--set", "train.batch_size=16", "--set", "train.epochs=1"];
    for plan in [&["--plan"][..], &[]] {
        let refused = question(RQ2, &out, &[&settings[..], plan].concat());
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        for words in ["train.batch_size = 16", "25% of the pairs", "2 steps", "train.batch_size = 8 serves"] {
            assert!(stderr.contains(words), "`{words}` is missing in: {stderr}");
        }
        assert!(!out.exists());
    }
    let served = [&settings[..], &["--set", "train.batch_size=8", "--plan"]].concat();
    succeeds(&question(RQ2, &out, &served));
}

#[test]
fn a_store_of_another_layout_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("store/runs")).unwrap();
    let refused = question(RQ1, folder.path(), &[]);
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("holds results of layout 1") && stderr.contains("--out"), "{stderr}");
}

#[test]
fn invalid_recipes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let refused = |setting: &str, words: &[&str]| {
        let output = question(RQ1, &out, &["--set", setting]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{setting}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{setting}: `{word}` is missing in: {stderr}");
        }
        assert!(!out.exists());
    };
    refused("study.seed=2", &["seeds"]);
    refused("study.flip_rates=[1.5]", &["flip_rate"]);
    refused("study.annotators=[]", &["annotators"]);
    refused("study.losses=[\"simp\"]", &["did you mean \"simpo\""]);
    refused("study.losses=[\"f_dpo\"]", &["loss.divergence is missing"]);
    refused("study.mixtures=[\"human\"]", &["mixtures", "75% human"]);
    refused("study.mixtures=[\"70% human, 20% gpt-4-turbo\"]", &["mixtures"]);
    refused("train.checkpoints=[0.5]", &["checkpoints", "1.0"]);
    refused("data.format=gair", &["data.format", "model.path"]);
    refused("model.path=smollm2", &["data.path", "sandbox"]);
    refused("judge.kind=endpoint", &["base_url"]);
    refused("answers.batch=8", &["sandbox.max_new_tokens"]);
}
