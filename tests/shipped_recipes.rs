//! Runs every shipped study recipe from its first line to its report. Only the model is small, the data is a small file
//! in the set's published layout, and the judge is a local mock.

mod bench;

use std::fs;
use std::path::Path;
use std::process::Command;

use bench::Bench;
use experiment::results::read_parquet;
use serde_json::{Value, json};
use test_support::{MockBehaviour, MockServer, bench_questions, rates_by_length};

const QUESTIONS: usize = 4;
const PAIRS: usize = 80;
/// Overrides that shorten a study from weeks to seconds.
const SMALL: [&str; 11] = [
    "study.bench=mt_bench",
    "study.questions=4",
    "study.seeds=1",
    "answers.max_new_tokens=6",
    "model.path=model",
    "model.dtype=float32",
    "data.path=set.jsonl",
    "data.sample=80",
    "train.epochs=1",
    "train.batch_size=4",
    "train.learning_rate=0.02",
];

/// In place of a split that would take most of the rows.
const HELD_OUT: &str = "data.held_out=8";

/// Requests one of three letters; the answer with the letter is better.
fn texts(k: usize) -> [String; 3] {
    let letter = |of: usize| ["a", "b", "c"][of % 3];
    [format!("Say {} {k} .", letter(k)), format!("{} .", letter(k)), format!("{} .", letter(k + 1))]
}

/// A row of GAIR/preference-dissection.
fn gair(k: usize) -> Value {
    let [query, better, worse] = texts(k);
    let says = |first: bool| if first { "response_1" } else { "response_2" };
    json!({
        "query": query, "scenario_auto-j": "rewriting",
        "response_1": {"content": better, "model": "m"}, "response_2": {"content": worse, "model": "n"},
        "preference_labels": {"human": says(k.is_multiple_of(3)), "gpt-4-1106-preview": says(true)},
    })
}

/// A row of the binarized UltraFeedback.
fn ultrafeedback(k: usize) -> Value {
    let [prompt, better, worse] = texts(k);
    let dialogue =
        |said| json!([{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]);
    json!({"prompt": prompt, "prompt_id": k.to_string(), "chosen": dialogue(&better), "rejected": dialogue(&worse),
           "messages": dialogue(&better), "score_chosen": 9.0, "score_rejected": 4.0})
}

/// A row of SHP.
fn shp(k: usize) -> Value {
    let [history, better, worse] = texts(k);
    json!({"post_id": format!("p{k}"), "domain": "askculinary_train", "history": history, "c_root_id_A": "a",
           "c_root_id_B": "b", "human_ref_A": better, "human_ref_B": worse, "labels": 1, "score_ratio": 3.5})
}

/// A row of hh-rlhf.
fn hh_rlhf(k: usize) -> Value {
    let [prompt, better, worse] = texts(k);
    let dialogue = |said| format!("\n\nHuman: {prompt}\n\nAssistant: {said}");
    json!({"chosen": dialogue(better), "rejected": dialogue(worse)})
}

/// A folder with a small model, `PAIRS` rows and some questions.
fn folder(row: fn(usize) -> Value) -> Bench {
    let bench = Bench::new();
    let rows: String = (0..PAIRS).map(|k| format!("{}\n", row(k))).collect();
    fs::write(bench.path("set.jsonl"), rows).unwrap();
    fs::create_dir(bench.path("mt_bench")).unwrap();
    fs::write(bench.path("mt_bench/question.jsonl"), bench_questions(QUESTIONS)).unwrap();
    bench
}

/// Runs the tables of a shipped recipe on rows of its set; returns the output and the number of scores in files.
fn run(recipe: &str, row: fn(usize) -> Value, more: &[&str]) -> (String, usize) {
    run_in(&folder(row), recipe, more)
}

fn run_in(bench: &Bench, recipe: &str, more: &[&str]) -> (String, usize) {
    let judge = MockServer::start(MockBehaviour::perfect(), rates_by_length);
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").join(recipe);
    let mut command = Command::new(env!("CARGO_BIN_EXE_study"));
    command.arg("--recipe").arg(recipe).args(["--tables", "1,3,4,5"]).current_dir(bench.folder.path());
    let url = format!("judge.base_url={}", judge.base_url());
    for set in SMALL.iter().chain(more).chain([&url.as_str(), &"output.dir=out"]) {
        command.args(["--set", set]);
    }
    let stdout = printed(command.env("OPENAI_API_KEY", "sk-none").env("OMP_NUM_THREADS", "1"));
    assert!(bench.path("out/report.html").is_file(), "no report");
    (stdout, read_parquet(&bench.path("out/results.parquet")).unwrap().len())
}

/// Returns the output of a program that succeeds.
#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The number of policies in all tables for one seed, each counted once and without SFT. DPO and IPO on all pairs, at
/// three earlier checkpoints and on three smaller volumes; DPO at four flip rates, and cDPO at five including 0.
const POLICIES_OF_AN_ANNOTATOR: usize = 23;

fn scores_of(annotators: usize) -> usize {
    (1 + annotators * POLICIES_OF_AN_ANNOTATOR) * QUESTIONS * 2
}

/// Asserts that `stdout` has a line of verdicts that starts like this, with this difference in the paper's column.
#[track_caller]
fn has_claim(stdout: &str, begins: &str, printed: &str) {
    let line =
        stdout.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins}: {stdout}"));
    let rest = line[begins.len()..].split_whitespace().next();
    assert_eq!(rest, Some(printed), "{line}");
}

