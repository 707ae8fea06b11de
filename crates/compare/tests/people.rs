//! A biased judge that people correct.

use std::fs;

use compare::{Comparison, Options, Ratings, Source, compare_with_ratings, read_scores};
use rand::RngExt;
use seeds::Seeds;

/// Scores of two arms on 80 questions by a judge that adds 0.5 points a hundred characters; arm `long` writes 100 more.
fn scores(gap: f64, noise: f64) -> String {
    let mut rng = Seeds::new(3).stream("scores");
    let mut draw =
        |spread: f64| spread * (rng.random::<f64>() + rng.random::<f64>() + rng.random::<f64>() - 1.5);
    let mut text = "arm,question,category,characters,scorer,score\n".to_owned();
    for question in 0..80 {
        let hard = draw(3.0);
        for (arm, quality, characters) in [("short", 0.0, 100), ("long", gap, 200)] {
            let gold = 6.0 + hard + quality + draw(noise);
            let judge = gold + 0.005 * f64::from(characters) + draw(0.2);
            let category = question % 8;
            text += &format!("{arm},q{question},c{category},{characters},gold,{gold}\n");
            text += &format!("{arm},q{question},c{category},{characters},judge,{judge}\n");
        }
    }
    text
}

fn corrected(text: &str, rate: usize) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.csv");
    fs::write(&path, text).unwrap();
    let scores = read_scores(&[Source { path, arm: None, seed: None }]).unwrap();
    let ratings = Ratings::of_scorer(&scores, "gold", rate, &Seeds::new(0)).unwrap();
    let options = Options { baseline: Some("short".into()), ..Options::default() };
    let comparisons = compare_with_ratings(&scores, &options, &ratings).unwrap();
    assert_eq!(comparisons.len(), 1, "gold takes the people's place");
    comparisons.into_iter().next().unwrap()
}

#[test]
fn ratings_of_20_questions_remove_the_bias_of_the_judge() {
    let comparison = corrected(&scores(-0.2, 0.3), 20);
    let row = &comparison.rows[0];
    assert!(row.measured.low > 0.1, "the judge prefers the longer arm: {row:?}");
    let by_people = row.by_people.unwrap();
    assert!(
        (by_people.corrected.estimate + 0.2).abs() < 0.15 && by_people.corrected.high < 0.0,
        "{by_people:?}"
    );
    let width = |low: f64, high: f64| high - low;
    let of_people = width(by_people.people.low, by_people.people.high);
    let of_both = width(by_people.corrected.low, by_people.corrected.high);
    assert!(of_both < 0.8 * of_people, "the judge narrows the interval: {of_both} {of_people}");
    assert_eq!(by_people.rated_questions, 20);
    assert!(by_people.lambda > 0.3);
    assert!(by_people.half_width_with_80_more < of_both / 2.0);
    let check = comparison.people.as_ref().unwrap().check;
    assert_eq!(check.answers, 40);
    assert!(
        (check.length_bias.unwrap().value - 0.5).abs() < 0.1 && check.length_bias.unwrap().p_value() < 0.001
    );
    let text: String = comparison.tables().iter().map(|table| table.render_within(80)).collect();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("corrected, λ") && text.contains("with 80 more ratings"), "{text}");
}

#[test]
fn the_corrected_interval_covers_the_gold_difference_of_all_questions() {
    let mut covered = 0;
    for seed in 0..40 {
        let text = scores(0.3, 0.5).replace("q7,", &format!("q7{seed}x,"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.csv");
        fs::write(&path, text).unwrap();
        let scores = read_scores(&[Source { path, arm: None, seed: None }]).unwrap();
        let ratings = Ratings::of_scorer(&scores, "gold", 20, &Seeds::new(seed)).unwrap();
        let options = Options { baseline: Some("short".into()), ..Options::default() };
        let row = compare_with_ratings(&scores, &options, &ratings).unwrap()[0].rows[0].by_people.unwrap();
        let gold = compare::compare(&scores, &Options { scorer: Some("gold".into()), ..options }).unwrap()[0]
            .rows[0]
            .measured
            .estimate;
        covered += usize::from(row.corrected.low <= gold && gold <= row.corrected.high);
    }
    // The interval is for new questions, so it covers the mean over these 80 at least as often as 95%.
    assert!(covered >= 36, "{covered} of 40");
}

#[test]
fn ratings_of_unknown_answers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [path, rated] = ["scores.csv", "ratings.csv"].map(|name| folder.path().join(name));
    fs::write(&path, scores(0.0, 0.3)).unwrap();
    let scores = read_scores(&[Source { path, arm: None, seed: None }]).unwrap();
    let compare = |text: &str| {
        fs::write(&rated, format!("arm,question,rater,score\n{text}")).unwrap();
        compare_with_ratings(&scores, &Options::default(), &Ratings::read(&rated).unwrap())
    };
    let error = compare("short,q1,ann,5\nother,q1,ann,5\n").unwrap_err().to_string();
    assert!(error.contains("the rating of arm \"other\", seed \"\", question \"q1\""), "{error}");
    let error = compare("short,q1,ann,5\nlong,q1,ann,5\nlong,q2,ann,5\n").unwrap_err().to_string();
    assert!(error.contains("1 questions have ratings of both"), "{error}");
    // Two raters of an answer count as their mean.
    let mean =
        compare("short,q1,ann,5\nshort,q1,bob,7\nlong,q1,ann,5\nshort,q2,ann,5\nlong,q2,ann,7\n").unwrap();
    assert_eq!(mean[1].rows[0].by_people.unwrap().people.estimate, 0.5);
    assert!(
        Ratings::of_scorer(&scores, "people", 20, &Seeds::new(0))
            .unwrap_err()
            .to_string()
            .contains("neither a file")
    );
}
