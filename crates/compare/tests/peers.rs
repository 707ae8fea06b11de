//! Comparisons against SciPy and statsmodels, and files that lm-evaluation-harness and `inspect_ai` wrote.

use std::path::{Path, PathBuf};

use compare::{Comparison, Options, Scores, Source, compare, read_scores, to_csv, to_json};
use serde_json::Value;

/// Between sums of the same numbers in another order, relative.
const REORDERED: f64 = 1e-9;
/// Between roots that SciPy and the crate search by different methods, relative.
const SEARCHED: f64 = 1e-6;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn expected() -> Value {
    serde_json::from_str(include_str!("fixtures/expected.json")).unwrap()
}

fn read(name: &str) -> Scores {
    read_scores(&[Source { path: fixture(name), arm: None, seed: None }]).unwrap()
}

fn against(baseline: &str) -> Options {
    Options { baseline: Some(baseline.to_owned()), ..Options::default() }
}

#[track_caller]
fn near(ours: &Value, theirs: &Value, tolerance: f64) {
    let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
    assert!((ours - theirs).abs() <= tolerance * (1.0 + theirs.abs()), "{ours} is not {theirs}");
}

/// Compares JSON rows with the fixture's.
fn check(comparisons: &[Comparison], expected: &Value) {
    let rows: Value = serde_json::from_str(&to_json(comparisons)).unwrap();
    let expected = expected.as_array().unwrap();
    assert_eq!(rows.as_array().unwrap().len(), expected.len());
    for (row, expected) in rows.as_array().unwrap().iter().zip(expected) {
        assert_eq!(row["contrast"], expected["contrast"]);
        for key in ["estimate", "low", "high", "p", "p_holm"] {
            near(&row[key], &expected[key], REORDERED);
        }
        if expected.get("mde").is_some() {
            near(&row["mde"], &expected["mde"], SEARCHED);
            assert_eq!(row["required_questions"], expected["required_questions"]);
            assert_eq!(row["required_seeds"], Value::Null, "one seed has no variance between seeds");
        }
    }
}

#[test]
fn one_seed_is_a_paired_t_test_with_holm_and_power_of_statsmodels() {
    check(&compare(&read("one_seed.csv"), &against("sft")).unwrap(), &expected()["one_seed"]);
    let named = Options { contrasts: vec!["dpo-sft".into(), "ipo-x - sft".into()], ..Options::default() };
    check(&compare(&read("one_seed.csv"), &named).unwrap(), &expected()["one_seed"]);
}

#[test]
fn several_seeds_are_pooled_within_strata_in_every_file_type() {
    let expected = expected();
    for name in ["several_seeds.parquet", "several_seeds.jsonl"] {
        let scores = read(name);
        let options =
            Options { contrasts: ["b-a", "c-a", "d-a"].map(String::from).to_vec(), ..Options::default() };
        let comparisons = compare(&scores, &options).unwrap();
        check(&comparisons, &expected["several_seeds"]);
        assert_eq!((comparisons[0].seeds, comparisons[0].strata, comparisons[0].questions), (3, 4, 40));
        assert!(comparisons[0].rows[0].required_seeds.is_some());
    }
}

#[test]
fn a_larger_effect_requires_a_smaller_sample() {
    let scores = read("several_seeds.parquet");
    let required = |effect: f64| {
        let options = Options { effect: Some(effect), ..against("a") };
        compare(&scores, &options).unwrap()[0].rows[0].required_questions
    };
    assert!(required(2.0) < required(1.5), "{:?} {:?}", required(2.0), required(1.5));
    assert_eq!(required(0.05), None, "seeds alone vary by more");
}

#[test]
fn samples_of_lm_evaluation_harness_are_read_as_they_are() {
    let scores = read("lm_eval");
    assert_eq!(scores.arms(), ["base", "tuned"]);
    assert_eq!(scores.scorers(), ["exact_match,strict", "exact_match,digits", "acc"]);
    let options = Options { scorer: Some("acc".into()), ..against("base") };
    let [comparison] = &compare(&scores, &options).unwrap()[..] else { panic!("one scorer") };
    assert_eq!((comparison.questions, comparison.rows.len()), (8, 1));
    let means = &expected()["lm_eval_means"];
    let difference = means["tuned"].as_f64().unwrap() - means["base"].as_f64().unwrap();
    assert!((comparison.rows[0].measured.estimate - difference).abs() < 1e-12);
}

#[test]
fn data_frames_of_inspect_ai_are_read_as_they_are() {
    for name in ["inspect.csv", "inspect.parquet"] {
        let scores = read(name);
        let [comparison] = &compare(&scores, &against("mockllm/base")).unwrap()[..] else {
            panic!("one scorer")
        };
        assert_eq!(comparison.rows[0].scorer.as_deref(), Some("match"));
        assert_eq!(
            (comparison.questions, comparison.strata),
            (8, 2),
            "epochs are samples, metadata has the category"
        );
        let means = &expected()["inspect_means"];
        let difference = means["mockllm/tuned"].as_f64().unwrap() - means["mockllm/base"].as_f64().unwrap();
        assert!((comparison.rows[0].measured.estimate - difference).abs() < 1e-12);
    }
}

#[test]
fn csv_has_the_names_of_json() {
    let csv = to_csv(&compare(&read("one_seed.csv"), &against("sft")).unwrap());
    let header = "contrast,estimate,low,high,p,p_holm,mde,required_questions,required_seeds";
    assert!(csv.starts_with(&format!("{header}\ndpo − sft,0.6")), "{csv}");
}
