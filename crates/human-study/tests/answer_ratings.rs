//! Ratings of single answers: blinded sheets, and the raters' files.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use human_study::{AnswerToRate, Error, RatingKey, RatingSheets, answer_ratings_csv, rating_sheets};
use seeds::Seeds;

fn sheets() -> RatingSheets {
    let mut answers = Vec::new();
    for question in 81..85 {
        for arm in ["sft", "dpo human"] {
            for turn in 1..=2 {
                answers.push(AnswerToRate {
                    arm: arm.to_owned(),
                    seed: "1".to_owned(),
                    question: question.to_string(),
                    turn,
                    category: "writing".to_owned(),
                    prompts: vec![format!("Question {question}?"); turn],
                    answers: (0..turn)
                        .map(|turn| format!("={} words {question} {turn}", arm.len()))
                        .collect(),
                });
            }
        }
    }
    rating_sheets(&answers, &["ann".to_owned(), "bob".to_owned()], &Seeds::new(7)).unwrap()
}

/// Returns a rater's file in which the answers of `sft` have 3 points, and the others 8.5.
fn handed_in(sheets: &RatingSheets, rater: usize, items: usize) -> String {
    let sheet = &sheets.sheets[rater];
    let row = |item: &human_study::RatingItem| {
        let score = if item.answers[0][0].starts_with("=3 ") { "3" } else { "8.5" };
        format!("{},{},{},{score}\n", sheet.study, sheet.rater, item.item)
    };
    "study,rater,item,score\n".to_owned() + &sheet.items.iter().take(items).map(row).collect::<String>()
}

#[test]
fn ratings_return_to_their_policies() {
    let sheets = sheets();
    let dir = tempfile::tempdir().unwrap();
    let written = sheets.write(dir.path()).unwrap();
    assert_eq!(written.len(), 5);
    let key = RatingKey::read(&written[0]).unwrap();
    assert!(RatingKey::is_key(&written[0]) && !RatingKey::is_key(&written[1]));
    let file = dir.path().join("ann.csv");
    fs::write(&file, handed_in(&sheets, 0, 16)).unwrap();
    let ratings = key.unblind(&[file]).unwrap();
    assert_eq!(ratings.len(), 16);
    assert!(ratings.iter().all(|rating| rating.score == if rating.arm == "sft" { 3.0 } else { 8.5 }));
    let answers: BTreeSet<_> =
        ratings.iter().map(|rating| (&rating.arm, &rating.question, rating.turn)).collect();
    assert_eq!(answers.len(), 16);
    let csv = answer_ratings_csv(&ratings);
    assert!(
        csv.starts_with("arm,seed,question,turn,rater,score\n") && csv.contains("dpo human,1,81,2,ann,8.5\n"),
        "{csv}"
    );
    // Another study's key in the folder is kept.
    let mut others = sheets.clone();
    others.sheets.pop();
    others.key = rating_sheets(
        &[AnswerToRate {
            arm: "x".into(),
            seed: "0".into(),
            question: "1".into(),
            turn: 1,
            category: "c".into(),
            prompts: vec!["?".into()],
            answers: vec!["!".into()],
        }],
        &["ann".to_owned()],
        &Seeds::new(0),
    )
    .unwrap()
    .key;
    assert!(matches!(others.write(dir.path()), Err(Error::Key { .. })));
}

#[test]
fn sheets_name_no_policy_and_keep_turns_in_sequence() {
    let sheets = sheets();
    for sheet in &sheets.sheets {
        let json = serde_json::to_string(sheet).unwrap();
        assert!(!json.contains("sft") && !json.contains("dpo"), "{json}");
        for pair in sheet.items.chunks(2) {
            assert_eq!((pair[0].prompts.len(), pair[1].prompts.len()), (1, 2));
            assert_eq!(pair[0].answers[0][0], pair[1].answers[0][0], "both turns are of one policy");
        }
    }
    assert_ne!(sheets.sheets[0].items, sheets.sheets[1].items, "each rater has another order");
    let dir = tempfile::tempdir().unwrap();
    let written = sheets.write(dir.path()).unwrap();
    let html =
        fs::read_to_string(written.iter().find(|path| path.ends_with("sheet-ann.html")).unwrap()).unwrap();
    assert!(html.contains("\"scale\":10") && !html.contains("dpo human"));
    let csv =
        fs::read_to_string(written.iter().find(|path| path.ends_with("sheet-ann.csv")).unwrap()).unwrap();
    assert!(
        csv.starts_with("study,rater,item,category,conversation,answer,score") && csv.contains(", =3 words"),
        "{csv}"
    );
}

#[test]
fn incomplete_and_invalid_files_are_refused() {
    let sheets = sheets();
    let dir = tempfile::tempdir().unwrap();
    let refused = |text: &str| {
        let file = dir.path().join("x.csv");
        fs::write(&file, text).unwrap();
        sheets.key.unblind(&[file]).unwrap_err().to_string()
    };
    let complete = handed_in(&sheets, 0, 16);
    for (text, words) in [
        (handed_in(&sheets, 0, 15), "ann left 1 items open, the first is item 16"),
        (complete.replacen(",3\n", ",11\n", 1), "score \"11\": write a number from 1 to 10"),
        (complete.replacen(",3\n", ",good\n", 1), "score \"good\": write a number"),
        (complete.replacen(",ann,2,", ",ann,1,", 1), "item 1 is rated twice"),
        (complete.replacen(",ann,2,", ",ann,17,", 1), "item \"17\" is none of 1 to 16"),
        (complete.replace(",ann,", ",eve,"), "rater \"eve\" has no sheet in this study; it has ann, bob"),
        (complete.replace(&sheets.sheets[0].study, "other"), "belongs to sheet \"other\" of \"ann\""),
        ("study,rater,item,choice\nx,ann,1,1\n".to_owned(), "there is no column `score`"),
        ("study,rater,item,score\n".to_owned(), "holds no ratings"),
    ] {
        let error = refused(&text);
        assert!(error.contains(words), "{words:?} is missing in: {error}");
    }
    let file: PathBuf = dir.path().join("a.csv");
    fs::write(&file, &complete).unwrap();
    let twice = sheets.key.unblind(&[file.clone(), file]).unwrap_err().to_string();
    assert!(twice.contains("ann handed in"), "{twice}");
}
