//! Our numbers against those of SciPy, statsmodels and NumPy, which `fixtures/reference.py` recorded.

use std::convert::Infallible;

use rand::TryRng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;
use stats::{
    ClusteredScores, fleiss_kappa, mean_interval, paired_difference_interval, randolph_kappa, sign_test,
    wilson_interval,
};
use test_support::CLOSED_FORM;

/// Largest difference between ends of two bootstrap intervals of 100,000 resamples each, in standard errors of the
/// estimate: five times √2 times the Monte Carlo error of a 2.5% quantile, √(0.025 · 0.975 / 100,000) / φ(1.96).
const MONTE_CARLO: f64 = 0.06;
/// Largest relative difference between p-values, whose binomial coefficients go through the logarithm of Γ.
const P_VALUE: f64 = 1e-10;

#[test]
fn wilson_intervals_are_those_of_statsmodels() {
    for case in rows(&reference()["wilson"]) {
        let interval =
            wilson_interval(count(&case["successes"]), count(&case["trials"]), number(&case["level"]))
                .unwrap();
        close(interval.low, &case["low"], CLOSED_FORM, case);
        close(interval.high, &case["high"], CLOSED_FORM, case);
    }
}

#[test]
fn sign_tests_are_those_of_scipy() {
    for case in rows(&reference()["sign"]) {
        let test = sign_test(count(&case["wins"]), count(&case["losses"]));
        close(test.p_value / number(&case["p_value"]), &Value::from(1.0), P_VALUE, case);
        close(test.mid_p_value / number(&case["mid_p_value"]), &Value::from(1.0), P_VALUE, case);
    }
}

#[test]
fn published_values_are_met() {
    let interval = wilson_interval(63, 160, 0.95).unwrap();
    assert_eq!(format!("{:.10} {:.10}", interval.low, interval.high), "0.3213875070 0.4710948094");
    assert_eq!(format!("{:.10}", wilson_interval(0, 10, 0.95).unwrap().high), "0.2775327999");
    let test = sign_test(63, 46);
    assert_eq!(format!("{:.10} {:.10}", test.p_value, test.mid_p_value), "0.1250045413 0.1046130581");
    let reference = reference();
    let fleiss =
        |table: usize| fleiss_kappa(&counts(&reference["kappas"][table])).unwrap().kappa.value().unwrap();
    assert_eq!(format!("{:.10}", fleiss(0)), "0.2099307044", "ten subjects, fourteen raters");
    assert_eq!(format!("{:.10}", fleiss(1)), "0.4302445201", "the diagnoses of Fleiss 1971");
}

#[test]
fn kappas_are_those_of_statsmodels() {
    for case in rows(&reference()["kappas"]) {
        let counts = counts(case);
        close(fleiss_kappa(&counts).unwrap().kappa.value().unwrap(), &case["fleiss"], CLOSED_FORM, case);
        close(randolph_kappa(&counts).unwrap().kappa.value().unwrap(), &case["randolph"], CLOSED_FORM, case);
    }
}

#[test]
fn intervals_of_given_resamples_are_those_of_numpy() {
    for case in rows(&reference()["recorded_resamples"]) {
        let (first, second) = (scores(&case["first"]), scores(&case["second"]));
        let draws = || Recorded::new(&case["drawn"], first.clusters());
        let resamples = rows(&case["drawn"]).len();
        let level = number(&case["level"]);

        let mean = mean_interval(&first, resamples, level, &mut draws()).unwrap();
        close(mean.value, &case["mean"], CLOSED_FORM, case);
        close(mean.low, &case["low"], CLOSED_FORM, case);
        close(mean.high, &case["high"], CLOSED_FORM, case);

        let difference = paired_difference_interval(&first, &second, resamples, level, &mut draws()).unwrap();
        close(difference.value, &case["difference"], CLOSED_FORM, case);
        close(difference.low, &case["paired_low"], CLOSED_FORM, case);
        close(difference.high, &case["paired_high"], CLOSED_FORM, case);
    }
}

#[test]
fn intervals_of_fresh_resamples_are_those_of_scipy() {
    let case = &reference()["scipy_bootstrap"];
    let (first, second) = (scores(&case["first"]), scores(&case["second"]));
    let resamples = usize::try_from(count(&case["resamples"])).unwrap();
    let rng = &mut ChaCha8Rng::seed_from_u64(1);

    let mean = mean_interval(&first, resamples, 0.95, rng).unwrap();
    let tolerance = MONTE_CARLO * number(&case["standard_error"]);
    close(mean.low, &case["low"], tolerance, &Value::Null);
    close(mean.high, &case["high"], tolerance, &Value::Null);

    let difference = paired_difference_interval(&first, &second, resamples, 0.95, rng).unwrap();
    let tolerance = MONTE_CARLO * number(&case["paired_standard_error"]);
    close(difference.low, &case["paired_low"], tolerance, &Value::Null);
    close(difference.high, &case["paired_high"], tolerance, &Value::Null);
}

/// Returns recorded draws from `0..range` independently of the sampling algorithm: each word is in the middle of its
/// draw's range of words.
struct Recorded {
    draws: std::vec::IntoIter<u64>,
    range: u64,
}

impl Recorded {
    fn new(drawn: &Value, range: usize) -> Self {
        let draws: Vec<u64> =
            rows(drawn).iter().flat_map(|resample| rows(resample).iter().map(count)).collect();
        Self { draws: draws.into_iter(), range: range as u64 }
    }
}

impl TryRng for Recorded {
    type Error = Infallible;

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let draw = self.draws.next().expect("no more is drawn than was recorded");
        Ok(u64::MAX / (2 * self.range) * (2 * draw + 1))
    }

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.try_next_u64()? >> 32) as u32)
    }

    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
        unreachable!("indices are drawn from words")
    }
}

fn reference() -> Value {
    serde_json::from_str(include_str!("fixtures/reference.json")).unwrap()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn counts(case: &Value) -> Vec<Vec<u64>> {
    rows(&case["counts"]).iter().map(|row| rows(row).iter().map(count).collect()).collect()
}

fn scores(value: &Value) -> ClusteredScores {
    ClusteredScores::new(rows(value).iter().map(|row| (count(&row[0]), number(&row[1])))).unwrap()
}

#[track_caller]
fn close(ours: f64, theirs: &Value, tolerance: f64, case: &Value) {
    let theirs = number(theirs);
    assert!((ours - theirs).abs() <= tolerance, "{ours} is not {theirs} within {tolerance}: {case}");
}
