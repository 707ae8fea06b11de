//! Errors, undefined results and edge cases: ties, one value, NaN, no values.

use proptest::{collection::vec, prelude::*};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use stats::{
    Checkpoint, ClusteredScores, CrossedScores, Error, Kappa, MeanEstimate, Method, Metric, Observation,
    Over, OverfittingVerdict, PMethod, Plan, Resamples, SeedsNeeded, Sign, Variances, Weights, Zeros,
    benjamini_hochberg, bradley_terry, clopper_pearson_interval, cohen_kappa, difference_interval,
    equivalence_test, gwet_ac1, hodges_lehmann, holm, jonckheere_test, judge_overfitting, kendall_tau,
    krippendorff_alpha, mean_intervals, page_test, sign_flip_test, spearman_rho, wilcoxon_test,
};

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(5)
}

fn scores(values: &[f64]) -> ClusteredScores {
    ClusteredScores::new((0..).zip(values.iter().copied())).unwrap()
}

#[test]
fn results_are_the_same_bits_on_any_number_of_threads() {
    let policies: Vec<ClusteredScores> = (0..11_u32)
        .map(|policy| {
            ClusteredScores::new((0..160_u64).map(|row| (row / 2, f64::from(policy).sin() * row as f64)))
                .unwrap()
        })
        .collect();
    let policies: Vec<&ClusteredScores> = policies.iter().collect();
    let draws = Resamples::draw(80, 3_000, &mut rng()).unwrap();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| mean_intervals(&policies, &draws, 0.95, Method::Bca).unwrap())
    };
    let alone = on(1);
    for threads in [2, 3, 8] {
        assert_eq!(alone, on(threads), "{threads} threads");
    }
    // Nor does the result depend on the other policies of the table.
    assert_eq!(mean_intervals(&policies[4..5], &draws, 0.95, Method::Bca).unwrap()[0], alone[4]);
}

#[test]
fn bootstraps_of_constant_scores_have_no_width_by_either_method() {
    let draws = Resamples::draw(5, 100, &mut rng()).unwrap();
    for method in [Method::Percentile, Method::Bca] {
        let flat = mean_intervals(&[&scores(&[7.0; 5])], &draws, 0.95, method).unwrap()[0];
        assert_eq!((flat.low, flat.value, flat.high), (7.0, 7.0, 7.0));
        let gap = difference_interval(&scores(&[8.0; 5]), &scores(&[7.0; 5]), &draws, 0.95, method).unwrap();
        assert_eq!((gap.low, gap.value, gap.high), (1.0, 1.0, 1.0));
    }
    let refused = mean_intervals(&[&scores(&[7.0; 6])], &draws, 0.95, Method::Bca);
    assert_eq!(refused, Err(Error::ResampledClusters { clusters: 6, resampled: 5 }));
    assert_eq!(mean_intervals(&[], &draws, 0.95, Method::Bca), Ok(vec![]));
    assert_eq!(Resamples::draw(1, 10, &mut rng()), Err(Error::TooFewClusters { clusters: 1 }));
}

#[test]
fn paired_tests_of_zero_differences_have_p_one() {
    let empty = Err(Error::TooFewClusters { clusters: 0 });
    assert_eq!(sign_flip_test(&[], &mut rng()), empty);
    assert_eq!(sign_flip_test(&[0.0; 30], &mut rng()).unwrap().p_value, 1.0);
    assert_eq!(sign_flip_test(&[2.5], &mut rng()).unwrap().p_value, 1.0);
    let flat = wilcoxon_test(&[0.0, 0.0], Zeros::Dropped).unwrap();
    assert_eq!((flat.w_plus, flat.w_minus, flat.p.p_value), (0.0, 0.0, 1.0));
    assert_eq!(wilcoxon_test(&[], Zeros::RankedThenDropped).unwrap().p.p_value, 1.0);
    assert!(matches!(wilcoxon_test(&[1.0, f64::NAN], Zeros::Dropped), Err(Error::NotFinite { row: 1, .. })));
    assert!(matches!(sign_flip_test(&[f64::INFINITY], &mut rng()), Err(Error::NotFinite { row: 0, .. })));
    assert!(hodges_lehmann(&[], 0.95).is_err() && hodges_lehmann(&[f64::NAN], 0.95).is_err());
    let one = hodges_lehmann(&[3.0], 0.95).unwrap();
    assert_eq!((one.low, one.centre, one.high, one.level), (3.0, 3.0, 3.0, 0.0));
}

