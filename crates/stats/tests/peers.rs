//! Tests, agreement, power and components against SciPy, statsmodels, krippendorff, irrCAC and choix, whose numbers
//! `fixtures/peers.py` recorded.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;
use stats::{
    ClusteredScores, CrossedScores, Design, MeanEstimate, Method, Metric, Observation, Over, PMethod, Plan,
    Resamples, Weights, Zeros, benjamini_hochberg, bradley_terry, clopper_pearson_interval, cohen_kappa,
    difference_interval, equivalence_test, fleiss_kappa, gwet_ac1, hodges_lehmann, holm, jonckheere_test,
    kendall_tau, krippendorff_alpha, mcnemar_test, mean_intervals, page_test, sign_flip_test, spearman_rho,
    unpaired_difference_interval, wilcoxon_test,
};

/// Room for sums and special functions in another order.
const CLOSE: f64 = 1e-9;
/// irrCAC rounds what it returns to five digits.
const FIVE_DIGITS: f64 = 6e-6;
/// statsmodels' and SciPy's own noncentral t agree with each other to about this.
const POWER: f64 = 1e-7;
/// Largest difference between ends of two bootstrap intervals of 200,000 resamples each, in standard errors: five times
/// √2 times the Monte Carlo error of a 2.5% quantile, doubled since the tails of `Method::Bca` lie further out.
const MONTE_CARLO: f64 = 0.09;

#[test]
fn exact_intervals_of_proportions_are_statsmodels() {
    for case in cases("clopper_pearson") {
        let interval = clopper_pearson_interval(
            count(&case["successes"]),
            count(&case["trials"]),
            number(&case["level"]),
        )
        .unwrap();
        near(interval.low, &case["low"], CLOSE, &case);
        near(interval.high, &case["high"], CLOSE, &case);
    }
}

#[test]
fn mcnemars_tests_are_statsmodels() {
    for case in cases("mcnemar") {
        let test = mcnemar_test(count(&case["b"]), count(&case["c"]));
        near(test.exact.p_value, &case["exact"], CLOSE, &case);
        for (ours, theirs) in [(test.chi_squared, &case["plain"]), (test.corrected, &case["corrected"])] {
            if case["b"] == case["c"] && theirs == &case["corrected"] {
                // statsmodels "corrects" a difference of 0 to one of 1; R does not, and neither do we.
                assert_eq!(ours, (0.0, 1.0));
                continue;
            }
            near(ours.0, &theirs[0], CLOSE, &case);
            near(ours.1, &theirs[1], CLOSE, &case);
        }
    }
}

