//! Tables of data with known statistics.

use mtbench::{
    Answer, Choice, Judgment, Mode, ModelScores, PairJudgment, PositionBias, Question, Rating, Resampling,
    Scores, Verdict, Winner, bars, category_table, difference_table, length_table, missing_table, radar,
    score_table,
};
use report::table::{Format, Table, Value};
use seeds::Seeds;
use test_support::CLOSED_FORM;

fn questions() -> Vec<Question> {
    let question = |question_id: u64| Question {
        question_id,
        category: if question_id <= 4 { "writing" } else { "stem" }.to_owned(),
        turns: vec!["first".to_owned(), "second".to_owned()],
        reference: None,
        required_temperature: None,
    };
    (1..=8).map(question).collect()
}

/// The scores of `model`; `score` maps each question and turn.
fn scores(model: &str, mode: Mode, score: impl Fn(u64, u8) -> Option<f64>) -> ModelScores {
    let judgment = |question_id, turn| Judgment {
        question_id,
        model: model.to_owned(),
        judge: ("gpt-4".to_owned(), "single-v1".to_owned()).into(),
        user_prompt: String::new(),
        judgment: "…".to_owned(),
        verdict: score(question_id, turn)
            .map_or(Verdict::NoVerdict, |score| Verdict::Rating(Rating::Decimal(score))),
        turn,
        tstamp: None,
        extra: serde_json::Map::new(),
    };
    let judgments: Vec<Judgment> =
        (1..=8).flat_map(|question| [1, 2].map(|turn| judgment(question, turn))).collect();
    (model.to_owned(), Scores::new(&questions(), &judgments, model, mode))
}

fn resampling() -> Resampling {
    Resampling { resamples: 500, level: 0.95, seeds: Seeds::new(1) }
}

/// Returns the row that starts with `words`.
#[track_caller]
fn row<'a>(table: &'a Table, words: &str) -> &'a [Value] {
    let found = table.rows.iter().find(|row| row[0] == Value::text(words));
    found.unwrap_or_else(|| panic!("no row {words:?} in {}", table.render(Format::Text)))
}

#[test]
fn scores_are_ranked_and_strict_mode_shows_what_is_missing() {
    let even = |question: u64, turn: u8| (question.is_multiple_of(2) || turn == 1).then_some(4.0);
    let models =
        |mode| [scores("poor", mode, even), scores("good", mode, |_, turn| Some(6.0 + f64::from(turn)))];
    let table = |mode| score_table(&models(mode), "gpt-4", mode, &resampling()).unwrap();
    let expected =
        "model,turn,score\ngood,1,7\ngood,2,8\ngood,average,7.5\npoor,1,4\npoor,2,4\npoor,average,4\n";
    assert_eq!(table(Mode::FastChat).render(Format::Csv), expected);
    let strict = table(Mode::Strict).render(Format::Csv);
    let header = "model,turn,score,score low,score high,rated,missing\n";
    assert!(strict.starts_with(&format!("{header}good,1,7,7,7,8,0\n")), "{strict}");
    assert!(strict.ends_with("poor,2,4,4,4,4,4\npoor,average,4,4,4,12,4\n"), "{strict}");
    assert_eq!(missing_table(&models(Mode::Strict), "gpt-4").rows.len(), 4);
    let categories = category_table(&models(Mode::FastChat), "gpt-4", Mode::FastChat, &resampling()).unwrap();
    let csv = categories.render(Format::Csv);
    assert!(csv.contains("good,stem,7,8,7.5,8,0\n") && csv.contains("poor,writing,4,4,4,6,2\n"), "{csv}");
}

#[test]
fn intervals_reflect_the_variance_between_questions() {
    // Both turns of a question agree: eight questions, not sixteen numbers, vary.
    let spread = [scores("m", Mode::Strict, |question, _| Some(question as f64))];
    let table = score_table(&spread, "gpt-4", Mode::Strict, &resampling()).unwrap();
    let Value::Interval { value, low, high, .. } = table.rows[2][2] else { panic!("{:?}", table.rows[2]) };
    assert_eq!(value, 4.5);
    // The standard error of a mean of 1..=8 drawn with replacement is √(5.25 / 8) = 0.81.
    assert!((2.6..3.2).contains(&low) && (5.8..6.4).contains(&high), "{low} {high}");
}