#[test]
fn values_off_any_grid_are_flipped_at_random_beyond_twenty() {
    let differences: Vec<f64> = (0..60).map(|i| (f64::from(i) * 1.7).sin() + 0.1).collect();
    let test = sign_flip_test(&differences, &mut rng()).unwrap();
    assert_eq!(test.method, PMethod::MonteCarlo { draws: 100_000 });
    // The same values on a grid of 1/64 are counted exactly; the two p-values must agree.
    let rounded: Vec<f64> = differences.iter().map(|d| (d * 64.0).round() / 64.0).collect();
    let exact = sign_flip_test(&rounded, &mut rng()).unwrap();
    assert_eq!(exact.method, PMethod::Exact);
    assert!((test.p_value - exact.p_value).abs() < 0.01, "{} {}", test.p_value, exact.p_value);
}

#[test]
fn constant_values_have_no_correlation() {
    let constant = |side| Err(Error::Constant { side });
    assert_eq!(kendall_tau(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), constant("first"));
    assert_eq!(spearman_rho(&[1.0, 2.0], &[4.0, 4.0]), constant("second"));
    assert_eq!(kendall_tau(&[1.0], &[1.0]), Err(Error::TooFewClusters { clusters: 1 }));
    assert_eq!(kendall_tau(&[1.0, 2.0], &[1.0]), Err(Error::OtherLength { first: 2, second: 1 }));
    assert!(matches!(spearman_rho(&[1.0, 2.0], &[f64::NAN, 1.0]), Err(Error::NotFinite { row: 0, .. })));
    assert_eq!(page_test(&[[2.0, 2.0], [3.0, 3.0]]).unwrap_err(), Error::Constant { side: "every block" });
    assert_eq!(page_test::<[f64; 3]>(&[]).unwrap_err(), Error::TooFewClusters { clusters: 0 });
    assert!(page_test(&[vec![1.0, 2.0], vec![1.0]]).is_err());
    assert_eq!(
        jonckheere_test(&[[1.0, 1.0], [1.0, 1.0]]).unwrap_err(),
        Error::Constant { side: "every group" }
    );
    assert_eq!(jonckheere_test(&[vec![1.0], vec![]]).unwrap_err(), Error::TooFewClusters { clusters: 1 });
    // Two tied pairs have one order only, and it proves nothing.
    assert_eq!(kendall_tau(&[1.0, 2.0], &[1.0, 2.0]).unwrap().p.p_value, 1.0);
}

#[test]
fn adjustments_and_margins_validate_their_input() {
    assert_eq!(holm(&[]), Ok(vec![]));
    for adjust in [holm, benjamini_hochberg] {
        assert_eq!(adjust(&[0.5, 1.5]), Err(Error::NotProbability { index: 1, value: 1.5 }));
        assert!(adjust(&[f64::NAN]).is_err());
    }
    let sure = MeanEstimate { value: 0.2, standard_error: 0.0, degrees_of_freedom: 3.0 };
    assert_eq!(equivalence_test(&sure, 0.5).unwrap().p_value, 0.0);
    assert_eq!(equivalence_test(&sure, 0.1).unwrap().p_value, 1.0);
    for margin in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(equivalence_test(&sure, margin), Err(Error::Margin { .. })));
    }
    assert!(MeanEstimate::of(&[1.0]).is_err() && MeanEstimate::of(&[1.0, f64::NAN]).is_err());
    assert!(clopper_pearson_interval(3, 2, 0.95).is_err() && clopper_pearson_interval(1, 2, 1.0).is_err());
}

