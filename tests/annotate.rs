//! End-to-end tests of `annotate` with a mock server as the judge.

mod bench;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bench::Bench;
use policy_model::{AttentionMask, Policy, Rows};
use pref_data::{Format, Label, TokenizeOptions, Tokenizer, annotator_view, read_records, tokenize_pairs};
use tch::{Device, Kind, Tensor};
use test_support::{MockBehaviour, MockFault, MockServer};

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
    let cases: [(&[&str], &str); 3] = [
        (&[], "field `"),
        (&["--layout", "pairs", "--api-key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE holds no API key"),
        (&["--layout", "pairs", "--template", "pairs.jsonl"], "the prompt template has no"),
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
