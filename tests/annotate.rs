//! End-to-end tests of `annotate` with a mock server as the judge.

mod bench;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bench::Bench;
use policy_model::{AttentionMask, Policy, Rows};
use pref_data::{Format, Label, TokenizeOptions, Tokenizer, annotator_view, read_records, tokenize_pairs};
use tch::{Device, Kind, Tensor};
use test_support::{BatchFate, MockBatchBehaviour, MockBatchServer, MockBehaviour, MockFault, MockServer};

const KEY: &str = "sk-that-nobody-may-see";

fn annotate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annotate"));
    command.current_dir(folder).args(arguments).env("MOCK_KEY", KEY).stdin(Stdio::null());
    command
}

fn finished(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Prefers the response that contains "better".
fn says(body: &serde_json::Value) -> String {
    let question = body["messages"][0]["content"].as_str().unwrap_or_default();
    let (first, _) = question.split_once("=== Answer B ===").expect("two answers");
    if first.contains("a better") { "[[A]]" } else { "[[B]]" }.to_owned()
}

fn write_pairs(folder: &Path, n: usize) {
    let line = |index: usize| {
        let (chosen, rejected) = if index.is_multiple_of(4) {
            ("an answer", "a better answer")
        } else {
            ("a better answer", "an answer")
        };
        serde_json::json!({"prompt": format!("question {index}"), "chosen": chosen, "rejected": rejected})
            .to_string()
    };
    fs::write(folder.join("pairs.jsonl"), (0..n).map(|index| line(index) + "\n").collect::<String>())
        .expect("written");
}

#[test]
fn a_kill_loses_no_paid_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_pairs(folder.path(), 60);
    let behaviour = MockBehaviour { key: Some(KEY.to_owned()), ..MockBehaviour::perfect() };
    let server = MockServer::start(behaviour, says);
    server.hold_after(20);
    let url = server.base_url();
    let arguments = [
        "llm",
        "pairs.jsonl",
        "--layout",
        "pairs",
        "--out",
        "records.jsonl",
        "--work",
        "work",
        "--model",
        "m",
        "--annotator",
        "mock",
        "--base-url",
        &url,
        "--api-key-env",
        "MOCK_KEY",
        "--concurrency",
        "2",
    ];
    let mut running = annotate(folder.path(), &arguments).stderr(Stdio::null()).spawn().expect("started");
    // The first 20 calls are answered; the server holds the next two.
    server.wait_for_requests(22);
    running.kill().expect("killed");
    running.wait().expect("ended");
    server.release();
    server.wait_until_idle();
    assert!(!folder.path().join("records.jsonl").exists());
    let said = finished(annotate(folder.path(), &arguments).output().expect("run"));
    assert!(said.starts_with("of 60 records 60 decided, 0 ties\n"), "{said}");
    // The answers of the two held calls are lost, and no others.
    assert_eq!(server.paid(), 122);

    let paid = server.paid();
    let again = finished(annotate(folder.path(), &arguments).output().expect("run"));
    assert!(again.contains("0 calls answered"), "{again}");
    assert_eq!(server.paid(), paid);

    let stats = ["stats", "records.jsonl", "--log", "work/annotations.jsonl", "--format", "csv"];
    let tables = finished(annotate(folder.path(), &stats).output().expect("run"));
    assert!(tables.contains("\nhuman,60,0,100.0") || tables.contains("\nhuman,60,0,100,"), "{tables}");
    assert!(tables.contains("\nhuman,60,75"), "agreement with the labels of the file: {tables}");
    let page =
        finished(annotate(folder.path(), &["show", "records.jsonl", "--id", "5"]).output().expect("run"));
    assert!(page.contains("── record 5 (5 of 60) ──") && page.contains("  mock   response 2"), "{page}");
    for entry in fs::read_dir(folder.path().join("work")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            assert!(!String::from_utf8_lossy(&fs::read(path).expect("a file")).contains(KEY));
        }
    }
}

