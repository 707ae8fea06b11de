//! Scores: FastChat's means, and the rows that strict mode counts.

use std::path::Path;

use mtbench::{
    BenchDir, Judgment, MissingReason, Mode, Question, Rating, Scores, UNCATEGORISED, Verdict, judged_models,
};
use proptest::prelude::*;
use serde_json::Value;
use test_support::CLOSED_FORM;

fn bench() -> BenchDir {
    BenchDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bench"))
}

#[test]
fn means_match_fastchat() {
    let (questions, judgments) = (bench().questions().unwrap(), bench().judgments("gpt-4").unwrap());
    let expected: Value = serde_json::from_str(include_str!("fixtures/scores.json")).unwrap();
    assert_eq!(judged_models(&judgments), ["alpaca", "dropped", "mule", "zebra"]);
    for (mode, name) in [(Mode::FastChat, "fastchat"), (Mode::Strict, "strict")] {
        for model in judged_models(&judgments) {
            let ours = Scores::new(&questions, &judgments, model, mode).overall();
            let theirs = &expected[name][model];
            for (ours, theirs) in [
                (ours.turn_1, &theirs["turn_1"]),
                (ours.turn_2, &theirs["turn_2"]),
                (ours.average, &theirs["average"]),
            ] {
                let (ours, theirs) = (ours.unwrap(), theirs.as_f64().unwrap());
                assert!((ours - theirs).abs() <= CLOSED_FORM, "{model}, {name}: {ours} instead of {theirs}");
            }
        }
    }
}

fn question(question_id: u64, category: &str) -> Question {
    Question {
        question_id,
        category: category.to_owned(),
        turns: vec!["first".to_owned(), "second".to_owned()],
        reference: None,
        required_temperature: None,
    }
}

fn judgment(question_id: u64, turn: u8, score: Option<i64>) -> Judgment {
    Judgment {
        question_id,
        model: "m".to_owned(),
        judge: ("gpt-4".to_owned(), "single-v1".to_owned()).into(),
        user_prompt: String::new(),
        judgment: String::new(),
        verdict: score.map_or(Verdict::NoVerdict, |score| Verdict::Rating(Rating::Whole(score))),
        turn,
        tstamp: None,
        extra: serde_json::Map::new(),
    }
}

#[test]
fn the_average_is_over_all_valid_rows() {
    let judgments =
        [judgment(1, 1, Some(8)), judgment(2, 1, Some(6)), judgment(1, 2, Some(10)), judgment(2, 2, None)];
    let overall =
        Scores::new(&[question(1, "a"), question(2, "b")], &judgments, "m", Mode::FastChat).overall();
    assert_eq!((overall.turn_1, overall.turn_2, overall.average), (Some(7.0), Some(10.0), Some(8.0)));
    assert_eq!((overall.rated, overall.missing), (3, 1));
}

#[test]
fn repeated_judgments_count_twice_in_fastchat_mode_and_once_in_strict_mode() {
    let judgments = [judgment(1, 1, Some(2)), judgment(1, 2, Some(5)), judgment(1, 1, Some(8))];
    let scores = |mode| Scores::new(&[question(1, "a")], &judgments, "m", mode);
    assert_eq!(scores(Mode::FastChat).overall().turn_1, Some(5.0));
    let strict = scores(Mode::Strict);
    assert_eq!(strict.overall().turn_1, Some(8.0), "the last one counts");
    let rows: Vec<(u64, u8, f64)> =
        strict.rows().iter().map(|row| (row.question_id, row.turn, row.score)).collect();
    assert_eq!(rows, [(1, 1, 8.0), (1, 2, 5.0)]);

    let mut other_judge = judgments.to_vec();
    other_judge[2].judge.judge = "claude".to_owned();
    let both = Scores::new(&[question(1, "a")], &other_judge, "m", Mode::Strict);
    assert_eq!(both.overall().turn_1, Some(5.0), "another judge's rating is another row");
}

#[test]
fn strict_mode_reports_missing_scores_with_reasons() {
    let questions = [question(2, "writing"), question(1, "math")];
    let judgments =
        [judgment(1, 1, Some(11)), judgment(1, 2, None), judgment(2, 1, Some(9)), judgment(2, 1, None)];
    let strict = Scores::new(&questions, &judgments, "m", Mode::Strict);
    let reasons: Vec<(u64, &str, u8, MissingReason)> =
        strict.missing().iter().map(|m| (m.question_id, m.category.as_str(), m.turn, m.reason)).collect();
    let expected = [
        (1, "math", 1, MissingReason::OffScale),
        (1, "math", 2, MissingReason::NoRating),
        (2, "writing", 1, MissingReason::NoRating),
        (2, "writing", 2, MissingReason::NotJudged),
    ];
    assert_eq!(reasons, expected);
    assert_eq!((strict.overall().average, strict.overall().missing), (None, 4));

    let fastchat = Scores::new(&questions, &judgments, "m", Mode::FastChat);
    assert_eq!(fastchat.overall().average, Some(10.0), "11 and 9 count");
    assert_eq!(fastchat.missing().len(), 2);
    assert_eq!(Scores::new(&questions, &judgments, "nobody", Mode::FastChat).overall().average, None);
}

#[test]
fn the_table_has_the_categories_in_the_questions_order() {
    let questions = [question(1, "writing"), question(2, "math"), question(3, "writing")];
    let judgments =
        [judgment(1, 1, Some(4)), judgment(3, 1, Some(8)), judgment(3, 2, Some(9)), judgment(77, 1, Some(1))];
    let scores = Scores::new(&questions, &judgments, "m", Mode::FastChat);
    assert_eq!(scores.categories(), ["writing", "math", UNCATEGORISED]);
    let table = scores.by_category();
    let (category, writing) = &table[0];
    assert_eq!(
        (*category, writing.turn_1, writing.turn_2, writing.average),
        ("writing", Some(6.0), Some(9.0), Some(7.0))
    );
    assert_eq!((table[1].0, table[1].1.average, table[1].1.rated), ("math", None, 0));
    assert_eq!(scores.overall().average, Some(5.5));
}

proptest! {
    #[test]
    fn strict_mode_accounts_for_every_turn_once(
        judged in prop::collection::vec((1..6_u64, 1..3_u8, prop::option::of(0..12_i64)), 0..30),
    ) {
        let questions: Vec<Question> = (1..6).map(|id| question(id, if id % 2 == 0 { "even" } else { "odd" })).collect();
        let judgments: Vec<Judgment> = judged.iter().map(|&(id, turn, score)| judgment(id, turn, score)).collect();
        let strict = Scores::new(&questions, &judgments, "m", Mode::Strict);
        let mut turns: Vec<(u64, u8)> = strict.rows().iter().map(|row| (row.question_id, row.turn)).collect();
        turns.extend(strict.missing().iter().map(|missing| (missing.question_id, missing.turn)));
        turns.sort_unstable();
        let all: Vec<(u64, u8)> = (1..6).flat_map(|id| [(id, 1), (id, 2)]).collect();
        prop_assert_eq!(turns, all);
        let table = strict.by_category();
        prop_assert_eq!(table.iter().map(|(_, means)| means.rated).sum::<usize>(), strict.overall().rated);
        prop_assert_eq!(table.iter().map(|(_, means)| means.missing).sum::<usize>(), strict.overall().missing);
    }
}
