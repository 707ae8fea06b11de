//! End-to-end tests of `mtbench`, from questions to tables, with a mock server that has realistic failures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{BatchFate, MockBatchBehaviour, MockBatchServer, MockBehaviour, MockFault, MockServer};

const KEY: &str = "sk-end-to-end-secret";

/// A folder with `count` questions of two turns in three categories, all without references.
fn bench(count: u64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let categories = ["writing", "stem", "extraction"];
    let lines: String = (81..81 + count)
        .map(|id| {
            let category = categories[(id % 3) as usize];
            let turns = [format!("First of {id}?"), format!("Second of {id} – 😀?")];
            json!({"question_id": id, "category": category, "turns": turns}).to_string() + "\n"
        })
        .collect();
    fs::write(folder.path().join("question.jsonl"), lines).unwrap();
    folder
}

fn mtbench(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtbench"));
    command.args(arguments).arg("--data").arg(data).env("MOCK_KEY", KEY).env_remove("RUST_LOG");
    command
}

#[track_caller]
fn run(data: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = mtbench(data, arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{arguments:?}: {status}\n{stderr}");
    assert!(!stderr.contains(KEY));
    String::from_utf8(stdout).unwrap()
}

/// Returns exit status and standard error of a command that fails.
fn fails(data: &Path, arguments: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = mtbench(data, arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

/// Answers questions at length, and rates answers by the model's name.
fn says(body: &Value) -> String {
    let last = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    match body["model"].as_str().unwrap() {
        "judge" if last.contains("The Start of Assistant B's") => {
            let first = last.split("The Start of Assistant B's").next().unwrap();
            format!("[[{}]]", if first.contains("good answer") { "A" } else { "B" })
        }
        "judge" => format!("I see. Rating: [[{}]]", if last.contains("good answer") { 8 } else { 3 }),
        model => format!("A {model} answer to: {last}"),
    }
}

fn server(behaviour: MockBehaviour) -> MockServer {
    MockServer::start(MockBehaviour { key: Some(KEY.to_owned()), ..behaviour }, says)
}

/// A folder with answers of two models; the good model's answers say so.
fn answered(count: u64, server: &MockServer) -> TempDir {
    let folder = bench(count);
    let url = server.base_url();
    for model in ["good", "poor"] {
        let arguments = ["answer", "--model-id", model, "--base-url", &url, "--api-key-env", "MOCK_KEY"];
        let printed = run(folder.path(), &arguments);
        assert!(printed.trim_end().ends_with(&format!("model_answer/{model}.jsonl")), "{printed}");
    }
    folder
}

fn judge_arguments<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["judge", "--judge", "judge", "--base-url", url, "--api-key-env", "MOCK_KEY"];
    arguments.extend(["--concurrency", "32", "--timeout", "5"]);
    arguments.extend(more);
    arguments
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_judge_in_batches_judges_as_one_in_single_calls() {
    let server = server(MockBehaviour::perfect());
    let (direct, batch) = (answered(5, &server), answered(5, &server));
    run(direct.path(), &judge_arguments(&server.base_url(), &[]));
    // One of the judgments has no verdict at first, and two calls of the first batch fail.
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let judge = move |body: &Value| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        3 => "I cannot say.".to_owned(),
        _ => says(body),
    };
    let behaviour =
        MockBatchBehaviour { fates: vec![BatchFate::FailEvery(10)], polls: 1, key: Some(KEY.to_owned()) };
    let batches = MockBatchServer::start(behaviour, judge);
    let url = batches.base_url();
    let arguments = judge_arguments(&url, &[]);
    let in_batches = [&arguments[..], &["--batch", "--batch-poll", "0.01"]].concat();
    run(batch.path(), &in_batches);
    assert_eq!(batches.batches(), 2);
    assert_eq!(batches.billed().len(), 21, "20 judgments and a repeated one");
    let rows = |folder: &TempDir| {
        let mut rows = lines(&folder.path().join("model_judgment/judge_single.jsonl"));
        rows.iter_mut().for_each(|row| row["tstamp"] = Value::Null);
        rows
    };
    assert_eq!(rows(&batch), rows(&direct));
    run(batch.path(), &in_batches);
    assert_eq!(batches.batches(), 2, "judgments on file are kept");
}

#[test]
fn a_judge_that_changes_is_an_alarm() {
    let answering = server(MockBehaviour::perfect());
    let folder = answered(6, &answering);
    let harsher = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let changed = std::sync::Arc::clone(&harsher);
    let judge = move |body: &Value| match changed.load(std::sync::atomic::Ordering::Relaxed) {
        true => "Rating: [[2]]".to_owned(),
        false => says(body),
    };
    let behaviour = MockBehaviour { key: Some(KEY.to_owned()), ..MockBehaviour::perfect() };
    let judging = MockServer::start(behaviour, judge);
    let url = judging.base_url();
    let arguments = judge_arguments(&url, &["--anchors", "6"]);
    run(folder.path(), &arguments);
    assert_eq!(judging.calls().len(), 24 + 12, "6 anchors have two opinions");
    run(folder.path(), &arguments);
    assert_eq!(judging.calls().len(), 24 + 24, "anchors are judged at each start");
    harsher.store(true, std::sync::atomic::Ordering::Relaxed);
    let (status, said) = fails(folder.path(), &arguments);
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("the judge has changed: 6 anchors changed by -") && said.contains("--accept-drift"),
        "{said}"
    );
    let (status, _) = fails(folder.path(), &arguments);
    assert_eq!(status, 1, "a change that is not accepted is no baseline");
    run(folder.path(), &[&arguments[..], &["--accept-drift"]].concat());
    run(folder.path(), &arguments);
    let opinions = lines(&folder.path().join("anchors/judge_single.jsonl"));
    assert_eq!(opinions.len(), 6 * 12, "six starts");
}

#[test]
fn judgments_travel_with_their_digests() {
    let server = server(MockBehaviour::perfect());
    let folder = answered(4, &server);
    let (data, url) = (folder.path(), server.base_url());
    run(data, &judge_arguments(&url, &[]));
    run(data, &judge_arguments(&url, &["--games", "pairwise-all"]));
    let elsewhere = tempfile::tempdir().unwrap();
    let bundle = elsewhere.path().join("bundle");
    let out = bundle.to_str().unwrap();
    let said = run(data, &["export", "--judge", "judge", "--out", out]);
    assert!(said.contains("4 questions, 2 models, 16 judgments and 8 comparisons by judge"), "{said}");
    let (status, said) = fails(data, &["export", "--judge", "judge", "--out", out]);
    assert!(status == 2 && said.contains("it exists"), "{said}");

    let show = |data: &Path| run(data, &["show", "--judge", "judge", "--format", "csv"]);
    assert_eq!(show(&bundle), show(data), "a bundle is a benchmark's folder");
    let target = elsewhere.path().join("mt_bench");
    let said = run(&target, &["import", out]);
    assert!(said.contains("added 2 models and 24 judgments"), "{said}");
    assert_eq!(show(&target), show(data));
    let again = run(&target, &["import", out]);
    assert!(again.contains("added 0 models and 0 judgments"), "{again}");
    let style = run(&target, &["show", "--judge", "judge", "--table", "style", "--format", "csv"]);
    assert!(style.contains("good") || style.contains("poor"), "{style}");

    // Other answers under the same name, and a changed file, are refused.
    let answers = target.join("model_answer/poor.jsonl");
    let text = fs::read_to_string(&answers).unwrap().replace("A poor answer", "Another answer");
    fs::write(&answers, text).unwrap();
    let (status, said) = fails(&target, &["import", out]);
    assert!(status == 2 && said.contains("poor has other answers"), "{said}");
    let file = bundle.join("model_judgment/judge_single.jsonl");
    fs::write(&file, fs::read_to_string(&file).unwrap().replacen("[[8]]", "[[9]]", 1)).unwrap();
    let (status, said) = fails(&elsewhere.path().join("third"), &["import", out]);
    assert!(
        status == 2 && said.contains("judge_single.jsonl") && said.contains("get the bundle again"),
        "{said}"
    );
    fs::remove_file(bundle.join("checksums.b3")).unwrap();
    let (status, said) = fails(&elsewhere.path().join("third"), &["import", out]);
    assert!(status == 2 && said.contains("no bundle"), "{said}");
}

#[test]
fn answers_are_judged_shown_compared_and_browsed() {
    let server = server(MockBehaviour::perfect());
    let folder = answered(6, &server);
    let (data, url) = (folder.path(), server.base_url());
    let answered = server.calls().len();
    assert_eq!(answered, 24, "two turns of six questions by two models");
    let plan = run(data, &judge_arguments(&url, &["--plan", "--format", "csv"]));
    assert!(plan.contains("\ncalls,24\n"), "{plan}");
    assert_eq!(server.calls().len(), answered, "a plan asks nothing");

    run(data, &judge_arguments(&url, &[]));
    let csv = run(data, &["show", "--judge", "judge", "--mode", "fastchat", "--format", "csv"]);
    let expected =
        "model,turn,score\ngood,1,8\ngood,2,8\ngood,average,8\npoor,1,3\npoor,2,3\npoor,average,3\n";
    assert_eq!(csv, expected);
    let strict = run(data, &["show", "--judge", "judge", "--format", "json"]);
    let strict: Value = serde_json::from_str(&strict).unwrap();
    assert_eq!(strict["rows"].as_array().unwrap().len(), 6);
    for (table, needle) in [("categories", "extraction"), ("missing", "reason")] {
        let text = run(data, &["show", "--judge", "judge", "--table", table, "--format", "md"]);
        assert!(text.contains(needle), "{text}");
    }

    run(data, &judge_arguments(&url, &["--games", "pairwise-all"]));
    let pairs = lines(&data.join("model_judgment/judge_pair.jsonl"));
    assert_eq!(pairs.len(), 12);
    assert!(pairs.iter().all(|row| row["g1_winner"] == "model_1" && row["g2_winner"] == "model_1"));
    let baseline =
        ["show", "--judge", "judge", "--table", "pairwise-baseline", "--baseline", "poor", "--format", "csv"];
    let table = run(data, &baseline);
    assert_eq!(table, "model,win,loss,tie,win_rate,loss_rate,win_rate_adjusted\ngood,12,0,0,1,0,1\n");

    let compared = run(data, &["compare", "good", "poor", "--judge", "judge"]);
    assert!(compared.contains("+5.00 [+5.00, +5.00]*"), "{compared}");
    assert!(
        compared.contains("Length and score") && compared.contains("Position bias of judge"),
        "{compared}"
    );
    let page = PathBuf::from(run(data, &["browse", "--judge", "judge"]).trim_end());
    let html = fs::read_to_string(page).unwrap();
    assert!(html.contains("id=\"q86\"") && html.contains("A poor answer to: Second of 86 – 😀?"));
    let figures = data.join("pictures");
    run(data, &["show", "--judge", "judge", "--figures", figures.to_str().unwrap()]);
    for name in ["radar", "bars"] {
        let svg = fs::read_to_string(figures.join(format!("figures/{name}.svg"))).unwrap();
        assert!(svg.contains("extraction"), "{name}");
    }
    assert!(!everything_in(data).contains(KEY), "the key is in no file");
}

/// Returns the text of every file below a folder.
fn everything_in(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| {
        if path.is_dir() { everything_in(&path) } else { fs::read_to_string(path).unwrap_or_default() }
    };
    entries.map(text).collect()
}

#[test]
#[ignore = "slow: cargo xtask test slow"]
fn a_flaky_server_is_paid_once_per_judgment() {
    let server = server(MockBehaviour::perfect());
    let folder = answered(40, &server);
    let flaky = self::server(MockBehaviour::flaky(5));
    run(folder.path(), &judge_arguments(&flaky.base_url(), &[]));
    assert!(flaky.most_at_a_time() <= 32);
    assert_eq!(flaky.paid(), 160);
    let rows = lines(&folder.path().join("model_judgment/judge_single.jsonl"));
    let mut seen = BTreeMap::new();
    for row in &rows {
        *seen
            .entry((row["question_id"].as_u64(), row["model"].as_str(), row["turn"].as_u64()))
            .or_insert(0) += 1;
        assert_eq!(row["score"], if row["model"] == "good" { 8 } else { 3 });
    }
    assert_eq!((rows.len(), seen.len()), (160, 160));
}

/// Returns the number of JSON files below a folder.
fn files_in(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            if path.is_dir() {
                files_in(&path)
            } else {
                usize::from(path.extension().is_some_and(|e| e == "json"))
            }
        })
        .sum()
}

