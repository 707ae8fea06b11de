//! The study of `recipes/paper.toml` from its plan to its report, at one seed, on two processes of which one dies once. The model is
//! a tiny Mistral with Zephyr's chat template, the preferences are generated rows in GAIR's published schema, and the judge is a
//! local server. All other keys are the recipe's.

mod bench;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, RecordBatch, StringArray, StructArray};
use bench::Bench;
use experiment::results::{ScoreRow, read_parquet};
use files::fault;
use parquet::arrow::ArrowWriter;
use policy_model::{ModelConfig, Policy};
use seeds::Seeds;
use serde_json::{Value, json};
use tch::{Device, Kind};
use test_support::{MockBehaviour, MockServer, bench_questions, rates_by_length, real_data};

const STUDY: &str = env!("CARGO_BIN_EXE_study");
const KEY: &str = "sk-rehearsal";
/// The number of rows of GAIR/preference-dissection.
const ROWS: usize = 5240;
const QUESTIONS: usize = 80;
/// All tables of the paper for which nobody rates anything.
const TABLES: &str = "1,3,4,5,sweep,8";

/// A folder with the model, the preferences and the questions.
fn folder() -> Bench {
    let bench = Bench::new();
    fs::create_dir(bench.path("mt_bench")).unwrap();
    let questions = bench.path("mt_bench/question.jsonl");
    match real_data("the rehearsal, which takes generated questions instead") {
        Some(data) => drop(fs::copy(data.join("mt_bench/question.jsonl"), questions).unwrap()),
        None => fs::write(questions, bench_questions(QUESTIONS)).unwrap(),
    }
    write_gair(&bench.path("gair.parquet"));
    write_mistral(&bench);
    bench
}

/// Requests one of three letters; the answer with the letter is better.
fn texts(k: usize) -> [String; 3] {
    let letter = |of: usize| ["a", "b", "c"][of % 3];
    [format!("Say {} {k} .", letter(k)), format!("{} .", letter(k)), format!("{} {k} .", letter(k + 1))]
}

fn write_gair(path: &Path) {
    const SCENARIOS: [&str; 4] = ["open_question", "code_generation", "math_reasoning", "creative_writing"];
    let column = |of: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new((0..ROWS).map(|k| Some(of(k))).collect::<StringArray>())
    };
    let structure =
        |fields: Vec<(&str, ArrayRef)>| -> ArrayRef { Arc::new(StructArray::try_from(fields).unwrap()) };
    let response = |which: usize| {
        structure(vec![
            ("content", column(&|k| texts(k)[1 + which].clone())),
            ("model", column(&|k| format!("model-{}", (k + which) % 5))),
        ])
    };
    // People err on every fourth pair, and the model on every eighth.
    let prefers = |errs: usize| column(&move |k| format!("response_{}", 1 + usize::from(k % errs == 0)));
    let batch = RecordBatch::try_from_iter([
        ("query", column(&|k| texts(k)[0].clone())),
        ("scenario_auto-j", column(&|k| SCENARIOS[k % 4].to_owned())),
        ("response_1", response(0)),
        ("response_2", response(1)),
        ("preference_labels", structure(vec![("human", prefers(4)), ("gpt-4-1106-preview", prefers(8))])),
    ])
    .unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Writes a random model of Mistral's architecture with Zephyr's chat template, and trains it to answer.