#[test]
fn a_crash_at_any_point_of_a_batch_pays_for_no_call_twice() {
    let points = [
        ("uploaded", 1),
        ("recorded", 1),
        ("created", 1),
        ("saved", 1),
        ("polled", 1),
        ("polled", 2),
        ("reply", 1),
        ("reply", 7),
        ("booked", 1),
        // In the second batch, which makes the calls that the first one did not make.
        ("created", 2),
        ("reply", 14),
    ];
    for (point, count) in points {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_pairs(folder.path(), 8);
        let fates = vec![BatchFate::ExpireAfter(11)];
        let behaviour = MockBatchBehaviour { fates, polls: 2, key: Some(KEY.to_owned()) };
        let server = MockBatchServer::start(behaviour, says);
        let url = server.base_url();
        let arguments = [
            &["llm", "pairs.jsonl", "--layout", "pairs", "--out", "records.jsonl", "--work", "work"][..],
            &["--model", "gpt-4o-mini", "--base-url", &url, "--api-key-env", "MOCK_KEY"],
            &["--batch", "--batch-poll", "0.01", "--max-cost", "0.1"],
        ]
        .concat();
        let mut crashing = annotate(folder.path(), &arguments);
        let crashed = crashing
            .env(files::fault::VARIABLE, format!("llm-client.batch.{point}={count}"))
            .output()
            .expect("run");
        assert!(!crashed.status.success(), "{point}");
        let said = finished(annotate(folder.path(), &arguments).output().expect("run"));
        assert!(said.starts_with("of 8 records 8 decided, 0 ties\n"), "{point}: {said}");
        let billed = server.billed();
        assert_eq!((billed.len(), billed.values().max()), (16, Some(&1)), "{point} {count}");
        assert_eq!(server.batches(), 2, "{point} {count}");
        // The ledger has each answer once, at half the price of 100 and 10 tokens.
        let ledger = fs::read_to_string(folder.path().join("work/ledger.jsonl")).expect("a ledger");
        let rows = ledger.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a row"));
        let answered: Vec<f64> = rows
            .filter(|row| row["outcome"] == "answered")
            .map(|row| row["usd"].as_f64().expect("a price"))
            .collect();
        assert_eq!(answered.len(), 16, "{point} {count}");
        assert!(answered.iter().all(|usd| (usd - 0.5 * (100.0 * 0.15 + 10.0 * 0.6) / 1e6).abs() < 1e-12));
    }
}

/// Answers as the model that is asked, and rates answers by their policy: `strong` 5, `weak` 1, others 3.
fn samples_and_rates(body: &serde_json::Value) -> String {
    let text = body["messages"][0]["content"].as_str().unwrap_or_default();
    if !text.contains("=== Answer 1 ===") {
        return format!("A {} answer to {text}", body["model"].as_str().unwrap_or_default());
    }
    let answers = text.split("=== Answer ").skip(1);
    let rating = |answer: &str| match answer {
        answer if answer.contains("A strong answer") => 5,
        answer if answer.contains("A weak answer") => 1,
        _ => 3,
    };
    (1..)
        .zip(answers)
        .map(|(n, answer)| format!("Answer {n}, helpfulness: [[{}]]\n", rating(answer)))
        .collect()
}