#[test]
fn a_kill_loses_only_pending_calls() {
    const AT_A_TIME: usize = 8;
    const KILLS: usize = 10;
    let server = server(MockBehaviour::perfect());
    let folder = answered(40, &server);
    let replies = folder.path().join("calls/replies");
    let answers = files_in(&replies);
    let flaky = self::server(MockBehaviour { latency: Duration::from_millis(20), ..MockBehaviour::flaky(9) });
    let url = flaky.base_url();
    let mut arguments = judge_arguments(&url, &[]);
    arguments[8] = "8";
    // The server answers this many requests in total and holds the next one until the kill.
    for kills in 1..=KILLS {
        let requests = 14 * kills;
        flaky.hold_after(requests);
        let mut judge =
            mtbench(folder.path(), &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        flaky.wait_for_requests(requests + 1);
        judge.kill().unwrap();
        judge.wait().unwrap();
        flaky.release();
        flaky.wait_until_idle();
        let (paid, kept) = (flaky.paid(), files_in(&replies) - answers);
        assert!(paid <= kept + kills * AT_A_TIME, "{paid} paid and {kept} kept after {kills} kills");
    }
    let wasted = flaky.paid() - (files_in(&replies) - answers);
    let Output { status, stderr, .. } = mtbench(folder.path(), &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{said}");
    let ledger = lines(&folder.path().join("calls/ledger.jsonl"));
    let outcome = |name: &str| ledger.iter().filter(|row| row["outcome"] == name).count();
    let interrupted = outcome("interrupted");
    assert!((wasted..=KILLS * AT_A_TIME).contains(&interrupted), "{interrupted} in flight, {wasted} billed");
    assert!(said.contains("in flight when an earlier process ended: they may be billed twice"), "{said}");
    assert_eq!(outcome("answered"), 160 + answers, "each answer is in the ledger once");
    assert_eq!(lines(&folder.path().join("model_judgment/judge_single.jsonl")).len(), 160);
    assert_eq!(flaky.paid(), 160 + wasted, "a stored reply is not paid again");
}

#[test]
fn an_interrupt_waits_for_pending_calls_and_the_next_run_resumes() {
    let server = server(MockBehaviour::perfect());
    let folder = answered(40, &server);
    let slow = self::server(MockBehaviour { latency: Duration::from_millis(20), ..MockBehaviour::perfect() });
    let url = slow.base_url();
    let mut arguments = judge_arguments(&url, &[]);
    arguments[8] = "8";
    slow.hold_after(20);
    let mut judge = mtbench(folder.path(), &arguments).stderr(Stdio::null()).spawn().unwrap();
    slow.wait_for_requests(28);
    let pid = judge.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    slow.release();
    assert_eq!(judge.wait().unwrap().code(), Some(143));
    let rows = lines(&folder.path().join("model_judgment/judge_single.jsonl"));
    assert!((28..160).contains(&rows.len()), "{} rows", rows.len());
    assert_eq!(rows.len(), slow.paid(), "every call under way is kept");
    run(folder.path(), &judge_arguments(&url, &[]));
    assert_eq!(slow.paid(), 160);
}

#[test]
fn a_budget_stops_judging_before_the_next_call() {
    let server = server(MockBehaviour::perfect());
    let folder = answered(10, &server);
    let url = server.base_url();
    let prices = folder.path().join("prices.toml");
    fs::write(&prices, "[models]\njudge = { prompt = 30.0, completion = 60.0 }\n").unwrap();
    let prices = prices.to_str().unwrap();
    let (status, said) =
        fails(folder.path(), &judge_arguments(&url, &["--max-cost", "0.2", "--prices", prices]));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("stopped before the next call") && said.contains("of 0.2 USD"), "{said}");
    let (status, said) = fails(folder.path(), &judge_arguments(&url, &["--max-cost", "5"]));
    assert!(said.contains("no price is known for model \"judge\""), "{status} {said}");
    run(folder.path(), &judge_arguments(&url, &["--max-cost", "5", "--prices", prices]));
}

/// Returns a judgment line with a rating.
fn rated(model: &str, question: u64, score: i64) -> String {
    let row = json!({"question_id": question, "model": model, "judge": ["gpt-4", "single-v1"], "user_prompt": "",
        "judgment": format!("[[{score}]]"), "score": score, "turn": 1, "tstamp": 1.0});
    row.to_string() + "\n"
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn show_and_browse_point_to_the_comparison_of_two_models() {
    let folder = bench(4);
    let data = folder.path();
    let rows = |models: &[&str]| -> String {
        models.iter().flat_map(|model| (81..85).map(|id| rated(model, id, 5))).collect()
    };
    let file = data.join("model_judgment/gpt-4_single.jsonl");
    write(&file, &rows(&["a", "b"]));
    let pointer = "difference with interval: mtbench compare a b --judge gpt-4 --data ";
    assert!(run(data, &["show"]).contains(pointer));
    let page = PathBuf::from(run(data, &["browse"]).trim_end());
    assert!(fs::read_to_string(page).unwrap().contains(pointer));
    assert!(!run(data, &["show", "--format", "csv"]).contains("difference"));
    write(&file, &rows(&["a"]));
    assert!(!run(data, &["show"]).contains("difference with interval"));
}

#[test]
fn models_without_scores_are_compared_and_an_absent_baseline_is_refused() {
    let folder = bench(4);
    let data = folder.path();
    let game = |id: u64| {
        json!({"question_id": id, "model_1": "a", "model_2": "b", "g1_winner": "model_1",
            "g2_winner": if id == 81 { "model_2" } else { "model_1" }, "turn": 1})
        .to_string()
            + "\n"
    };
    write(&data.join("model_judgment/gpt-4_pair.jsonl"), &(81..85).map(game).collect::<String>());
    let compared = run(data, &["compare", "a", "b", "--format", "csv"]);
    assert!(compared.contains("won by a,3") && compared.contains("ties,1"), "{compared}");
    let (status, said) = fails(data, &["compare", "a", "c"]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("gpt-4 has neither rated both \"a\" and \"c\" nor compared them"), "{said}");
    let show = ["show", "--table", "pairwise-baseline"];
    let (status, said) = fails(data, &show);
    assert_eq!(status, 2, "{said}");
    let expected = "no model \"gpt-3.5-turbo\" has comparisons by gpt-4; those that have: a, b";
    assert!(said.contains(expected), "{said}");
    assert!(run(data, &[&show[..], &["--baseline", "b"]].concat()).contains("0.875"));
}

#[test]
fn bad_lines_are_refused_or_skipped_and_escapes_are_not_printed() {
    let folder = bench(2);
    let data = folder.path();
    let text = rated("\u{1b}[31mred", 81, 7) + "{\"question_id\": 82, \"model\"\n";
    write(&data.join("model_judgment/gpt-4_single.jsonl"), &text);
    let (status, said) = fails(data, &["show"]);
    assert!(status == 2 && said.contains("gpt-4_single.jsonl, line 2"), "{said}");
    let shown = run(data, &["show", "--skip-bad"]);
    assert!(shown.contains("[31mred") && !shown.contains('\u{1b}'), "{shown}");
    let (status, said) = fails(data, &["show", "--skip-bad", "--model-id", "\u{202e}x"]);
    assert!(status == 2 && said.contains("\\u{202e}x") && !said.contains('\u{202e}'), "{said}");
    let (status, said) = fails(data, &["fetch", "--url", "http://me:hunter2@127.0.0.1:1/x"]);
    assert!(status == 1 && !said.contains("hunter2"), "{status} {said}");
}

#[test]
fn a_server_that_always_fails_is_status_1() {
    let good = server(MockBehaviour::perfect());
    let folder = answered(5, &good);
    let overflow = r#"{"error": {"message": "too long", "code": "context_length_exceeded"}}"#.to_owned();
    let fault = |share: u16| vec![(share, MockFault::Status(400, String::new(), overflow.clone()))];
    let broken = server(MockBehaviour { faults: fault(1000), ..MockBehaviour::perfect() });
    let (status, said) = fails(folder.path(), &judge_arguments(&broken.base_url(), &[]));
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains("20 of 20 calls failed (context_overflow: 20), more than --max-failed 0.1"),
        "{said}"
    );
    assert!(said.contains("0 judgments made"), "{said}");
    run(folder.path(), &judge_arguments(&broken.base_url(), &["--max-failed", "1"]));
    run(folder.path(), &judge_arguments(&good.base_url(), &[]));
    let rows = lines(&folder.path().join("model_judgment/judge_single.jsonl"));
    assert!(rows.len() == 20 && rows.iter().all(|row| row["score"] != -1), "failed calls are made again");
}

#[test]
fn four_judges_of_one_folder_lose_no_judgment() {
    let server = server(MockBehaviour { latency: Duration::from_millis(5), ..MockBehaviour::perfect() });
    let folder = answered(10, &server);
    let answers = folder.path().join("model_answer");
    for copy in ["good2", "poor2"] {
        fs::copy(answers.join("good.jsonl"), answers.join(format!("{copy}.jsonl"))).unwrap();
    }
    let url = server.base_url();
    let judges: Vec<_> = ["good", "poor", "good2", "poor2"]
        .map(|model| {
            let calls = folder.path().join(format!("calls-{model}"));
            let more = ["--model-id", model, "--calls", calls.to_str().unwrap()];
            let mut command = mtbench(folder.path(), &judge_arguments(&url, &more));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .into_iter()
        .collect();
    for mut judge in judges {
        assert!(judge.wait().unwrap().success());
    }
    let rows = lines(&folder.path().join("model_judgment/judge_single.jsonl"));
    let keys: std::collections::BTreeSet<String> =
        rows.iter().map(|row| format!("{} {} {}", row["model"], row["question_id"], row["turn"])).collect();
    assert_eq!((rows.len(), keys.len()), (80, 80));
}

#[test]
fn bad_input_is_reported_with_status_2() {
    let folder = bench(2);
    let data = folder.path();
    for (arguments, expected) in [
        (vec!["answer", "--model-id", "../evil", "--base-url", "http://localhost:1"], "cannot name a file"),
        (vec!["answer", "--model-id", "m", "--base-url", "localhost"], "is no address of an endpoint"),
        (
            vec![
                "answer",
                "--model-id",
                "m",
                "--base-url",
                "http://localhost:1",
                "--api-key-env",
                "NO_SUCH_KEY",
            ],
            "NO_SUCH_KEY holds no API key",
        ),
        (vec!["judge", "--judge", "j", "--base-url", "http://localhost:1"], "has no answers"),
        (vec!["show", "--judge", "nobody"], "cannot read"),
        (vec!["judge", "--judge", "j"], "--replay"),
        (vec!["judge", "--judge", "j", "--base-url", "http://x", "--timeout", "0"], "above 0"),
    ] {
        let (status, said) = fails(data, &arguments);
        assert_eq!(status, 2, "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    fs::write(data.join("question.jsonl"), "{\"question_id\": 1}\n").unwrap();
    let (status, said) = fails(data, &["show"]);
    assert_eq!(status, 2);
    assert!(said.contains("question.jsonl, line 1") && said.contains("category"), "{said}");
}

#[test]
fn questions_are_fetched_from_a_folder_or_a_server() {
    let source = bench(3);
    let text = fs::read_to_string(source.path().join("question.jsonl")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let printed = run(target.path(), &["fetch", "--from", source.path().to_str().unwrap()]);
    assert!(printed.contains("3 questions, 0 references"), "{printed}");
    let served = text.clone();
    let server =
        MockServer::files(
            move |path| if path.ends_with("question.jsonl") { served.clone() } else { String::new() },
        );
    let other = tempfile::tempdir().unwrap();
    let printed = run(other.path(), &["fetch", "--url", &server.base_url()]);
    assert!(printed.contains("3 questions"), "{printed}");
    let fetched = |folder: &TempDir| lines(&folder.path().join("question.jsonl"));
    assert_eq!(fetched(&target), fetched(&other));
    let empty = MockServer::files(|_| String::new());
    let (status, said) = fails(other.path(), &["fetch", "--url", &empty.base_url()]);
    assert_eq!(status, 1);
    assert!(said.contains("question.jsonl") && said.contains("404"), "{said}");
}

#[test]
fn fastchats_own_questions_make_160_calls_of_four_prompts() {
    let Some(real) = test_support::real_data("FastChat's questions judged over an endpoint") else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let from = real.join("mt_bench");
    let printed = run(data, &["fetch", "--from", from.to_str().unwrap()]);
    assert!(printed.contains("80 questions, 30 references"), "{printed}");
    for file in ["question.jsonl", "reference_answer/gpt-4.jsonl"] {
        assert_eq!(fs::read(from.join(file)).unwrap(), fs::read(data.join(file)).unwrap(), "{file}");
    }
    let server = server(MockBehaviour::perfect());
    let url = server.base_url();
    run(data, &["answer", "--model-id", "good", "--base-url", &url, "--api-key-env", "MOCK_KEY"]);
    fs::copy(data.join("reference_answer/gpt-4.jsonl"), data.join("reference_answer/judge.jsonl")).unwrap();
    run(data, &judge_arguments(&url, &[]));
    let mut prompts: BTreeMap<String, usize> = BTreeMap::new();
    for row in lines(&data.join("model_judgment/judge_single.jsonl")) {
        *prompts.entry(row["judge"][1].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let expected = [
        ("single-v1", 50),
        ("single-math-v1", 30),
        ("single-v1-multi-turn", 50),
        ("single-math-v1-multi-turn", 30),
    ];
    assert_eq!(prompts, expected.map(|(name, count)| (name.to_owned(), count)).into());
}

#[test]
fn a_real_model_answers_both_turns_with_its_own_template() {
    let Some(model) = test_support::real_model("a real model answers") else { return };
    let folder = bench(2);
    let arguments =
        ["answer", "--model", model.to_str().unwrap(), "--model-id", "smol", "--max-new-tokens", "12"];
    run(folder.path(), &arguments);
    let first = fs::read(folder.path().join("model_answer/smol.jsonl")).unwrap();
    let rows = lines(&folder.path().join("model_answer/smol.jsonl"));
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["choices"][0]["turns"].as_array().unwrap().len() == 2));
    run(folder.path(), &arguments);
    assert_eq!(
        fs::read(folder.path().join("model_answer/smol.jsonl")).unwrap(),
        first,
        "answers on file are kept"
    );
}