#[test]
fn differences_are_paired_by_question_and_turn() {
    let first = scores("a", Mode::Strict, |question, _| Some(if question <= 4 { 8.0 } else { 5.0 }));
    let second = scores("b", Mode::Strict, |question, turn| {
        (question != 8 || turn == 1).then_some(if question <= 4 { 6.0 } else { 5.0 })
    });
    let table = difference_table(&first, &second, "gpt-4", Mode::Strict, &resampling()).unwrap();
    let all = row(&table, "all");
    assert_eq!(all[1], Value::Count(15), "the turn that only one has is left out");
    let Value::Difference { value, .. } = all[2] else { panic!("{all:?}") };
    assert!((value - 8.0 * 2.0 / 15.0).abs() < 1e-12, "{value}");
    assert_eq!(all[3..6], [4, 0, 4].map(Value::Count), "won, lost, equal");
    assert_eq!(all[6], Value::Percent { value: 0.75, decimals: 0 });
    // Four heads in four tosses: 2 / 2⁴.
    let Value::Number { value: p, .. } = all[7] else { panic!("{all:?}") };
    assert!((p - 0.125).abs() < CLOSED_FORM, "{p}");
    let writing = row(&table, "writing");
    assert_eq!(writing[2], Value::Difference { value: 2.0, low: 2.0, high: 2.0, decimals: 2 });
    assert!(table.notes.iter().any(|note| note.starts_with("1 turns")), "{:?}", table.notes);
    let minimal = table.notes.iter().find(|note| note.starts_with("Minimal detectable difference"));
    assert!(minimal.expect("the power is stated").contains("of 7 questions"), "{minimal:?}");
}

fn answers(model: &str, length: impl Fn(u64, usize) -> usize) -> Vec<Answer> {
    let answer = |question_id: u64| Answer {
        question_id,
        answer_id: None,
        model_id: model.to_owned(),
        choices: vec![Choice::new([1, 2].map(|turn| "x".repeat(length(question_id, turn))).to_vec())],
        tstamp: None,
        extra: serde_json::Map::new(),
    };
    (1..=8).map(answer).collect()
}

#[test]
fn a_length_biased_judge_is_detected() {
    // One point for quality and one for each doubling: lengths (with one added, as the table does) double by `question % 3`.
    let doublings = |question: u64| (question % 3) as f64;
    let first = scores("a", Mode::Strict, |question, _| Some(5.0 + doublings(question)));
    let second = scores("b", Mode::Strict, |_, _| Some(4.0));
    let long = answers("a", |question, _| 100 * 2_usize.pow((question % 3) as u32) - 1);
    let short = answers("b", |_, _| 99);
    let table = length_table(&first, &second, [&long, &short], &resampling()).unwrap();
    let value = |words: &str| row(&table, words)[1].clone();
    let Value::Number { value: points, .. } = value("points for an answer twice as long") else { panic!() };
    assert!((points - 1.0).abs() < 1e-9, "{points}");
    let Value::Difference { value: left, low, high, .. } = value("difference at equal length, a minus b")
    else {
        panic!()
    };
    for number in [left, low, high] {
        assert!((number - 1.0).abs() < 1e-9, "{number}");
    }
    assert_eq!(value("turns in which the longer answer has the higher score"), Value::Count(12));
    assert_eq!(value("turns in which it has the lower one"), Value::Count(0));
    assert_eq!(value("mean length of b, characters"), Value::Number { value: 99.0, decimals: 0 });
}

#[test]
fn the_effect_of_order_is_counted() {
    let game = |first: &str, second: &str| PairJudgment {
        question_id: 1,
        model_1: "a".to_owned(),
        model_2: "b".to_owned(),
        g1_winner: Winner::Error,
        g2_winner: Winner::Error,
        judge: ("gpt-4".to_owned(), "pair-v2".to_owned()).into(),
        g1_user_prompt: String::new(),
        g1_judgment: format!("[[{first}]]"),
        g2_user_prompt: String::new(),
        g2_judgment: format!("[[{second}]]"),
        turn: 1,
        tstamp: None,
        extra: serde_json::Map::new(),
    };
    let judgments: Vec<PairJudgment> =
        [("A", "A"), ("A", "A"), ("B", "B"), ("A", "B"), ("B", "A"), ("C", "C"), ("A", "C"), ("x", "A")]
            .iter()
            .map(|(first, second)| game(first, second).reread(Mode::FastChat))
            .collect();
    let bias = PositionBias::new(&judgments, Mode::FastChat);
    let expected = PositionBias { consistent: 3, first: 2, second: 1, half_tied: 1, without_verdict: 1 };
    assert_eq!(bias, expected);
    let table = bias.table("gpt-4", 0.95);
    let Value::Interval { value, .. } = row(&table, "share with the same winner")[1] else { panic!() };
    assert_eq!(value, 3.0 / 7.0);
}

#[test]
fn figures_have_a_spoke_and_a_group_per_category() {
    let models = [scores("a <b>", Mode::Strict, |question, _| Some(question as f64))];
    let radar = radar(&models, "gpt-4");
    let bars = bars(&models, "gpt-4", &resampling()).unwrap();
    for svg in [radar.as_str(), bars.as_str()] {
        assert!(svg.contains("writing") && svg.contains("stem") && svg.contains("a &lt;b&gt;"));
        assert!(svg.contains("2.50"), "the mean of 1 to 4");
    }
}