#[test]
fn undefined_agreement_is_an_error() {
    let one_category = cohen_kappa(&[[5, 0], [0, 0]], Weights::Unweighted).unwrap();
    assert_eq!((one_category.kappa, one_category.standard_error), (Kappa::Undefined, None));
    assert_eq!(one_category.interval(0.95), Ok(None));
    assert!(cohen_kappa(&[vec![1, 2], vec![1]], Weights::Linear).is_err());
    assert_eq!(
        cohen_kappa(&[[0, 0], [0, 0]], Weights::Linear),
        Err(Error::TooFew { what: "items", needed: 1 })
    );
    let alpha = krippendorff_alpha(&[[3, 0], [2, 0]], Metric::Nominal).unwrap();
    assert_eq!((alpha.alpha, alpha.standard_error), (Kappa::Undefined, None));
    assert!(krippendorff_alpha(&[[1, 0], [0, 1]], Metric::Nominal).is_err(), "nobody to agree with");
    assert!(krippendorff_alpha::<[u64; 2]>(&[], Metric::Nominal).is_err());
    let flat = gwet_ac1(&[[3, 0], [3, 0]]).unwrap();
    assert_eq!(flat.kappa, Kappa::Value(1.0), "AC1 is defined where kappa is not");
    assert!(gwet_ac1(&[[1, 0], [0, 1]]).is_err() && gwet_ac1(&[[3], [3]]).is_err());
    let alone = stats::fleiss_kappa(&[[2, 1]]).unwrap();
    assert_eq!((alone.standard_error, alone.interval(0.95)), (None, Ok(None)));
}

