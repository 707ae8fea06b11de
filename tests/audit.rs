//! The program `audit`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn audit(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_audit")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn pairs(folder: &Path) -> String {
    let row = |at: usize| {
        format!(
            "{{\"prompt\": \"What is {at} + 1?\", \"chosen\": \"It is {}.\", \"rejected\": \"It is {at}.\"}}\n",
            at + 1
        )
    };
    let path = folder.join("pairs.jsonl");
    fs::write(&path, (0..60).map(row).collect::<String>() + &row(7)).unwrap();
    path.display().to_string()
}

#[test]
fn the_answer_fits_on_one_screen() {
    let folder = tempfile::tempdir().unwrap();
    let text = stdout(&audit(&[&pairs(folder.path())]));
    let answer: Vec<&str> = text.lines().take_while(|line| *line != "What is in it").collect();
    assert!(answer.len() <= 13, "twelve lines and an empty one: {answer:#?}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(answer[0].contains("60 of 61 pairs"), "{answer:#?}");
}

#[test]
fn json_has_the_documented_keys() {
    let folder = tempfile::tempdir().unwrap();
    let bench = folder.path().join("question.jsonl");
    fs::write(&bench, "{\"question_id\": 1, \"category\": \"math\", \"turns\": [\"What is 3 + 1?\"]}\n")
        .unwrap();
    let bench = bench.display().to_string();
    let text = stdout(&audit(&[&pairs(folder.path()), "--bench", &bench, "--format", "json"]));
    let found: Value = serde_json::from_str(&text).unwrap();
    for key in ["rows", "pairs", "identical", "contradictions", "cycles", "usable_pairs", "detectable_effect"]
    {
        assert!(found[key].is_number(), "{key}: {}", found[key]);
    }
    assert_eq!((&found["duplicates"]["exact"], &found["leakage"][&bench]["exact"]), (&1.into(), &1.into()));
    assert!(found["duplicates"]["near"].is_number() && found["leakage"][&bench]["ngram"].is_number());
    for key in ["feature", "auc", "low", "high"] {
        assert!(!found["shortcuts"][0][key].is_null(), "{key}");
    }
    for key in ["method", "estimate", "low", "high", "assumes"] {
        assert!(!found["noise"][0][key].is_null(), "{key}");
    }
    assert!(found["verdict"].is_string());
    let page = stdout(&audit(&[&pairs(folder.path()), "--format", "html"]));
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg"));
}

#[test]
fn cleaning_writes_pairs_and_a_log_and_diff_shows_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (pairs(folder.path()), folder.path().join("clean.jsonl").display().to_string());
    let said = stdout(&audit(&["clean", &file, "--out", &out]));
    assert!(said.contains("60 of 61 pairs; 1 change"), "{said}");
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 60);
    let log = fs::read_to_string(format!("{out}.log.jsonl")).unwrap();
    let change: Value = serde_json::from_str(log.trim()).unwrap();
    assert_eq!((&change["action"], &change["fault"]), (&"removed".into(), &"duplicate".into()));
    let difference: Value =
        serde_json::from_str(&stdout(&audit(&["diff", &file, &out, "--format", "json"]))).unwrap();
    assert_eq!((&difference["same"], &difference["only_first"]), (&60.into(), &0.into()));
}

#[test]
fn rows_that_are_not_used_are_announced() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (pairs(folder.path()), folder.path().join("clean.jsonl").display().to_string());
    let torn = folder.path().join("torn.jsonl");
    fs::write(&torn, fs::read_to_string(&file).unwrap() + "{\"prompt\": \"a\"}\n").unwrap();
    let torn = torn.display().to_string();
    let said = |arguments: &[&str]| {
        let output = audit(arguments);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let cleaned = said(&["clean", &torn, "--out", &out]);
    assert!(cleaned.contains("1 unreadable, 0 without a label of human, 0 ties"), "{cleaned}");
    let compared = said(&[&file, "--second", &torn]);
    assert!(
        compared.contains("torn.jsonl: 1 rows cannot be read; the first: ") && compared.contains("line 62")
    );
}

#[test]
fn bad_input_is_status_2_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.jsonl");
    fs::write(&path, "{\"text\": \"nothing\"}\n").unwrap();
    let output = audit(&[&path.display().to_string()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("line 1") && said.trim().lines().count() == 1, "{said}");
}
