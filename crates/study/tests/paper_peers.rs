//! The re-analysis of the paper against SciPy and statsmodels.

use serde_json::Value;
use study::paper::{expected_best, pooled_trend, power, questions_needed, tables, three_way_splits};

/// Between sums of the same numbers in another order.
const REORDERED: f64 = 1e-9;
/// Of an integral by the midpoint rule.
const INTEGRATED: f64 = 1e-4;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/paper.json")).unwrap()
}

#[track_caller]
fn near(ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() < tolerance, "{ours} is not {theirs}");
}

#[test]
fn trends_match_scipys_page_test() {
    let (tables, fixture) = (tables().unwrap(), fixture());
    for (name, loss, prefixes) in [
        ("ipo_volume", "IPO", &["Table 3", "Table 8", "Table 13"][..]),
        ("ipo_volume_of_table_3", "IPO", &["Table 3"]),
        ("gair_dpo_noise", "DPO", &["Table 4"]),
        ("other_dpo_noise", "DPO", &["Table 14"]),
    ] {
        let trend = pooled_trend(&tables, loss, prefixes).unwrap();
        near(trend.p_rising, &fixture[name]["rising"], REORDERED);
        near(trend.p_falling, &fixture[name]["falling"], REORDERED);
    }
}

#[test]
fn power_matches_statsmodels() {
    for case in fixture()["power"].as_array().unwrap() {
        let [difference, deviation] = ["difference", "deviation"].map(|name| case[name].as_f64().unwrap());
        near(power(difference, deviation).unwrap(), &case["power"], 1e-6);
        let needed = questions_needed(difference, deviation).unwrap();
        assert_eq!(needed.map(|needed| needed as u64), case["needed"].as_u64());
    }
}

#[test]
fn selection_and_splits_match_scipy() {
    let fixture = fixture();
    for settings in [2, 4, 11] {
        near(expected_best(settings).unwrap(), &fixture["expected_best"][settings.to_string()], INTEGRATED);
    }
    let (expected, none) = three_way_splits(0.64, [63.0 / 160.0, 46.0 / 160.0, 51.0 / 160.0], 160.0);
    near(expected, &fixture["three_way"]["expected"], REORDERED);
    near(none, &fixture["three_way"]["none"], REORDERED);
}
