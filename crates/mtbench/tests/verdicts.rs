//! Verdicts: how FastChat's mode and strict mode read a judgment.

use mtbench::{Mode, Rating, UnreadableRating, parse_rating};
use proptest::prelude::*;
use serde_json::Value;

fn rating(value: &Value) -> Option<Rating> {
    match serde_json::from_value(value.clone()).unwrap() {
        Rating::Whole(-1) => None,
        rating => Some(rating),
    }
}

#[test]
fn verdicts_match_python() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("fixtures/verdicts.json")).unwrap();
    assert_eq!(cases.len(), 28);
    for case in &cases {
        let judgment = case["judgment"].as_str().unwrap();
        let ours = parse_rating(judgment, Mode::FastChat);
        match &case["fastchat"] {
            Value::String(exception) => {
                assert!(ours.is_err(), "{judgment:?}: {ours:?}, Python has {exception}")
            }
            // Python's integers are unbounded; here they end at 64 bits, with an error.
            value if value.as_i64().is_none() && judgment.contains("99999999999999999999") => {
                assert_eq!(ours, Err(UnreadableRating("99999999999999999999".to_owned())));
            }
            value => assert_eq!(ours, Ok(rating(value)), "{judgment:?}"),
        }
        assert_eq!(parse_rating(judgment, Mode::Strict), Ok(rating(&case["strict"])), "{judgment:?}");
    }
}

/// Returns both modes' ratings of `judgment`.
fn both(judgment: &str) -> [Option<f64>; 2] {
    [Mode::FastChat, Mode::Strict].map(|mode| parse_rating(judgment, mode).unwrap().map(Rating::value))
}

#[test]
fn the_modes_differ_where_fastchat_misreads() {
    assert_eq!(both("[[7.5]]"), [Some(7.5), Some(7.5)]);
    assert_eq!(both("see [1]…9/10"), [Some(1.0), None], "a citation is not a verdict");
    assert_eq!(both("[[10]] then [[3]]"), [Some(10.0), Some(3.0)], "the last verdict is the judge's");
    assert_eq!(both("cite [2]; [[7]]"), [Some(7.0), Some(7.0)]);
    for nothing in ["[[8/10]]", "[[ 8 ]]", "$ERROR$", ""] {
        assert_eq!(both(nothing), [None, None], "{nothing:?}");
    }
    assert_eq!(both("[[11]]"), [Some(11.0), None], "off the scale");
    assert_eq!(parse_rating("[[08]]", Mode::FastChat), Err(UnreadableRating("08".to_owned())));
    assert_eq!(parse_rating("[[08]]", Mode::Strict), Ok(None));
    let endless = format!("[[{}.0]]", "9".repeat(400));
    assert!(parse_rating(&endless, Mode::FastChat).is_err(), "infinity is not a rating");
}

#[test]
fn integers_and_decimals_are_distinguished() {
    assert_eq!(parse_rating("[[7]]", Mode::FastChat), Ok(Some(Rating::Whole(7))));
    assert_eq!(parse_rating("[[7.]]", Mode::FastChat), Ok(Some(Rating::Decimal(7.0))));
    assert_eq!([Rating::Whole(7), Rating::Decimal(7.0)].map(|rating| rating.to_string()), ["7", "7.0"]);
}

proptest! {
    #[test]
    fn no_text_is_too_odd_and_strict_ratings_are_on_the_scale(text in r"[\[\]0-9. a-zé]{0,40}") {
        let _ = parse_rating(&text, Mode::FastChat);
        let strict = parse_rating(&text, Mode::Strict).unwrap();
        prop_assert!(strict.is_none_or(|rating| (1.0..=10.0).contains(&rating.value())));
    }

    #[test]
    fn a_well_formed_verdict_is_found_behind_any_prose(prose in r"[a-z \[\]]{0,40}", half_points in 2..=20_u8) {
        let score = f64::from(half_points) / 2.0;
        let judgment = format!("{prose} Rating: [[{score}]]");
        prop_assert_eq!(both(&judgment), [Some(score), Some(score)]);
    }
}
