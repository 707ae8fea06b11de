//! Pooled and moderated variances, detectable effects and PPI against NumPy, SciPy and ppi-python.

use serde_json::Value;
use stats::{
    Assay, Conclusion, CrossedScores, Error, MeanEstimate, MeanSquare, Observation, PlannedTest, PooledSeeds,
    Pooling, RatedItem, Source, StudySize, VarianceParts, equivalence_test, moderate_variances, ppi_mean,
};

/// Between sums of the same numbers in another order, relative.
const REORDERED: f64 = 1e-9;
/// Between roots that SciPy and this crate search by different methods, relative.
const SEARCHED: f64 = 1e-7;

fn cases(name: &str) -> Vec<Value> {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/pooled.json")).unwrap();
    let cases = fixture[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[track_caller]
fn near(ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap();
    assert!((ours - theirs).abs() <= tolerance * (1.0 + theirs.abs()), "{ours} is not {theirs}");
}

/// Reads scores `[cells][seeds][questions]`.
fn cells(scores: &Value) -> Vec<CrossedScores> {
    let cell = |seeds: &Value| {
        let rows = seeds.as_array().unwrap().iter().enumerate().flat_map(|(seed, questions)| {
            numbers(questions).into_iter().enumerate().map(move |(question, score)| Observation {
                seed: seed as u64,
                question: question as u64,
                turn: 1,
                repeat: 0,
                score,
            })
        });
        CrossedScores::new(rows.collect::<Vec<_>>()).unwrap()
    };
    scores.as_array().unwrap().iter().map(cell).collect()
}

fn pooled(cells: &[CrossedScores]) -> PooledSeeds {
    PooledSeeds::new(cells.iter().map(|cell| (0, cell)), Pooling::Pooled).unwrap()
}

#[test]
fn moderated_variances_match_limmas_formulas() {
    for case in cases("moderated") {
        let squares: Vec<MeanSquare> = numbers(&case["squares"])
            .into_iter()
            .zip(numbers(&case["df"]))
            .map(|(value, degrees_of_freedom)| MeanSquare { value, degrees_of_freedom })
            .collect();
        let found = moderate_variances(&squares).unwrap();
        near(found.prior.value, &case["s0"], SEARCHED);
        match case["d0"].as_f64() {
            Some(_) => near(found.prior.degrees_of_freedom, &case["d0"], SEARCHED),
            None => assert_eq!(found.prior.degrees_of_freedom, f64::INFINITY),
        }
        let expected = case["moderated"].as_array().unwrap();
        assert_eq!(found.moderated.len(), expected.len());
        for (square, expected) in found.moderated.iter().zip(expected) {
            near(square.value, expected, SEARCHED);
        }
    }
}

#[test]
fn contrasts_match_numpy_with_and_without_strata() {
    for case in cases("contrasts") {
        let (cells, weights) = (cells(&case["scores"]), numbers(&case["weights"]));
        let study = pooled(&cells);
        let strata = case["strata"].as_u64().unwrap();
        let stratified = study.clone().with_strata(|question| question % strata).unwrap();
        for (study, name) in [(study, "plain"), (stratified, "stratified")] {
            let found = study.contrast(&weights).unwrap();
            near(found.value, &case["value"], REORDERED);
            near(found.standard_error, &case[name]["error"], REORDERED);
            near(found.degrees_of_freedom, &case[name]["df"], REORDERED);
        }
    }
}

#[test]
fn detectable_effects_match_scipy() {
    for case in cases("detectable") {
        let number = |name: &str| case[name].as_f64().unwrap();
        let difference =
            MeanEstimate { value: 0.0, standard_error: number("error"), degrees_of_freedom: number("df") };
        let comparisons = case["comparisons"].as_u64().unwrap() as usize;
        let test = PlannedTest { level: 0.95, power: number("power"), comparisons };
        let found = test.minimum_detectable_effect(&difference).unwrap();
        near(found.value, &case["value"], SEARCHED);
        near(found.interval.low, &case["low"], SEARCHED);
        near(found.interval.high, &case["high"], SEARCHED);
    }
}

#[test]
fn ppi_matches_ppi_python() {
    for case in cases("ppi") {
        let pairs = numbers(&case["ratings"]).into_iter().zip(numbers(&case["judged"]));
        let rated: Vec<RatedItem> = pairs.map(|(rating, judged)| RatedItem { rating, judged }).collect();
        let unrated = numbers(&case["unrated"]);
        let found = ppi_mean(&rated, &unrated).unwrap();
        near(found.mean.value, &case["value"], REORDERED);
        near(found.lambda, &case["lambda"], REORDERED);
        near(found.mean.standard_error, &case["error"], REORDERED);
        near(found.mean.degrees_of_freedom, &case["df"], REORDERED);
        // ppi-python's interval is normal and without the correction of variances by n/(n − 1).
        let interval = found.mean.interval(0.95).unwrap();
        let width = case["high"].as_f64().unwrap() - case["low"].as_f64().unwrap();
        let ratio = (interval.high - interval.low) / width;
        assert!((1.0..1.2).contains(&ratio), "{ratio}");
    }
    assert!(matches!(ppi_mean(&[], &[1.0, 2.0]), Err(Error::TooFewClusters { clusters: 0 })));
    let flat = [RatedItem { rating: 1.0, judged: 3.0 }, RatedItem { rating: 2.0, judged: 3.0 }];
    assert_eq!(ppi_mean(&flat, &[3.0, 3.0]).unwrap().lambda, 0.0);
}

#[test]
fn the_variance_of_a_study_is_the_sum_of_its_parts() {
    let cells = cells(&cases("contrasts")[1]["scores"]);
    let study = pooled(&cells);
    let difference = study.difference(1, 0).unwrap();
    let parts = study.variance_parts(1, 0).unwrap();
    let StudySize { seeds, questions, samples } = parts.size;
    assert_eq!((seeds, questions, samples), (3, 20, 1));
    let [s, q] = [seeds as f64, questions as f64];
    let sum = parts.question / q + parts.seed / s + parts.sampling / (s * q);
    assert!((sum.sqrt() / difference.standard_error - 1.0).abs() < REORDERED);
    // At the minimum detectable effect the study has the required size.
    let test = PlannedTest { level: 0.95, power: 0.8, comparisons: 6 };
    let effect = test.minimum_detectable_effect(&difference).unwrap().value;
    let [needed, ..] = test.required_samples(effect, &parts).unwrap();
    let needed = needed.number.unwrap();
    assert!((19..=21).contains(&needed), "{needed}");
}

#[test]
fn required_samples_shrink_with_the_effect_and_name_the_largest_part() {
    let size = StudySize { seeds: 4, questions: 80, samples: 1 };
    let parts = VarianceParts { question: 0.6, seed: 0.02, fixed: 0.3, sampling: 1.5, size, seed_df: 24.0 };
    let test = PlannedTest { level: 0.95, power: 0.8, comparisons: 1 };
    let questions = |effect: f64| test.required_samples(effect, &parts).unwrap()[0].number;
    assert!(questions(1.0) < questions(0.5) && questions(0.5) < questions(0.45));
    assert_eq!(questions(0.01), None, "seeds alone vary by more");
    assert_eq!(parts.largest(), Source::Questions);
    assert_eq!(VarianceParts { seed: 1.0, ..parts }.largest(), Source::Seeds);
    assert!(matches!(test.required_samples(0.0, &parts), Err(Error::Margin { .. })));
    let none = PlannedTest { comparisons: 0, ..test };
    assert!(none.required_samples(0.5, &parts).is_err());
    // Negative parts are estimates of small ones, and no reason for a panic.
    let negative = VarianceParts { question: -0.1, seed: -0.1, fixed: 0.0, ..parts };
    assert!(test.required_samples(0.5, &negative).unwrap()[0].number.is_some());
}

#[test]
fn incomplete_studies_are_errors() {
    let scores = cells(&cases("contrasts")[0]["scores"]);
    let study = pooled(&scores);
    assert_eq!(study.difference(0, 3), Err(Error::UnknownPolicy { policy: 3, policies: 3 }));
    assert_eq!(study.contrast(&[1.0]), Err(Error::OtherLength { first: 3, second: 1 }));
    assert!(study.contrast(&[f64::NAN, 0.0, 0.0]).is_err());
    assert!(study.clone().with_strata(|question| question.min(11)).is_err(), "strata of one question");
    assert!(PooledSeeds::new([], Pooling::Pooled).is_err());
    let one = |questions: u64| {
        CrossedScores::new((0..questions).map(|question| Observation {
            seed: 0,
            question,
            turn: 1,
            repeat: 0,
            score: question as f64,
        }))
        .unwrap()
    };
    let (twelve, five) = (one(12), one(5));
    assert_eq!(PooledSeeds::new([(0, &twelve)], Pooling::Pooled), Err(Error::OneSeed));
    // A contrast uses the questions that its cells have in common.
    let fewer = PooledSeeds::new([(0, &scores[0]), (0, &five), (0, &one(1))], Pooling::Pooled).unwrap();
    let of_five = fewer.difference(0, 1).unwrap();
    assert!(of_five.degrees_of_freedom > 1.0 && of_five.standard_error > 0.0);
    assert_eq!(fewer.difference(0, 2), Err(Error::TooFewClusters { clusters: 1 }));
    // One seed is enough for a contrast of these very policies.
    let fixed = PooledSeeds::new([(0, &twelve), (0, &scores[0])], Pooling::Fixed).unwrap();
    assert!(fixed.difference(1, 0).unwrap().standard_error > 0.0);
    // A cell with one seed borrows the variance of its group.
    let mixed = PooledSeeds::new([(0, &scores[0]), (0, &twelve)], Pooling::Moderated).unwrap();
    assert!(mixed.difference(0, 1).unwrap().standard_error > 0.0);
    let variances = mixed.seed_variances();
    assert_eq!((variances.len(), variances[0].cells), (1, 2));
    assert!(variances[0].standard_error > 0.0);
}

#[test]
fn conclusions_put_equivalence_first_and_gate_null_results() {
    let conclude = |value: f64, error: f64, assay| {
        let difference = MeanEstimate { value, standard_error: error, degrees_of_freedom: 79.0 };
        let test = equivalence_test(&difference, 0.3).unwrap();
        Conclusion::of(&difference, difference.p_value(), &test, assay, 0.05)
    };
    for (value, error, sensitive, not_sensitive) in [
        (0.1, 0.02, Conclusion::Equivalent, Conclusion::NotInterpretable),
        (0.0, 0.02, Conclusion::Equivalent, Conclusion::NotInterpretable),
        (1.0, 0.2, Conclusion::Higher, Conclusion::Higher),
        (-1.0, 0.2, Conclusion::Lower, Conclusion::Lower),
        (0.2, 0.2, Conclusion::Inconclusive, Conclusion::NotInterpretable),
    ] {
        assert_eq!(conclude(value, error, Assay::Sensitive), sensitive);
        assert_eq!(conclude(value, error, Assay::NotSensitive), not_sensitive);
    }
    let control = |value| MeanEstimate { value, standard_error: 0.1, degrees_of_freedom: 79.0 };
    assert_eq!(Assay::of(&control(0.5), 0.05), Assay::Sensitive);
    assert_eq!(Assay::of(&control(-0.5), 0.05), Assay::NotSensitive);
}

#[test]
fn an_effect_of_a_seed_on_all_cells_changes_no_paired_difference() {
    let scores = &cases("contrasts")[1]["scores"];
    let shifted = |by: [f64; 3]| -> Vec<CrossedScores> {
        let mut moved = scores.clone();
        for seeds in moved.as_array_mut().unwrap() {
            for (seed, shift) in seeds.as_array_mut().unwrap().iter_mut().zip(by) {
                for score in seed.as_array_mut().unwrap() {
                    *score = (score.as_f64().unwrap() + shift).into();
                }
            }
        }
        cells(&moved)
    };
    let of = |cells: &[CrossedScores], pooling| {
        let groups = (0..).map(|at: u64| at % 2).zip(cells);
        PooledSeeds::new(groups, pooling).unwrap().difference(1, 0).unwrap()
    };
    let (plain, shifted) = (shifted([0.0; 3]), shifted([0.0, 2.0, -1.0]));
    let [before, after] = [&plain, &shifted].map(|cells| of(cells, Pooling::Paired));
    assert!((before.standard_error / after.standard_error - 1.0).abs() < REORDERED);
    assert!(of(&shifted, Pooling::Pooled).standard_error > 2.0 * after.standard_error);
    let fixed = of(&shifted, Pooling::Fixed);
    assert!(fixed.standard_error <= after.standard_error);
    // A cell without one of the seeds borrows the variance of its group.
    let fewer: Vec<CrossedScores> =
        cells(&serde_json::json!([scores[0], scores[1], [scores[2][0], scores[2][1]], scores[3]]));
    let study = PooledSeeds::new(fewer.iter().map(|cell| (0, cell)), Pooling::Paired).unwrap();
    assert!(
        study.difference(2, 0).unwrap().standard_error > study.difference(1, 0).unwrap().standard_error * 0.5
    );
    assert!(study.variance_parts(2, 0).is_err(), "different numbers of seeds");
}