#[test]
fn the_preference_set_of_the_paper() {
    let (stdout, scores) = run("paper.toml", gair, &[HELD_OUT]);
    has_claim(&stdout, "Table 1  DPO: gpt-4-turbo − human ", "+0.27");
    has_claim(&stdout, "Table 1  human: DPO − SFT ", "−0.03");
    assert_eq!(scores, scores_of(2));
}

#[test]
fn ultrafeedback_in_the_papers_setting() {
    let (stdout, scores) = run("paper/ultrafeedback.toml", ultrafeedback, &["data.eval_path=set.jsonl"]);
    has_claim(&stdout, "Table 10  human: DPO − SFT ", "+0.47");
    has_claim(&stdout, "Table 14  human, DPO: trend with flipped labels ", "−1.14");
    assert_eq!(scores, scores_of(1));
}

#[test]
fn shp_in_the_papers_setting() {
    let (stdout, scores) = run("paper/shp.toml", shp, &[HELD_OUT]);
    has_claim(&stdout, "Table 10  human: DPO − SFT ", "−0.31");
    has_claim(&stdout, "Table 14  human, DPO: trend with flipped labels ", "−0.70");
    assert_eq!(scores, scores_of(1));
}

#[test]
fn a_study_on_a_laptop() {
    let (stdout, scores) = run("laptop.toml", hh_rlhf, &[HELD_OUT]);
    assert!(stdout.contains("Table 3. Scores by volume of preferences"), "{stdout}");
    assert_eq!(scores, scores_of(1));
}

/// Prefers the response with the requested letter, in either order; every third question has the other one preferred.
fn prefers(body: &Value) -> String {
    let asked = body["messages"][0]["content"].as_str().unwrap();
    let mut words = asked.split("Say ").nth(1).unwrap().split(' ');
    let (letter, number) = (words.next().unwrap(), words.next().unwrap());
    let (first, _) = asked.split_once("=== Answer B ===").unwrap();
    let is_first = first.rsplit("=== Answer A ===").next().unwrap().contains(&format!("{letter} ."));
    let errs = number.parse::<usize>().unwrap().is_multiple_of(3);
    if is_first == errs { "[[B]]" } else { "[[A]]" }.to_owned()
}

/// docs/laptop.md: the same pairs labeled by a model, and policies trained on both sets of labels.
#[test]
#[ignore = "slow: cargo xtask test slow"]
fn model_labels_against_human_labels_on_a_laptop() {
    let bench = folder(hh_rlhf);
    let model = MockServer::start(MockBehaviour::perfect(), prefers);
    let mut annotate = Command::new(env!("CARGO_BIN_EXE_annotate"));
    annotate.current_dir(bench.folder.path()).args(["llm", "set.jsonl", "--layout", "hh-rlhf"]);
    annotate.args(["--base-url", &model.base_url(), "--model", "qwen2.5:7b"]);
    printed(annotate.args(["--work", "annotations", "--out", "labelled.jsonl"]));
    let mut stats = Command::new(env!("CARGO_BIN_EXE_annotate"));
    let stats = printed(stats.current_dir(bench.folder.path()).args(["stats", "labelled.jsonl"]));
    assert!(stats.contains("qwen2.5:7b") && stats.contains("human"), "{stats}");
    let annotators = r#"study.annotators=["human", "qwen2.5:7b"]"#;
    let labelled = [HELD_OUT, "data.path=labelled.jsonl", "data.format=sandbox", annotators];
    let (stdout, scores) = run_in(&bench, "laptop.toml", &labelled);
    assert!(stdout.contains("Table 1  DPO: human − qwen2.5:7b"), "{stdout}");
    assert_eq!(scores, scores_of(2));
}