#[test]
fn prompts_become_candidates_ratings_and_pairs() {
    let bench = Bench::new();
    let folder = bench.folder.path();
    let prompts: String = (0..6)
        .map(|n| {
            serde_json::json!({"id": format!("p{n}"), "prompt": format!("Say {n} .")}).to_string() + "\n"
        })
        .collect();
    fs::write(bench.path("prompts.jsonl"), &prompts).expect("written");
    let server = MockServer::start(MockBehaviour::perfect(), samples_and_rates);
    let url = server.base_url();
    let (strong, weak) = (format!("strong=strong@{url}"), format!("weak=weak@{url}"));
    let sample = [
        &["sample", "prompts.jsonl", "--out", "candidates.jsonl", "--work", "work"][..],
        &["--endpoint", &strong, "--endpoint", &weak, "--policy", "local=model"],
        &["--max-new-tokens", "8", "--samples", "2"],
    ]
    .concat();
    let said = finished(annotate(folder, &sample).output().expect("run"));
    assert!(said.contains("6 records of 6 prompts"), "{said}");
    let calls = server.calls().len();
    let file = fs::read(bench.path("candidates.jsonl")).expect("candidates");
    let again = finished(annotate(folder, &sample).output().expect("run"));
    assert!(again.contains("0 calls answered") && server.calls().len() == calls, "{again}");
    assert_eq!(fs::read(bench.path("candidates.jsonl")).expect("candidates"), file);
    let records = read_records(bench.path("candidates.jsonl"), Format::Records).expect("records");
    let locals = |record: &pref_data::PreferenceRecord| {
        let text = |response: &pref_data::Text| serde_json::to_string(response).expect("a text");
        record.responses.iter().filter(|response| !text(response).contains("A ")).count()
    };
    assert!(records.iter().all(|record| record.responses.len() >= 3 && locals(record) >= 1), "{records:?}");

    let label = [
        &["llm", "candidates.jsonl", "--out", "rated.jsonl", "--work", "labels", "--model", "judge"][..],
        &["--base-url", &url, "--aspects", "helpfulness", "--annotator", "rater"],
    ]
    .concat();
    finished(annotate(folder, &label).output().expect("run"));
    let pairs = |strategy: &str, log: &str| {
        let arguments =
            ["pairs", "candidates.jsonl", "--log", log, "--out", "pairs.jsonl", "--strategy", strategy];
        annotate(folder, &arguments).output().expect("run")
    };
    for strategy in ["best-worst", "best-random", "max-margin"] {
        let said = finished(pairs(strategy, "labels/annotations.jsonl"));
        assert!(said.starts_with("6 pairs of 6 records, 0 without a lead, 0 unrated"), "{said}");
        let made = read_records(bench.path("pairs.jsonl"), Format::Records).expect("records");
        let (views, _) = annotator_view(&made, "rater").expect("pairs");
        for (index, pair) in views.iter().enumerate() {
            let text = |text: &pref_data::Text| serde_json::to_string(text).expect("a text");
            let strong = format!("A strong answer to Say {index} .");
            assert!(pair.id == format!("p{index}") && text(&pair.chosen).contains(&strong), "{pair:?}");
            let weak = format!("A weak answer to Say {index} .");
            assert!(strategy == "best-random" || text(&pair.rejected).contains(&weak), "{strategy} {pair:?}");
        }
    }
    // A log of other candidates is no log of these.
    let log = fs::read_to_string(bench.path("labels/annotations.jsonl")).expect("a log");
    fs::write(
        bench.path("short.jsonl"),
        log.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>(),
    )
    .expect("written");
    let refused = pairs("best-worst", "short.jsonl");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("record `p0` has no line in the log"));
}

#[test]
fn a_plan_asks_nothing_and_shows_the_price() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_pairs(folder.path(), 3);
    let server = MockServer::start(MockBehaviour::perfect(), says);
    let url = server.base_url();
    let plan = |more: &[&str]| {
        let arguments = ["llm", "pairs.jsonl", "--layout", "pairs", "--work", "work", "--base-url", &url];
        let model = ["--model", "gpt-4o-mini", "--plan", "--format", "json"];
        let said = finished(
            annotate(folder.path(), &[&arguments[..], &model, more].concat()).output().expect("run"),
        );
        serde_json::from_str::<serde_json::Value>(&said).expect("a table")["rows"].clone()
    };
    let count = |rows: &serde_json::Value, at: usize| rows[at][1]["count"].as_u64().expect("a count");
    let (direct, batch) = (plan(&[]), plan(&["--batch"]));
    assert_eq!((count(&direct, 0), count(&direct, 3)), (3, 6), "{direct}");
    let usd = |rows: &serde_json::Value| rows[8][1]["number"]["value"].as_f64().expect("a price");
    assert!((usd(&direct) - 2.0 * usd(&batch)).abs() < 1e-9 && usd(&direct) > 0.0, "{direct} {batch}");
    let ratings = plan(&["--aspects", "honesty,helpfulness"]);
    assert_eq!(count(&ratings, 3), 12, "two aspects in both orders");
    assert_eq!(count(&plan(&["--aspects", "honesty,helpfulness", "--aspect-calls", "together"]), 3), 6);
    assert_eq!(server.calls().len(), 0);
}