#[test]
fn unbounded_strengths_are_errors() {
    let never_lost = bradley_terry(&[[0.0, 5.0], [0.0, 0.0]]).unwrap_err();
    assert_eq!(never_lost, Error::Unconnected { policy: 1, relation: "lost to" });
    let never_met = bradley_terry(&[[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).unwrap_err();
    assert_eq!(never_met, Error::Unconnected { policy: 2, relation: "beat" });
    assert!(bradley_terry(&[[0.0, f64::NAN], [1.0, 0.0]]).is_err());
    assert!(bradley_terry(&[[0.0, -1.0], [1.0, 0.0]]).is_err());
    assert_eq!(bradley_terry(&[[0.0]]), Err(Error::TooFewClusters { clusters: 1 }));
    let fit = bradley_terry(&[[0.0, 3.0], [1.0, 0.0]]).unwrap();
    assert!((fit.strengths[0] - fit.strengths[1] - 3.0_f64.ln()).abs() < 1e-10);
    assert_eq!(fit.gap(0, 7, 0.95), Err(Error::UnknownPolicy { policy: 7, policies: 2 }));
}

fn observation(seed: u64, question: u64, turn: u64, repeat: u64, score: f64) -> Observation {
    Observation { seed, question, turn, repeat, score }
}

#[test]
fn incomplete_crossed_designs_are_errors() {
    let whole: Vec<Observation> =
        (0..12).map(|i| observation(i / 6, i % 6 / 2, i % 2, 0, i as f64)).collect();
    assert!(CrossedScores::new(whole.clone()).is_ok());
    let hole = CrossedScores::new(whole[1..].to_vec()).unwrap_err();
    assert!(matches!(hole, Error::Incomplete { seed: 0, question: 0, turn: 0, .. }), "{hole}");
    let mut twice = whole.clone();
    twice.push(whole[3]);
    assert!(matches!(CrossedScores::new(twice).unwrap_err(), Error::Incomplete { .. }));
    assert!(CrossedScores::new([]).is_err());
    assert!(CrossedScores::new([observation(0, 0, 0, 0, f64::NAN)]).is_err());
    let one_seed = CrossedScores::new(whole[..6].to_vec()).unwrap();
    let components = one_seed.components().unwrap();
    assert_eq!((components.seed, components.seed_question, components.judge), (None, None, None));
    assert_eq!(components.estimate(Over::SeedsAndQuestions), Err(Error::OneSeed));
    assert!(components.estimate(Over::Questions).is_ok());
    assert_eq!(one_seed.bootstrap(9, 0.95, &mut rng()), Err(Error::OneSeed));
    let all = CrossedScores::new(whole).unwrap();
    assert!(matches!(all.minus(&one_seed).unwrap_err(), Error::OtherDesign { .. }));
    let nothing = all.minus(&all).unwrap().components().unwrap().estimate(Over::SeedsAndQuestions).unwrap();
    assert_eq!((nothing.value, nothing.standard_error), (0.0, 0.0));
    assert_eq!(nothing.interval(0.95).unwrap().high, 0.0);
}

#[test]
fn plans_report_when_seeds_do_not_help() {
    let design = stats::Design { seeds: 4, questions: 80, turns: 2, repeats: 1 };
    let variances = Variances { seed: 0.02, question: 1.0, answer: 1.0, ..Variances::default() };
    let plan = Plan { variances, over: Over::SeedsAndQuestions, level: 0.95 };
    let SeedsNeeded::MoreQuestions { floor } = plan.seeds_needed(0.1, design, 0.8).unwrap() else {
        panic!("80 questions cannot show a tenth of a point")
    };
    assert!((floor - (1.0_f64 / 80.0).sqrt()).abs() < 1e-3, "{floor}");
    let on_these = Plan { over: Over::Seeds, ..plan };
    let SeedsNeeded::Seeds(seeds) = on_these.seeds_needed(0.1, design, 0.8).unwrap() else {
        panic!("seeds are all that varies")
    };
    let power = |seeds| on_these.power(0.1, stats::Design { seeds, ..design }).unwrap();
    assert!(power(seeds) >= 0.8 && power(seeds - 1) < 0.8, "{seeds}");
    assert_eq!(plan.power(0.1, stats::Design { seeds: 1, ..design }), Err(Error::OneSeed));
    assert!(matches!(plan.minimal_detectable_difference(design, 1.0), Err(Error::Power { .. })));
    assert!(matches!(plan.minimal_detectable_difference(design, 0.05), Err(Error::Power { .. })));
    let still = Plan { variances: Variances::default(), ..plan };
    assert_eq!(still.power(0.01, design), Ok(1.0));
    let curve = plan.power_curve(&[0.0, 0.2, 0.4, 0.8, 40.0], design).unwrap();
    assert!((curve[0].1 - 0.05).abs() < 1e-9 && curve.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    assert!(curve[4].1 > 1.0 - 1e-9, "a huge shift is found: {}", curve[4].1);
}

fn checkpoint(progress: f64, training_loss: f64, mean: f64, noise: f64) -> Checkpoint {
    let score = |q: u64| mean + noise * ((q as f64 + 7.0 * progress) * 2.3).sin();
    Checkpoint {
        progress,
        training_loss,
        scores: ClusteredScores::new((0..80).map(|q| (q, score(q)))).unwrap(),
        held_out_margin: Some(1.0 - progress / 2.0),
        held_out_accuracy: Some(0.7),
        answer_length: Some(100.0 * progress),
        kl: None,
    }
}

#[test]
fn overfitting_needs_a_significant_fall() {
    let draws = Resamples::draw(80, 1_000, &mut rng()).unwrap();
    let verdict = |series: &[Checkpoint]| judge_overfitting(series, 0.3, 0.95, &draws).unwrap();
    let fall =
        [checkpoint(0.5, 0.4, 7.0, 1.0), checkpoint(0.75, 0.2, 6.5, 1.0), checkpoint(1.0, 0.1, 5.5, 1.0)];
    let found = verdict(&fall);
    assert_eq!((found.verdict, found.peak), (OverfittingVerdict::Overfits, 0.5));
    assert!((found.drop - 1.5).abs() < 0.1 && found.drop_low > 1.0 && found.drop_high < 2.0, "{found:?}");
    assert_eq!(found.signs, [Sign::HeldOutMarginFell(0.25), Sign::AnswersGrew(50.0)]);
    let unstable = [checkpoint(0.5, 0.1, 7.0, 1.0), checkpoint(1.0, 0.4, 5.5, 1.0)];
    assert_eq!(verdict(&unstable).verdict, OverfittingVerdict::Degrades);
    let rising = [checkpoint(0.5, 0.4, 5.0, 0.2), checkpoint(1.0, 0.1, 7.0, 0.2)];
    let found = verdict(&rising);
    assert_eq!((found.verdict, found.drop, found.peak), (OverfittingVerdict::NoOverfitting, 0.0, 1.0));
    let noisy = [checkpoint(0.5, 0.4, 7.0, 4.0), checkpoint(1.0, 0.1, 6.9, 4.0)];
    assert_eq!(verdict(&noisy).verdict, OverfittingVerdict::Undecided);
    assert!(judge_overfitting(&noisy[..1], 0.3, 0.95, &draws).is_err());
    assert!(matches!(judge_overfitting(&noisy, 0.0, 0.95, &draws), Err(Error::Margin { .. })));
    let mut lossless = noisy.to_vec();
    lossless[0].training_loss = f64::NAN;
    assert!(judge_overfitting(&lossless, 0.3, 0.95, &draws).is_err());
}

proptest! {
    #[test]
    fn tests_are_symmetric(halves in vec(-12_i8..12, 1..14)) {
        let differences: Vec<f64> = halves.iter().map(|&half| f64::from(half) / 2.0).collect();
        let mirrored: Vec<f64> = differences.iter().map(|difference| -difference).collect();
        let flips = |d: &[f64]| sign_flip_test(d, &mut rng()).unwrap().p_value;
        prop_assert!((flips(&differences) - flips(&mirrored)).abs() < 1e-12);
        let ranks = |d: &[f64]| wilcoxon_test(d, Zeros::Dropped).unwrap();
        let (one, other) = (ranks(&differences), ranks(&mirrored));
        prop_assert_eq!((one.w_plus, one.w_minus), (other.w_minus, other.w_plus));
        prop_assert!((one.p.p_value - other.p.p_value).abs() < 1e-12);
        let centre = |d: &[f64]| hodges_lehmann(d, 0.9).unwrap();
        prop_assert_eq!(centre(&differences).centre, -centre(&mirrored).centre);
        prop_assert_eq!(centre(&differences).low, -centre(&mirrored).high);
    }

    #[test]
    fn adjusted_p_values_are_larger_and_keep_their_order(p in vec(0.0..=1.0_f64, 1..30)) {
        let (strict, lenient) = (holm(&p).unwrap(), benjamini_hochberg(&p).unwrap());
        for i in 0..p.len() {
            prop_assert!(p[i] <= lenient[i] + 1e-12 && lenient[i] <= strict[i] + 1e-12 && strict[i] <= 1.0);
            for j in 0..p.len() {
                prop_assert!(p[i] > p[j] || (strict[i] <= strict[j] && lenient[i] <= lenient[j]));
            }
        }
    }

    #[test]
    fn exact_intervals_contain_wilsons_center(successes in 0..200_u64, more in 0..200_u64) {
        prop_assume!(successes + more > 0);
        let exact = clopper_pearson_interval(successes, successes + more, 0.95).unwrap();
        let share = successes as f64 / (successes + more) as f64;
        prop_assert!(0.0 <= exact.low && exact.low <= share && share <= exact.high && exact.high <= 1.0);
    }

    #[test]
    fn tau_and_rho_agree_on_direction_at_the_extremes(values in vec(0..1000_u32, 2..12)) {
        let x: Vec<f64> = (0..values.len()).map(|i| i as f64).collect();
        let mut sorted: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        prop_assume!(sorted.len() > 1);
        let x = &x[..sorted.len()];
        prop_assert!((kendall_tau(x, &sorted).unwrap().value - 1.0).abs() < 1e-12);
        prop_assert!((spearman_rho(x, &sorted).unwrap().value - 1.0).abs() < 1e-12);
    }
}
