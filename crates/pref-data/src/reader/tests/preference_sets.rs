//! GAIR, UltraFeedback and SHP: fixtures by schema (`fixtures/preference_sets.py`), and errors of bad rows.

use super::*;

fn labels(record: &PreferenceRecord) -> Vec<(&str, Label)> {
    record.labels.iter().map(|(name, &label)| (name.as_str(), label)).collect()
}

fn answer(text: &str) -> Text {
    Text::Chat(vec![Message::assistant(text)])
}

/// Returns the records of a fixture, and those of its rows as JSON lines.
fn as_lines(name: &str, format: Format) -> (Vec<PreferenceRecord>, Vec<PreferenceRecord>) {
    let columnar = read_records(fixture(name), format).expect("a good file");
    let mut lines = String::new();
    let each = |_: &Place, row: Row| {
        lines += &format!("{}\n", serde_json::Value::Object(row));
        Ok(())
    };
    let unnamed = PairColumns::default();
    let columns = format.columns(&unnamed);
    let wanted = Wanted { format, columns: columns.as_deref() };
    columnar::read_parquet(&fixture(name), &wanted, &mut Each(each)).expect("a good file");
    (columnar, read(&lines, format).expect("the same rows as lines"))
}

#[test]
fn gair_has_one_record_and_many_annotators() {
    let (records, lines) = as_lines("gair.parquet", Format::Gair);
    assert_eq!(records, lines);
    assert_eq!(records.iter().map(|record| record.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    let [first, second] = [Label::Prefers(0), Label::Prefers(1)];
    assert_eq!(
        labels(&records[0]),
        [("alpaca-7b", first), ("gpt-4-1106-preview", first), ("human", first), ("llama-2-70b-chat", second)]
    );
    assert_eq!(labels(&records[1]).len(), 3, "a null is no label");
    assert_eq!(records[0].domain.as_deref(), Some("math_reasoning"));
    assert_eq!(records[1].domain, None);
    assert_eq!(records[1].prompt, Text::Chat(vec![Message::user("Grüße an 🙂 你好")]));
    assert_eq!(records[1].responses, [answer("Grüße"), answer("\u{202e}abc")]);
    let Text::Chat(long) = &records[2].responses[0] else { panic!("messages") };
    assert_eq!(long[0].content().len(), 500_000);
}

#[test]
fn each_score_of_ultrafeedback_is_an_annotator() {
    let (records, lines) = as_lines("ultrafeedback.parquet", Format::Ultrafeedback);
    assert_eq!(records, lines);
    // `overall_score` lacks a completion and `truthfulness` has an "N/A": no labels for the first record.
    assert_eq!(
        labels(&records[0]),
        [
            ("fine-grained_score", Label::Tie),
            ("helpfulness", Label::Prefers(2)),
            ("honesty", Label::Tie),
            ("instruction_following", Label::Prefers(1)),
        ]
    );
    assert_eq!(records[0].responses[3], answer("four"));
    assert_eq!(records[0].domain.as_deref(), Some("evol_instruct"));
    // NaN is no score.
    assert!(!records[1].labels.contains_key("overall_score"));
    assert_eq!(records[1].labels["instruction_following"], Label::Prefers(1));
}

#[test]
fn shp_is_filtered_by_its_score_ratio() {
    let (above, lines) = as_lines("shp.parquet", Format::Shp(ScoreRatio::PAPER));
    assert_eq!(above, lines);
    let ids =
        |records: &[PreferenceRecord]| records.iter().map(|record| record.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&above), ["p1-c1-c3", "p3-c1-c2"]);
    let at_least = Format::Shp(ScoreRatio::AtLeast(2.0));
    let records = read_records(fixture("shp.parquet"), at_least).expect("a good file");
    assert_eq!(ids(&records), ["p1-c1-c2", "p1-c1-c3", "p3-c1-c2"]);
    assert_eq!(records[0].labels["human"], Label::Prefers(0));
    assert_eq!(records[1].labels["human"], Label::Prefers(1));
    assert_eq!(records[0].domain.as_deref(), Some("askculinary"));
    assert_eq!(records[0].prompt, Text::Chat(vec![Message::user("Post p1")]));
    assert_eq!(records[0].responses, [answer("Salt."), answer("Zucker & 🧂")]);
    let none =
        read_records(fixture("shp.parquet"), Format::Shp(ScoreRatio::Above(7.0))).expect_err("none left");
    assert!(none.to_string().contains("holds no records"), "{none}");
}

#[test]
fn score_ratios_round_trip_as_text() {
    for (text, ratio) in [("> 2", ScoreRatio::PAPER), (">= 1.5", ScoreRatio::AtLeast(1.5))] {
        assert_eq!(ScoreRatio::try_from(text.to_owned()).expect("a filter"), ratio);
        assert_eq!(ratio.to_string(), text);
    }
    for bad in ["2", "> two", ">= inf", "=> 2", ""] {
        let error = ScoreRatio::try_from(bad.to_owned()).expect_err(bad).to_string();
        assert!(error.contains("it must be \"> N\" or \">= N\""), "{error}");
    }
}

#[test]
fn bad_rows_are_refused_with_line_and_field() {
    let gair = |response: &str, label: &str| {
        let other = r#""response_2": {"content": "b"}"#;
        let labels = format!(r#""preference_labels": {{"human": "response_1", "m": {label}}}"#);
        format!(r#"{{"query": "q", "response_1": {response}, {other}, {labels}}}"#)
    };
    let ultrafeedback = |completion: &str| {
        format!(r#"{{"instruction": "q", "completions": [{{"response": "a"}}, {completion}]}}"#)
    };
    let shp = |ratio: &str, label: &str| {
        format!(
            r#"{{"post_id": "p", "c_root_id_A": "a", "c_root_id_B": "b", "history": "q", "human_ref_A": "x",
            "human_ref_B": "y", "score_ratio": {ratio}, "labels": {label}}}"#
        )
        .replace('\n', " ")
    };
    let paper = Format::Shp(ScoreRatio::PAPER);
    let cases = [
        (
            gair(r#"{"content": "a"}"#, r#""A""#),
            Format::Gair,
            "field `preference_labels.m` is \"A\"; it must be \"response_1\" or \"response_2\"",
        ),
        (gair(r#""a""#, "null"), Format::Gair, "field `response_1` is text; it must be an object"),
        (gair(r#"{"content": ""}"#, "null"), Format::Gair, "field `response_1.content` is empty"),
        (gair(r#"{"content": null}"#, "null"), Format::Gair, "field `response_1.content` is missing"),
        (
            ultrafeedback(r#"{"response": "b", "annotations": {"honesty": {"Rating": "good"}}}"#),
            Format::Ultrafeedback,
            "field `completions[1].annotations.honesty.Rating` is \"good\"; it must be a number or \"N/A\"",
        ),
        (
            ultrafeedback(r#"{"response": ""}"#),
            Format::Ultrafeedback,
            "field `completions[1].response` is empty",
        ),
        (
            r#"{"instruction": "q", "completions": []}"#.to_owned(),
            Format::Ultrafeedback,
            "field `responses` holds 0; a preference needs at least two",
        ),
        (shp("\"3\"", "1"), paper, "field `score_ratio` is text; it must be a number"),
        (shp("3", "2"), paper, "field `labels` is \"2\"; it must be 1 (A is preferred) or 0 (B is)"),
    ];
    for (line, format, expected) in cases {
        let said = problem(&line, format);
        assert!(said.starts_with(&format!(", line 1: {expected}")), "{said}");
    }
}