#[test]
fn calls_that_fail_beyond_the_limit_fail_the_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_pairs(folder.path(), 12);
    // The prompt is too long: a failure of this call only, which is not repeated.
    let body = r#"{"error": {"message": "too long", "code": "context_length_exceeded"}}"#.to_owned();
    let faults = vec![(400, MockFault::Status(400, String::new(), body))];
    let behaviour = MockBehaviour { key: Some(KEY.to_owned()), faults, ..MockBehaviour::perfect() };
    let server = MockServer::start(behaviour, says);
    let url = server.base_url();
    let label = |out: &str, most: &str| {
        let file = format!("{out}.jsonl");
        let files =
            ["llm", "pairs.jsonl", "--layout", "pairs", "--out", &file, "--work", out, "--model", "m"];
        let endpoint = ["--base-url", &url, "--api-key-env", "MOCK_KEY", "--max-failed", most];
        annotate(folder.path(), &[&files[..], &endpoint].concat()).output().expect("run")
    };
    let strict = label("strict", "0.01");
    let said = String::from_utf8_lossy(&strict.stderr).into_owned();
    assert_eq!(strict.status.code(), Some(1), "{said}");
    assert!(said.contains("error: calls failed for ") && said.contains(" of 12 records ("), "{said}");
    assert!(said.contains("more than --max-failed 0.01"), "{said}");
    assert!(folder.path().join("strict.jsonl").exists(), "what was decided is kept");
    finished(label("lenient", "1"));
}

#[test]
fn a_record_is_shown_as_a_model_sees_it() {
    let bench = Bench::new();
    bench.write_pairs(&[("Say a .", "a .", "b .")]);
    let model = bench.path("model").display().to_string();
    let show = ["show", "pairs.jsonl", "--layout", "pairs", "--render", "--model", &model];
    let shown = finished(annotate(bench.folder.path(), &show).output().expect("run"));
    let records = read_records(bench.path("pairs.jsonl"), Format::Pairs).expect("a record");
    let (pairs, _) = annotator_view(&records, "human").expect("a pair");
    let tokenizer = Tokenizer::from_folder(bench.path("model")).expect("a tokenizer");
    let (tokens, _) = tokenize_pairs(&pairs, &tokenizer, &TokenizeOptions::new(1024)).expect("tokens");
    for (name, ids) in [
        ("prompt", &tokens[0].prompt),
        ("response 1", &tokens[0].chosen),
        ("response 2", &tokens[0].rejected),
    ] {
        let scored = if name == "prompt" { "not scored" } else { "scored" };
        let wanted = format!("\n{name}, {} tokens, {scored}, 0 cut: ", ids.len());
        let at = shown.find(&wanted).unwrap_or_else(|| panic!("{wanted} is missing in {shown}"));
        assert!(shown[at..].contains(&format!("\n  {ids:?}")), "{shown}");
    }
    let without = annotate(bench.folder.path(), &show[..5]).output().expect("run");
    assert_eq!(without.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&without.stderr).contains("--model"));

    fs::write(bench.path("model/chat_template.jinja"), "{{ raise_exception('No chats!') }}")
        .expect("written");
    let row = serde_json::json!({"id": "the-one", "prompt": [{"role": "user", "content": "a"}], "chosen": "a", "rejected": "b"});
    fs::write(bench.path("pairs.jsonl"), format!("\n{row}\n")).expect("written");
    let refused = annotate(bench.folder.path(), &show).output().expect("run");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("pairs.jsonl, line 2: record `the-one`: ") && said.contains("line 1: No chats!"),
        "{said}"
    );
}