fn write_mistral(bench: &Bench) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/pref-data/tests/fixtures");
    let templates = fs::read_to_string(fixtures.join("chat_templates.json")).unwrap();
    let templates: Value = serde_json::from_str(&templates).unwrap();
    let zephyr = templates["templates"].as_array().unwrap().iter().find(|t| t["name"] == "zephyr").unwrap();
    let tokenizer = bench.path("tokenizer");
    fs::write(tokenizer.join("chat_template.jinja"), zephyr["source"].as_str().unwrap()).unwrap();
    let small: Value =
        serde_json::from_str(&fs::read_to_string(bench.path("model/config.json")).unwrap()).unwrap();
    let config = json!({
        "model_type": "mistral", "vocab_size": small["vocab_size"], "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_theta": 10000.0,
        "sliding_window": 4096, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
        "bos_token_id": small["bos_token_id"], "eos_token_id": small["eos_token_id"],
    });
    let config = ModelConfig::from_json(config).unwrap();
    let policy = Policy::initialize(config, &Seeds::new(1), Kind::BFloat16, Device::Cpu).unwrap();
    policy.save(&bench.path("mistral"), Kind::BFloat16, Some(&tokenizer)).unwrap();
    let lines = (0..ROWS).map(|k| {
        let [prompt, completion, _] = texts(k);
        json!({"prompt": prompt, "completion": completion}).to_string() + "\n"
    });
    fs::write(bench.path("demonstrations.jsonl"), lines.collect::<String>()).unwrap();
    let mut train = Command::new(env!("CARGO_BIN_EXE_pref-train"));
    train.current_dir(bench.folder.path()).args(["--recipe", "recipe.toml"]);
    for set in [
        "model.path=mistral",
        "data.path=demonstrations.jsonl",
        "loss.kind=sft",
        "train.learning_rate=3e-3",
        "train.batch_size=32",
        "train.micro_batch_size=32",
        "output.dir=sft",
    ] {
        train.args(["--set", set]);
    }
    succeeds(&train.output().unwrap());
}

/// The command that a person types, where the judge is at `url`.
fn study(bench: &Bench, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(STUDY);
    command.current_dir(bench.folder.path()).args(["--preset", "paper", "--tables", TABLES, "--out", "out"]);
    let url = format!("judge.base_url={url}");
    for set in
        ["study.seeds=1", "study.bench=mt_bench", "model.path=sft/model", "data.path=gair.parquet", &url]
    {
        command.args(["--set", set]);
    }
    command.args(arguments).args(["--nproc-per-node", "2"]);
    command.env("OPENAI_API_KEY", KEY).env("OMP_NUM_THREADS", "1");
    command
}

#[track_caller]
fn succeeds(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

#[test]
fn the_study_of_the_paper_on_two_processes() {
    let began = Instant::now();
    let step = |what: &str| println!("{:>5.0} s  {what}", began.elapsed().as_secs_f64());
    let bench = folder();
    step("model, preferences, questions");
    let behaviour = MockBehaviour { key: Some(KEY.to_owned()), ..MockBehaviour::perfect() };
    let judge = MockServer::start(behaviour, rates_by_length);
    let url = judge.base_url();

    let refused = study(&bench, &url, &["--plan"]).output().unwrap();
    let (plan, why) = (String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
    println!("{plan}{why}");
    assert!(
        !refused.status.success() && why.contains("max_cost"),
        "the judge costs more than the recipe's budget"
    );
    assert!(judge.calls().is_empty() && !bench.path("out").exists(), "a plan computes nothing");
    step("plan");

    let budget = ["--set", "judge.pace.max_cost=100000"];
    let mut all = study(&bench, &url, &budget);
    // Rank 1 dies at its 30,000th step. Fewer are left for the process that takes its place.
    all.env(fault::VARIABLE, "trainer.step=30000@1").stderr(Stdio::piped()).stdout(Stdio::piped());
    let (tables, log) = succeeds(&all.output().unwrap());
    step("all tables");
    println!("{tables}");
    assert_eq!(log.matches("group 1 of 1 starts again").count(), 1, "{log}");
    assert!(!log.contains(KEY) && !tables.contains(KEY), "no key is printed");
    for name in ["1", "3", "4", "5", "8", "9"] {
        assert!(tables.contains(&format!("Table {name}")), "table {name} is missing");
    }
    let rows = read_parquet(&bench.path("out/results.parquet")).unwrap();
    let gaps: Vec<&ScoreRow> = rows.iter().filter(|row| row.score.is_none()).collect();
    assert!(gaps.is_empty() && rows.len().is_multiple_of(QUESTIONS * 2), "{} rows, {gaps:?}", rows.len());
    assert!(fs::read_to_string(bench.path("out/report.html")).unwrap().contains("Table 9"));
    let (verified, _) = succeeds(&Command::new(STUDY).arg("verify").arg(bench.path("out")).output().unwrap());
    println!("{verified}");

    let paid = judge.paid();
    let (again, _) = succeeds(&study(&bench, &url, &budget).output().unwrap());
    assert_eq!((again, judge.paid()), (tables, paid), "nothing is computed or paid again");
    step(&format!("again: {} scores, {paid} calls of the judge", rows.len()));
}
