//! End-to-end tests of `agreement`: sheets, raters' files, a report. Bad input gives a clear error and exit status 2.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn agreement(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_agreement")).current_dir(dir).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Asserts exit status 2 and these words on stderr.
fn refuses(dir: &Path, arguments: &[&str], words: &str) {
    let output = agreement(dir, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(words) && !stderr.contains("panicked"), "`{words}` is missing in: {stderr}");
    assert!(output.stdout.is_empty());
}

fn write_bench(dir: &Path) {
    let lines = |rows: Vec<Value>| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let questions =
        (81..85).map(|id| json!({"question_id": id, "category": "writing", "turns": ["Why?", "Why not?"]}));
    fs::write(dir.join("question.jsonl"), lines(questions.collect())).unwrap();
    for model in ["dpo", "sft"] {
        let answers = (81..85).map(|id| {
            json!({"question_id": id, "answer_id": "x", "model_id": model, "tstamp": 0.0,
                "choices": [{"index": 0, "turns": [format!("{model} {id}"), format!("{model} again")]}]})
        });
        fs::write(dir.join(format!("{model}.jsonl")), lines(answers.collect())).unwrap();
    }
}

const MAKE: [&str; 11] = [
    "make",
    "--questions",
    "question.jsonl",
    "--model-1",
    "dpo.jsonl",
    "--model-2",
    "sft.jsonl",
    "--raters",
    "ann,bob",
    "--out",
    "study",
];

#[test]
fn from_answers_to_a_report() {
    let dir = tempfile::tempdir().unwrap();
    write_bench(dir.path());
    let written = stdout(&agreement(dir.path(), &MAKE));
    assert_eq!(written.lines().count(), 5);
    let key = "study/key.json";
    let sheets: Value = serde_json::from_slice(&fs::read(dir.path().join(key)).unwrap()).unwrap();
    let hand_in = |rater: &str, items: usize| {
        // A rater that prefers the first model in either position.
        let sheet = &sheets["sheets"][rater];
        let study = sheet["study"].as_str().unwrap();
        let choices = (1..).zip(sheet["shown"].as_array().unwrap()).take(items);
        let row = |(place, shown): (usize, &Value)| {
            let choice = if shown["first"] == "model_1" { 1 } else { 2 };
            format!("{study},{rater},{place},{choice}\n")
        };
        let rows: String = choices.map(row).collect();
        fs::write(dir.path().join(format!("{rater}.csv")), format!("study,rater,item,choice\n{rows}"))
            .unwrap();
    };
    hand_in("ann", 3);
    hand_in("bob", 8);
    let collect = ["collect", "--key", key, "ann.csv", "bob.csv"];
    refuses(dir.path(), &collect, "ann.csv: ann left 5 items open, the first is item 4");
    refuses(dir.path(), &["collect", "--key", key, "question.jsonl"], "no column `study`");
    hand_in("ann", 8);
    let ratings = stdout(&agreement(dir.path(), &collect));
    assert_eq!((ratings.lines().count(), ratings.matches("model_1").count()), (17, 16));
    fs::write(dir.path().join("ratings.csv"), ratings).unwrap();
    let table =
        stdout(&agreement(dir.path(), &["report", "ratings.csv", "--model-1", "dpo", "--model-2", "sft"]));
    assert!(table.contains("dpo is preferred 8 times, sft 0"), "{table}");
    refuses(dir.path(), &["report", "absent.csv"], "cannot read absent.csv");
    assert!(agreement(dir.path(), &MAKE).status.success(), "writing the same sheets again succeeds");
    refuses(dir.path(), &[&MAKE[..], &["--seed", "1"]].concat(), "choose another folder");
}

#[test]
fn a_report_has_the_fields_that_scripts_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut ratings = "item,rater,choice,category\n".to_owned();
    for (item, choice) in (0..160).map(|i| {
        (
            i,
            if i < 63 {
                "model_1"
            } else if i < 109 {
                "model_2"
            } else {
                "equal"
            },
        )
    }) {
        for rater in ["a", "b", "c"] {
            let category = ["coding", "writing"][item % 2];
            ratings += &format!("{item},{rater},{choice},{category}\n");
        }
    }
    fs::write(dir.path().join("ratings.csv"), &ratings).unwrap();
    let report =
        |format: &str| stdout(&agreement(dir.path(), &["report", "ratings.csv", "--format", format]));
    let json: Value = serde_json::from_str(&report("json")).unwrap();
    let fields = ["wins_model_1", "wins_model_2", "ties", "items", "raters"];
    assert_eq!(fields.map(|field| json[field].as_u64().unwrap()), [63, 46, 51, 160, 3]);
    assert_eq!(json["fleiss_kappa"], 1.0);
    assert!((json["sign_test"]["p_value"].as_f64().unwrap() - 0.1250045413).abs() < 1e-9);
    assert!(report("text").contains("39.38 [32.14, 47.11]") && report("csv").contains("63"));
    assert!(report("md").contains("| coding"), "{}", report("md"));
    let out = ["report", "ratings.csv", "--out", "out", "--model-1", "GPT4-Turbo", "--model-2", "Human"];
    stdout(&agreement(dir.path(), &out));
    for file in ["tables/table-2.tex", "tables/figure-2.csv", "figures/figure-2.svg", "report.html"] {
        assert!(dir.path().join("out").join(file).exists(), "{file}");
    }
    refuses(dir.path(), &["report", "ratings.csv", "--level", "95"], "write 0.95 for 95%");
    fs::write(dir.path().join("bad.csv"), ratings.replacen("model_1", "left", 1)).unwrap();
    refuses(dir.path(), &["report", "bad.csv"], "bad.csv, line 2: choice \"left\"");
    assert_eq!(agreement(dir.path(), &["report"]).status.code(), Some(2));
}

#[test]
fn the_papers_page_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let page = stdout(&agreement(dir.path(), &["paper"]));
    assert_eq!(page.trim_end(), include_str!("../docs/paper-reanalysis.md").trim_end());
    let table = stdout(&agreement(dir.path(), &["paper", "--format", "csv"]));
    assert!(table.starts_with("Where,Claim,Verdict,Finding") && table.contains("contradicted"));
}