#[test]
fn sign_flips_are_scipys_and_those_of_exact_fractions() {
    for case in cases("sign_flips") {
        let test = sign_flip_test(&numbers(&case["differences"]), &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        assert_eq!(test.method, PMethod::Exact);
        near(test.p_value, &case["p"], CLOSE, &case);
    }
}

#[test]
fn signed_ranks_are_scipys_and_those_of_all_signs() {
    for case in cases("wilcoxon") {
        let zeros: Zeros = serde_json::from_value(case["zeros"].clone()).unwrap();
        let test = wilcoxon_test(&numbers(&case["differences"]), zeros).unwrap();
        near(test.w_plus.min(test.w_minus), &case["statistic"], CLOSE, &case);
        near(test.p.p_value, &case["p"], CLOSE, &case);
    }
}

#[test]
fn hodges_lehmann_intervals_are_those_of_all_signs() {
    for case in cases("hodges_lehmann") {
        let found = hodges_lehmann(&numbers(&case["differences"]), 0.95).unwrap();
        let ours = [found.centre, found.low, found.high, found.level];
        for (ours, name) in ours.into_iter().zip(["centre", "low", "high", "level"]) {
            near(ours, &case[name], CLOSE, &case);
        }
    }
    // Hollander and Wolfe's depression scores: the estimate that the book gives.
    let depression = numbers(&cases("hodges_lehmann")[0]["differences"]);
    assert!((hodges_lehmann(&depression, 0.95).unwrap().centre + 0.46).abs() < 0.001);
}

#[test]
fn rank_correlations_are_scipys_and_those_of_all_orders() {
    for case in cases("correlations") {
        let (first, second) = (numbers(&case["first"]), numbers(&case["second"]));
        let (tau, rho) = (kendall_tau(&first, &second).unwrap(), spearman_rho(&first, &second).unwrap());
        near(tau.value, &case["tau"], CLOSE, &case);
        near(tau.p.p_value, &case["tau_p"], CLOSE, &case);
        near(rho.value, &case["rho"], CLOSE, &case);
        near(rho.p.p_value, &case["rho_p"], CLOSE, &case);
    }
}

#[test]
fn pages_trend_is_scipys() {
    for case in cases("page") {
        let blocks: Vec<Vec<f64>> = rows(&case["blocks"]).iter().map(numbers).collect();
        let trend = page_test(&blocks).unwrap();
        near(trend.statistic, &case["statistic"], CLOSE, &case);
        near(trend.p_rising, &case["p"], CLOSE, &case);
    }
}

#[test]
fn jonckheeres_trend_is_that_of_all_orders() {
    for case in cases("jonckheere") {
        let groups: Vec<Vec<f64>> = rows(&case["groups"]).iter().map(numbers).collect();
        let trend = jonckheere_test(&groups).unwrap();
        let ours = [trend.statistic, trend.z, trend.p_rising, trend.p_falling];
        for (ours, name) in ours.into_iter().zip(["statistic", "z", "p_rising", "p_falling"]) {
            near(ours, &case[name], CLOSE, &case);
        }
    }
}

#[test]
fn equivalence_tests_and_t_intervals_are_statsmodels() {
    for case in cases("equivalence") {
        let difference = MeanEstimate::of(&numbers(&case["differences"])).unwrap();
        let test = equivalence_test(&difference, number(&case["margin"])).unwrap();
        near(test.p_value, &case["p"], CLOSE, &case);
        near(test.p_below, &case["p_below"], CLOSE, &case);
        near(test.p_above, &case["p_above"], CLOSE, &case);
        let interval = difference.interval(0.9).unwrap();
        near(interval.low, &case["interval"][0], CLOSE, &case);
        near(interval.high, &case["interval"][1], CLOSE, &case);
    }
}

#[test]
fn power_is_statsmodels() {
    for case in cases("power") {
        // Questions at ±1 have unit variance times n/(n − 1); one more at 0 where their number is odd.
        let questions = count(&case["questions"]);
        let values: Vec<f64> = (0..questions)
            .map(|q| match q % 2 {
                _ if q == questions - 1 && questions % 2 == 1 => 0.0,
                0 => 1.0,
                _ => -1.0,
            })
            .collect();
        let rows = (0..).zip(&values).map(|(question, &score)| Observation {
            seed: 0,
            question,
            turn: 0,
            repeat: 0,
            score,
        });
        let components = CrossedScores::new(rows).unwrap().components().unwrap();
        let deviation = components.question.unwrap().sqrt();
        let plan =
            Plan { variances: components.variances(), over: Over::Questions, level: number(&case["level"]) };
        let difference = number(&case["effect"]) * deviation;
        let design = components.design;
        near(plan.power(difference, design).unwrap(), &case["power"], POWER, &case);
        let detectable = plan.minimal_detectable_difference(design, number(&case["power"])).unwrap();
        assert!((detectable / difference - 1.0).abs() < 1e-5, "{detectable} is not {difference}: {case}");
    }
}

#[test]
fn adjusted_p_values_are_statsmodels() {
    for case in cases("adjustments") {
        let p = numbers(&case["p"]);
        for (ours, name) in [(holm(&p).unwrap(), "holm"), (benjamini_hochberg(&p).unwrap(), "bh")] {
            for (ours, theirs) in ours.iter().zip(rows(&case[name])) {
                near(*ours, theirs, CLOSE, &case);
            }
        }
    }
}

#[test]
fn cohens_kappas_are_statsmodels() {
    for case in cases("cohen") {
        let weights: Weights = serde_json::from_value(case["weights"].clone()).unwrap();
        let kappa = cohen_kappa(&table(&case["table"]), weights).unwrap();
        near(kappa.kappa.value().unwrap(), &case["kappa"], CLOSE, &case);
        near(kappa.standard_error.unwrap(), &case["error"], CLOSE, &case);
        let interval = kappa.interval(0.95).unwrap().unwrap();
        near(interval.low, &case["interval"][0], CLOSE, &case);
        near(interval.high, &case["interval"][1], CLOSE, &case);
    }
}

#[test]
fn agreement_and_its_intervals_are_irr_cacs_and_krippendorffs() {
    /// How far two large-sample errors of α, the jackknife's and irrCAC's linearisation, may lie apart: a share of either.
    const LINEARISED: f64 = 0.05;
    for case in cases("agreement") {
        let counts = table(&case["counts"]);
        let ac1 = gwet_ac1(&counts).unwrap();
        let mut found = vec![(ac1, &case["ac1"])];
        if case["complete"] == true {
            found.push((fleiss_kappa(&counts).unwrap(), &case["fleiss"]));
        }
        for (ours, theirs) in found {
            near(ours.kappa.value().unwrap(), &theirs["value"], FIVE_DIGITS, &case);
            near(ours.observed, &theirs["pa"], FIVE_DIGITS, &case);
            near(ours.expected, &theirs["pe"], FIVE_DIGITS, &case);
            near(ours.interval(0.95).unwrap().unwrap().low, &theirs["low"], 1e-4, &case);
        }
        for metric in [Metric::Nominal, Metric::Ordinal, Metric::Interval] {
            let name = serde_json::to_value(metric).unwrap();
            let theirs = &case["alpha"][name.as_str().unwrap()];
            let alpha = krippendorff_alpha(&counts, metric).unwrap();
            let error = alpha.standard_error.unwrap();
            near(alpha.alpha.value().unwrap(), &theirs["value"], CLOSE, &case);
            near(error, &theirs["jackknife"], CLOSE, &case);
            if let Some(linearised) = theirs.get("linearised") {
                near(error, linearised, LINEARISED * error, &case);
            }
        }
    }
}

#[test]
fn bradley_terry_strengths_are_choixs_and_their_errors_statsmodels() {
    /// Tolerance of choix's optimizer.
    const FITTED: f64 = 1e-5;
    for case in cases("bradley_terry") {
        let wins: Vec<Vec<f64>> = rows(&case["wins"]).iter().map(numbers).collect();
        let fit = bradley_terry(&wins).unwrap();
        for (ours, theirs) in fit.strengths.iter().zip(rows(&case["strengths"])) {
            near(*ours, theirs, FITTED, &case);
        }
        let z = 1.959_963_984_540_054;
        for policy in 1..wins.len() {
            let gap = fit.gap(policy, 0, 0.95).unwrap();
            near(f64::midpoint(gap.low, gap.high), &case["gap_to_first"][policy - 1], CLOSE, &case);
            near((gap.high - gap.low) / 2.0 / z, &case["gap_errors"][policy - 1], CLOSE, &case);
        }
    }
}

#[test]
fn variance_components_are_those_of_statsmodels_mean_squares() {
    let case = &peers()["components"];
    let observations = rows(&case["rows"]).iter().map(|row| Observation {
        seed: count(&row[0]),
        question: count(&row[1]),
        turn: count(&row[2]),
        repeat: count(&row[3]),
        score: number(&row[4]),
    });
    let found = CrossedScores::new(observations).unwrap().components().unwrap();
    assert_eq!(found.design, Design { seeds: 3, questions: 4, turns: 2, repeats: 2 });
    near(found.mean, &case["mean"], CLOSE, case);
    let ours = [found.seed, found.question, found.seed_question, found.turn, found.answer, found.judge];
    let names = ["seed", "question", "seed_question", "turn", "answer", "judge"];
    for (ours, name) in ours.into_iter().zip(names) {
        near(ours.unwrap(), &case[name], CLOSE, case);
    }
    let estimate = found.estimate(Over::SeedsAndQuestions).unwrap();
    near(estimate.standard_error, &case["standard_error"], CLOSE, case);
    near(estimate.degrees_of_freedom, &case["degrees_of_freedom"], CLOSE, case);
}

#[test]
fn bca_intervals_are_scipys() {
    let case = &peers()["bca"];
    let scores = |values: &[f64]| ClusteredScores::new((0..).zip(values.iter().copied())).unwrap();
    let (first, second) = (numbers(&case["first"]), numbers(&case["second"]));
    let (one, other) = (scores(&first), scores(&second));
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let draws = Resamples::draw(25, 200_000, rng).unwrap();
    let mean = mean_intervals(&[&one], &draws, 0.95, Method::Bca).unwrap()[0];
    let paired = difference_interval(&one, &other, &draws, 0.95, Method::Bca).unwrap();
    let shorter = scores(&second[..18]);
    let unpaired = unpaired_difference_interval(&one, &shorter, 200_000, 0.95, Method::Bca, rng).unwrap();
    for (ours, name) in [(mean, "mean"), (paired, "paired"), (unpaired, "unpaired")] {
        let tolerance = MONTE_CARLO * number(&case[name]["error"]);
        near(ours.low, &case[name]["low"], tolerance, &case[name]);
        near(ours.high, &case[name]["high"], tolerance, &case[name]);
    }
    let plain = mean_intervals(&[&one], &draws, 0.95, Method::Percentile).unwrap()[0];
    assert!(mean.low < plain.low && mean.high < plain.high, "skew to the left moves both ends down");
}

fn peers() -> Value {
    serde_json::from_str(include_str!("fixtures/peers.json")).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let cases = rows(&peers()[name]).to_vec();
    assert!(!cases.is_empty());
    cases
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    rows(value).iter().map(number).collect()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn table(value: &Value) -> Vec<Vec<u64>> {
    rows(value).iter().map(|row| rows(row).iter().map(count).collect()).collect()
}

#[track_caller]
fn near(ours: f64, theirs: &Value, tolerance: f64, case: &Value) {
    let theirs = number(theirs);
    assert!((ours - theirs).abs() <= tolerance, "{ours} is not {theirs} within {tolerance}: {case}");
}
