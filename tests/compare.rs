//! End-to-end tests of `study compare` and `mtbench judge --certify`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/compare/tests/fixtures");

fn run(program: &str, dir: &Path, arguments: &[&str]) -> Output {
    Command::new(program).current_dir(dir).args(arguments).env("RUST_LOG", "info").output().unwrap()
}

fn study(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_study"), Path::new(FIXTURES), &[&["compare"], arguments].concat())
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn scores_of_any_origin_become_tables_and_rows() {
    let output = study(&["one_seed.csv", "--baseline", "sft", "--format", "json"]);
    let rows: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    let keys = ["estimate", "low", "high", "p", "p_holm", "mde", "required_questions"];
    assert!(keys.iter().all(|key| rows[0][key].is_number()), "{rows}");
    assert!(rows[0]["required_seeds"].is_null() && rows[0].get("required_seeds").is_some());
    assert!(stderr(&output).contains("one_seed.csv: a table of scores, 180 scores"), "{}", stderr(&output));

    let text = stdout(&study(&["several_seeds.parquet", "--baseline", "a"]));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("b − a") && text.contains("(4 arms)"), "{text}");
    let csv = stdout(&study(&["inspect.parquet", "--format", "csv"]));
    assert!(
        csv.starts_with("contrast,estimate,low,high,p,p_holm,mde,required_questions,required_seeds,scorer\n")
    );
    let sums = |arm: &str| {
        let folder = Path::new(FIXTURES).join("lm_eval").join(arm);
        let file = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.display().to_string().contains("samples_sums"));
        file.unwrap().display().to_string()
    };
    let named = [format!("x={}", sums("base")), format!("y={}", sums("tuned"))];
    let md = stdout(&study(&[&named[0], &named[1], "--format", "md"]));
    assert!(md.contains("| y − x") && md.contains("scored by acc"), "{md}");
    assert!(stdout(&study(&["inspect.csv", "--format", "tex"])).contains("\\begin{tabular}"));
}

#[test]
fn bad_scores_end_with_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &str, words: &str| {
        let path = dir.path().join("s.csv");
        fs::write(&path, text).unwrap();
        let output = study(&[path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words) && output.stdout.is_empty(), "{}", stderr(&output));
    };
    refused("arm,question,score\na,1,5\nb,1,NaN\n", "s.csv, line 3: `score` is NaN");
    refused("arm,question,score\na,1,5\na,1,6\n", "already, in line 2");
    refused("arm,question,score\na,1,5\na,2,6\n", "there is one arm, a");
    let output = study(&["absent.csv"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot read absent.csv"), "{}", stderr(&output));
}

#[test]
fn a_judge_is_certified_by_votes() {
    let dir = tempfile::tempdir().unwrap();
    let lines = |rows: Vec<Value>| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let questions = || 81..91_u64;
    let question = |id| json!({"question_id": id, "category": "writing", "turns": ["Why?", "Why not?"]});
    write("question.jsonl", lines(questions().map(question).collect()));
    for (model, words) in [("a", 3), ("b", 9)] {
        let text = "word ".repeat(words);
        let answer = |id| {
            json!({"question_id": id, "answer_id": "x", "model_id": model, "tstamp": 0.0,
                "choices": [{"index": 0, "turns": [text, text]}]})
        };
        write(&format!("model_answer/{model}.jsonl"), lines(questions().map(answer).collect()));
    }
    let judgment = |id| {
        json!({"question_id": id, "model_1": "a", "model_2": "b", "g1_winner": "model_2", "g2_winner": "model_2",
            "judge": ["qwen", "pair-v2"], "turn": 1})
    };
    write("model_judgment/qwen_pair.jsonl", lines(questions().map(judgment).collect()));
    let vote = |id: u64| {
        let winner = if id.is_multiple_of(2) { "model_a" } else { "model_b" };
        json!({"question_id": id, "model_a": "a", "model_b": "b", "winner": winner, "judge": "ann", "turn": 1})
    };
    write("votes.jsonl", lines(questions().map(vote).collect()));
    let certify = ["judge", "--data", ".", "--judge", "qwen", "--certify", "votes.jsonl"];
    let text = stdout(&run(env!("CARGO_BIN_EXE_mtbench"), dir.path(), &certify));
    assert!(text.contains("qwen against people") && text.contains("judge and person agree"), "{text}");
    assert!(text.contains("50.0") && text.contains("80 more votes would narrow"), "{text}");
    let absent = run(env!("CARGO_BIN_EXE_mtbench"), dir.path(), &[&certify[..6], &["absent.jsonl"]].concat());
    assert_eq!(absent.status.code(), Some(2), "{}", stderr(&absent));
}