#[test]
fn bad_input_is_status_2_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_pairs(folder.path(), 1);
    let base = ["llm", "pairs.jsonl", "--out", "r.jsonl", "--work", "w", "--model", "m"];
    let cases: [(&[&str], &str); 5] = [
        (&[], "field `"),
        (&["--layout", "pairs", "--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE holds no API key"),
        (&["--layout", "pairs", "--batch", "--base-url", "https://x", "--batch-price", "2"], "from 0 to 1"),
        (&["--layout", "pairs", "--template", "pairs.jsonl"], "the prompt template has no"),
        (&["--layout", "pairs", "--aspects", "honesty,humor"], "no aspect is built in as `humor`"),
    ];
    for (more, expected) in cases {
        let output = annotate(folder.path(), &[&base[..], more].concat()).output().expect("run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

/// Computes log π of the response after the prompt in nats, from full logits.
fn logp(policy: &Policy, prompt: &[u32], response: &[u32]) -> f64 {
    let ids: Vec<i64> = prompt.iter().chain(response).map(|&id| i64::from(id)).collect();
    let length = ids.len() as i64;
    let row = |values: &Tensor| values.view([1, length]);
    let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu));
    let ids = Tensor::from_slice(&ids);
    let rows = Rows {
        ids: row(&ids),
        positions: row(&positions),
        mask: AttentionMask::Causal,
        dropout: None,
        routing: None,
    };
    let logps = tch::no_grad(|| policy.logits(&policy.hidden_states(&rows).unwrap()));
    let logps = logps.view([length, -1]).log_softmax(-1, Kind::Double);
    let of = |at: usize| logps.double_value(&[at as i64 - 1, ids.int64_value(&[at as i64])]);
    (prompt.len()..prompt.len() + response.len()).map(of).sum()
}

#[test]
fn a_model_prefers_the_more_probable_response() {
    let bench = Bench::new();
    let pairs =
        [("Say a .", "a .", "b c , a ."), ("Say b .", "b , c , c .", "a ."), ("Say c .", "c .", "b .")];
    bench.write_pairs(&pairs);
    let label = |reduction: &str, out: &str, more: &[&str]| -> Vec<Option<Label>> {
        let arguments =
            ["score", "pairs.jsonl", "--layout", "pairs", "--model", "model", "--annotator", "scorer"];
        let arguments = [&arguments[..], &["--reduction", reduction, "--out", out], more].concat();
        let printed = finished(annotate(bench.folder.path(), &arguments).output().expect("it runs"));
        assert!(printed.contains("3 of 3 records labelled by scorer"), "{printed}");
        let records = read_records(bench.path(out), Format::Records).expect("records");
        records.iter().map(|record| record.labels.get("scorer").copied()).collect()
    };
    let records = read_records(bench.path("pairs.jsonl"), Format::Pairs).unwrap();
    let (views, _) = annotator_view(&records, "human").unwrap();
    let options = TokenizeOptions::new(1024);
    let tokenizer = Tokenizer::from_folder(bench.path("model")).unwrap();
    let (tokens, _) = tokenize_pairs(&views, &tokenizer, &options).unwrap();
    let policy = Policy::load(&bench.path("model"), Kind::Float, Device::Cpu).unwrap();
    for (reduction, mean) in [("sum", false), ("mean", true)] {
        let score = |prompt: &[u32], response: &[u32]| {
            let sum = logp(&policy, prompt, response);
            if mean { sum / response.len() as f64 } else { sum }
        };
        let expected: Vec<Option<Label>> = tokens
            .iter()
            .map(|pair| (score(&pair.prompt, &pair.chosen), score(&pair.prompt, &pair.rejected)))
            .map(|(chosen, rejected)| Some(Label::Prefers(usize::from(chosen < rejected))))
            .collect();
        assert_eq!(label(reduction, &format!("{reduction}.jsonl"), &[]), expected, "{reduction}");
    }
    let ties = label("mean", "ties.jsonl", &["--tie-margin", "1000"]);
    assert!(ties.iter().all(|label| *label == Some(Label::Tie)), "{ties:?}");
}
