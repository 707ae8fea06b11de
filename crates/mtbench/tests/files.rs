//! Files in FastChat's format round-trip byte for byte, and errors name file, line and field.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mtbench::{
    Answer, BenchDir, Error, JudgePrompt, JudgePrompts, Judgment, Question, Rating, Verdict, read_lines,
    write_lines,
};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

fn bench() -> BenchDir {
    BenchDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bench"))
}

/// Reads `path` as rows of `T` and writes them again.
#[track_caller]
fn survives<T: Serialize + DeserializeOwned>(path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.jsonl");
    write_lines(&copy, &read_lines::<T>(path).unwrap()).unwrap();
    let (before, after) = (fs::read_to_string(path).unwrap(), fs::read_to_string(copy).unwrap());
    for (number, (before, after)) in before.lines().zip(after.lines()).enumerate() {
        assert_eq!(before, after, "{}, line {}", path.display(), number + 1);
    }
    assert_eq!(before.len(), after.len());
}

#[test]
fn pythons_files_round_trip_byte_for_byte() {
    let bench = bench();
    survives::<Question>(&bench.question_file());
    survives::<Answer>(&bench.answer_file("zebra").unwrap());
    survives::<Answer>(&bench.reference_file("gpt-4").unwrap());
    survives::<Judgment>(&bench.judgment_file("gpt-4").unwrap());
    survives::<JudgePrompt>(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/judge_prompts.jsonl"));
}

#[test]
fn fastchats_files_round_trip_byte_for_byte() {
    let Some(data) = test_support::real_data("FastChat's files") else { return };
    let bench = BenchDir::new(data.join("mt_bench"));
    survives::<Question>(&bench.question_file());
    survives::<Answer>(&bench.reference_file("gpt-4").unwrap());
    survives::<JudgePrompt>(&bench.root().join("judge_prompts.jsonl"));
    assert_eq!(bench.questions().unwrap().len(), 80);
    assert_eq!(bench.references("gpt-4").unwrap().len(), 30);
    assert_eq!(
        JudgePrompts::read(&bench.root().join("judge_prompts.jsonl")).unwrap(),
        JudgePrompts::fastchat()
    );
}

#[test]
fn floats_are_read_and_written_as_python_does() {
    let floats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/floats.json");
    survives::<Vec<f64>>(&floats);
}

#[test]
fn the_embedded_prompts_match_fastchat() {
    let prompts = JudgePrompts::fastchat();
    let names: Vec<&str> = prompts.all().iter().map(|prompt| prompt.name.as_str()).collect();
    let expected = [
        "pair-v2",
        "pair-v2-multi-turn",
        "pair-math-v1",
        "pair-math-v1-multi-turn",
        "single-v1",
        "single-math-v1",
        "single-v1-multi-turn",
        "single-math-v1-multi-turn",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_folder_has_fastchats_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (bench(), BenchDir::new(folder.path().join("new")));
    assert_eq!(to.models().unwrap(), Vec::<String>::new(), "a folder that is not there has no models");
    to.write_questions(&from.questions().unwrap()).unwrap();
    to.write_answers("zebra", &from.answers("zebra").unwrap()).unwrap();
    to.write_references("gpt-4", &from.references("gpt-4").unwrap()).unwrap();
    to.write_judgments("gpt-4", &from.judgments("gpt-4").unwrap()).unwrap();
    fs::write(to.root().join("model_answer/notes.txt"), "not a model").unwrap();
    assert_eq!(to.models().unwrap(), ["zebra"]);
    for file in [
        "question.jsonl",
        "model_answer/zebra.jsonl",
        "reference_answer/gpt-4.jsonl",
        "model_judgment/gpt-4_single.jsonl",
    ] {
        assert_eq!(
            fs::read(from.root().join(file)).unwrap(),
            fs::read(to.root().join(file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn names_cannot_escape_the_folder() {
    for name in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden"] {
        assert!(matches!(bench().answers(name), Err(Error::Name { .. })), "{name:?}");
        assert!(matches!(bench().write_judgments(name, &[]), Err(Error::Name { .. })), "{name:?}");
    }
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("question.jsonl");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[track_caller]
fn question_error(text: &str, expected: &str) {
    let (folder, path) = written(text);
    let error = BenchDir::new(folder.path()).questions().unwrap_err().to_string();
    let error = error.replace(&path.display().to_string(), "FILE");
    assert_eq!(error, expected);
}

const GOOD: &str = r#"{"question_id": 1, "category": "math", "turns": ["1 + 1?"]}"#;

#[test]
fn errors_name_file_line_and_field() {
    question_error(
        &format!("{GOOD}\n\n{{\"question_id\": 2, \"category\": \"math\", \"turns\": [\"1?\", 2]}}\n"),
        "FILE, line 3, column 56, field `turns[1]`: invalid type: integer `2`, expected a string",
    );
    question_error(
        r#"{"question_id": 2, "category": "math"}"#,
        "FILE, line 1, column 38, field `.`: missing field `turns`",
    );
    question_error(&format!("{GOOD} {GOOD}"), "FILE, line 1, column 61, field `.`: trailing characters");
    question_error(
        &format!("{GOOD}\n\n{GOOD}\n"),
        "FILE, line 3, field `question_id`: 1 is already in line 1: keep one of the two",
    );
    question_error(
        r#"{"question_id": 3, "category": "math", "turns": []}"#,
        "question 3 has 0 turns: one or two are what the benchmark knows",
    );
    let truncated = &GOOD[..30];
    let (folder, _) = written(truncated);
    assert!(matches!(BenchDir::new(folder.path()).questions(), Err(Error::Line { line: 1, .. })));
    let nowhere = BenchDir::new("no/such/folder").questions().unwrap_err();
    assert!(matches!(&nowhere, Error::Read { path, .. } if path.ends_with("question.jsonl")), "{nowhere}");
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let (folder, path) = written("old");
    let mut questions = bench().questions().unwrap();
    questions[1].required_temperature = Some(f64::NAN);
    let mut answers = bench().answers("zebra").unwrap();
    answers[2].tstamp = Some(f64::INFINITY);
    let mut judgments = bench().judgments("gpt-4").unwrap();
    judgments[3].verdict = Verdict::Rating(Rating::Decimal(f64::NAN));
    assert!(matches!(write_lines(&path, &questions), Err(Error::Unwritable { row: 2, .. })));
    assert!(matches!(write_lines(&path, &answers), Err(Error::Unwritable { row: 3, .. })));
    assert!(matches!(write_lines(&path, &judgments), Err(Error::Unwritable { row: 4, .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    let under_a_file = BenchDir::new(&path).write_questions(&[]).unwrap_err();
    assert!(matches!(under_a_file, Error::Write { .. }), "{under_a_file}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file remains");
}

#[test]
fn prompts_with_the_same_name_are_refused() {
    let prompt = include_str!("../data/judge_prompts.jsonl").lines().next().unwrap();
    let (_folder, path) = written(&format!("{prompt}\n{prompt}\n"));
    let error = JudgePrompts::read(&path).unwrap_err();
    assert!(matches!(&error, Error::Inconsistent { line: 2, field: "name", .. }), "{error}");
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::NoVerdict),
        (0..100_i64).prop_map(|whole| Verdict::Rating(Rating::Whole(whole))),
        (0.0..100.0).prop_map(|decimal| Verdict::Rating(Rating::Decimal(decimal))),
    ]
}

proptest! {
    // Each case writes two files to disk.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_question_and_judgment_reads_back(
        turns in prop::collection::vec(any::<String>(), 1..3),
        temperature in prop::option::of(0.0..2.0_f64),
        verdict in any_verdict(),
        tstamp in 0.0..2e9_f64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let bench = BenchDir::new(folder.path());
        let question = Question {
            question_id: 1,
            category: turns[0].clone(),
            turns,
            reference: None,
            required_temperature: temperature,
        };
        bench.write_questions(std::slice::from_ref(&question)).unwrap();
        prop_assert_eq!(bench.questions().unwrap(), [question.clone()]);
        let judgment = Judgment {
            question_id: 1,
            model: question.category.clone(),
            judge: ("gpt-4".to_owned(), "single-v1".to_owned()).into(),
            user_prompt: question.turns[0].clone(),
            judgment: question.category.clone(),
            verdict,
            turn: 1,
            tstamp: Some(tstamp),
            extra: serde_json::Map::new(),
        };
        bench.write_judgments("gpt-4", std::slice::from_ref(&judgment)).unwrap();
        prop_assert_eq!(bench.judgments("gpt-4").unwrap(), [judgment]);
    }
}
