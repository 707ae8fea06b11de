//! A study's differences as people correct them, against those of the crate `compare`.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use compare::{Comparison, Options, Ratings, Source, compare_with_ratings, read_scores, study_arms};
use distributed::ProcessGroup;
use experiment::results::read_parquet;
use experiment::{BENCHMARK, Crew, GOLD};
use report::table::{Table, Value};
use seeds::Seeds;
use study::questions::Acquisition;
use study::recipe::{Preset, StudyRecipe};
use study::{Findings, Questions, Study, StudyError};
use test_support::SMALL_SANDBOX;
use trainer::{Context, NoClock, Silent};

const TWO_LOSSES: [&str; 2] = ["study.annotators=[\"human\"]", "study.losses=[\"dpo\", \"hinge\"]"];
const QUESTIONS: Questions = &[&Acquisition];
/// Two ways to add the same numbers.
const ROUNDING: f64 = 1e-9;

/// Answers a small study in the folder `out`, with `more` settings.
fn answer(out: &Path, more: &[String]) -> Result<Findings, StudyError> {
    let settings = SMALL_SANDBOX.into_iter().chain(TWO_LOSSES).map(str::to_owned).chain(more.iter().cloned());
    let settings: Vec<String> = settings.chain([format!("output.dir={}", out.display())]).collect();
    let study = Study::new(StudyRecipe::preset(Preset::Sandbox, &settings)?, QUESTIONS)?;
    let (mut silent, stop) = (Silent, AtomicBool::new(false));
    let mut context = Context {
        clock: &NoClock,
        progress: &mut silent,
        stop: &stop,
        group: ProcessGroup::single(),
        cache: None,
    };
    let findings = study.answer(&[&Acquisition], &Crew::Alone, &mut context)?;
    Ok(findings.expect("a single process has findings"))
}

/// Returns a difference of a table: value, low and high.
fn difference(value: &Value) -> [f64; 3] {
    match value {
        Value::Difference { value, low, high, .. } => [*value, *low, *high],
        other => panic!("no difference: {other:?}"),
    }
}

#[track_caller]
fn are_equal(ours: &[f64], theirs: &[f64]) {
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < ROUNDING;
    assert!(ours.iter().zip(theirs).all(is_near) && ours.len() == theirs.len(), "{ours:?} {theirs:?}");
}

/// Asserts that the row of a loss has the numbers of `compare`, for both judges.
fn has_row(table: &Table, loss: &str, compared: &[Comparison]) {
    let comparison = Value::text(format!("human: {loss} − SFT"));
    let row = table.rows.iter().find(|row| row[1] == comparison).expect("a row");
    for (at, of_judge) in compared.iter().enumerate() {
        let found =
            of_judge.rows.iter().find(|row| row.contrast.to_lowercase().starts_with(&loss.to_lowercase()));
        let theirs = found.expect("the contrast");
        let by_people = theirs.by_people.expect("ratings");
        let of = |measured: compare::Measured| [measured.estimate, measured.low, measured.high];
        are_equal(&difference(&row[2]), &of(by_people.people));
        are_equal(&difference(&row[3 + 4 * at]), &of(theirs.measured));
        are_equal(&difference(&row[4 + 4 * at]), &of(by_people.corrected));
        let Value::Number { value: lambda, .. } = row[6 + 4 * at] else { panic!("{row:?}") };
        are_equal(&[lambda], &[by_people.lambda]);
        assert_eq!(by_people.rated_questions, 4);
    }
}

#[test]
fn the_report_has_each_difference_by_judge_by_people_and_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("study");
    let by_gold = answer(&out, &["study.rated_questions=4".to_owned()])
        .unwrap()
        .people
        .expect("the preset rates by gold");
    let results = out.join("results.parquet");
    let scores = read_scores(&[Source { path: results.clone(), arm: None, seed: None }]).unwrap();
    let ratings = Ratings::of_scorer(&scores, "gold", 4, &Seeds::new(0)).unwrap();
    let options = Options { baseline: Some("sft".into()), ..Options::default() };
    let compared = compare_with_ratings(&scores, &options, &ratings).unwrap();
    assert_eq!(compared.len(), 2, "an unbiased and a biased judge");
    for loss in ["DPO", "hinge"] {
        has_row(&by_gold, loss, &compared);
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("people, 4 questions") && page.contains("biased judge, corrected by people"));
    assert!(page.contains("Differences by judge, by people, and corrected"));

    // The same ratings in a file give the same table; nothing is trained or rated again.
    let arms = study_arms(&results).unwrap();
    let mut text = "arm,seed,question,turn,rater,score\n".to_owned();
    for row in read_parquet(&results).unwrap() {
        if (row.scorer.as_str(), row.question_set.as_str()) == (GOLD, BENCHMARK)
            && let Some(arm) = arms.get(&row.cell)
            && let Some(score) = row.score
        {
            let answer =
                [arm.clone(), row.seed.to_string(), row.question_id.to_string(), row.turn.to_string()];
            if ratings.of_answer(&answer).is_some() {
                text += &format!("{},ann,{score}\n", answer.join(","));
            }
        }
    }
    assert_eq!(text.lines().count(), 1 + 3 * 4 * 2, "three policies, four questions, two turns: {text}");
    let file = folder.path().join("ratings.csv");
    fs::write(&file, text).unwrap();
    let settings = [format!("study.ratings={}", file.display())];
    let by_file = answer(&out, &settings).unwrap().people.expect("ratings of a file");
    assert_eq!(by_file.rows, by_gold.rows);
    let refused = answer(&out, &["study.ratings=no-file.csv".to_owned()]).unwrap_err();
    assert!(refused.is_bad_input(), "{refused}");
    let refused = answer(&out, &[settings[0].clone(), "study.rated_questions=4".to_owned()]).unwrap_err();
    assert!(refused.to_string().contains("study.rated_questions applies only to study.ratings"), "{refused}");
}
