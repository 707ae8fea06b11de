//! Properties of functions for arbitrary scores, votes and ratings, and their errors.

use proptest::{collection::vec, prelude::*};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use stats::Choice::{Equal, Model1, Model2};
use stats::{
    Choice, ClusteredScores, Error, Estimate, Kappa, Split, SplitPolicy, Tally, ThreeWaySplit, TwoWaySplit,
    choice_counts, fleiss_kappa, majority_vote, mean_interval, paired_difference_interval, randolph_kappa,
    sign_test, wilson_interval,
};

/// Room for sums in another order, on scores up to 10.
const ROUNDING: f64 = 1e-9;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(3)
}

fn scores(rows: &[(u64, f64)]) -> ClusteredScores {
    ClusteredScores::new(rows.iter().copied()).unwrap()
}

fn interval(rows: &[(u64, f64)], level: f64) -> Estimate {
    mean_interval(&scores(rows), 200, level, &mut rng()).unwrap()
}

/// Rows of two to nine clusters, scores on half points.
fn any_rows() -> impl Strategy<Value = Vec<(u64, f64)>> {
    let row = (0..9_u64, (2..=20_u8).prop_map(|half_points| f64::from(half_points) / 2.0));
    vec(row, 2..60).prop_filter("two clusters", |rows| rows.iter().any(|row| row.0 != rows[0].0))
}

fn any_choice() -> impl Strategy<Value = Choice> {
    prop_oneof![Just(Model1), Just(Model2), Just(Equal)]
}

/// Tables of ratings with the same number of raters for every item.
fn any_counts() -> impl Strategy<Value = Vec<[u64; 3]>> {
    (2..6_usize, 1..20_usize)
        .prop_flat_map(|(raters, items)| vec(vec(any_choice(), raters), items))
        .prop_map(|items| choice_counts(&items))
}

proptest! {
    #[test]
    fn wider_levels_give_wider_intervals_around_the_resamples_median(rows in any_rows(), level in 0.01..0.99) {
        let (median, narrow, wide) = (interval(&rows, 1e-12), interval(&rows, level), interval(&rows, 0.995));
        prop_assert!((median.high - median.low).abs() < ROUNDING);
        prop_assert!(wide.low <= narrow.low && narrow.low <= median.low + ROUNDING);
        prop_assert!(median.high <= narrow.high + ROUNDING && narrow.high <= wide.high);
        prop_assert_eq!(median.value, wide.value);
    }

    #[test]
    fn the_order_of_rows_and_the_names_of_clusters_do_not_matter(rows in any_rows().prop_shuffle(), shift in 0..99_u64) {
        let mut sorted = rows.clone();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let renamed: Vec<(u64, f64)> = sorted.iter().map(|(id, value)| (id * 2 + shift, *value)).collect();
        let (one, other) = (interval(&rows, 0.9), interval(&renamed, 0.9));
        for (a, b) in [(one.value, other.value), (one.low, other.low), (one.high, other.high)] {
            prop_assert!((a - b).abs() < ROUNDING);
        }
    }

    #[test]
    fn scores_and_interval_move_and_stretch_together(rows in any_rows(), shift in -5.0..5.0_f64, stretch in 0.1..3.0_f64) {
        let moved: Vec<(u64, f64)> = rows.iter().map(|(id, value)| (*id, value * stretch + shift)).collect();
        let (one, other) = (interval(&rows, 0.9), interval(&moved, 0.9));
        for (a, b) in [(one.value, other.value), (one.low, other.low), (one.high, other.high)] {
            prop_assert!((a * stretch + shift - b).abs() < ROUNDING);
        }
    }

    #[test]
    fn a_difference_changes_its_sign_with_its_sides(rows in any_rows(), others in any_rows()) {
        let others: Vec<(u64, f64)> = rows.iter().zip(others.iter().cycle()).map(|(a, b)| (a.0, b.1)).collect();
        let (a, b) = (scores(&rows), scores(&others));
        let one = paired_difference_interval(&a, &b, 200, 0.9, &mut rng()).unwrap();
        let other = paired_difference_interval(&b, &a, 200, 0.9, &mut rng()).unwrap();
        for (x, y) in [(one.value, other.value), (one.low, other.high), (one.high, other.low)] {
            prop_assert!((x + y).abs() < ROUNDING);
        }
        let same = paired_difference_interval(&a, &a, 200, 0.9, &mut rng()).unwrap();
        prop_assert_eq!((same.value, same.low, same.high), (0.0, 0.0, 0.0), "hardness cancels out");
    }

    #[test]
    fn wilson_intervals_contain_the_proportion_and_are_symmetric(trials in 1..500_u64, part in 0.0..=1.0_f64, level in 0.01..0.999) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and `trials`")]
        let successes = (part * trials as f64) as u64;
        let proportion = successes as f64 / trials as f64;
        let interval = wilson_interval(successes, trials, level).unwrap();
        prop_assert!(0.0 <= interval.low && interval.low <= proportion + ROUNDING);
        prop_assert!(proportion - ROUNDING <= interval.high && interval.high <= 1.0);
        let mirrored = wilson_interval(trials - successes, trials, level).unwrap();
        prop_assert!((interval.low + mirrored.high - 1.0).abs() < ROUNDING);
    }

    #[test]
    fn mid_p_is_below_p_and_both_are_probabilities(wins in 0..400_u64, losses in 0..400_u64) {
        let test = sign_test(wins, losses);
        prop_assert!(0.0 < test.mid_p_value && test.mid_p_value <= test.p_value && test.p_value <= 1.0);
        prop_assert_eq!(test, sign_test(losses, wins));
    }

    #[test]
    fn win_rates_of_both_sides_add_up(wins_model_1 in 0..99_u64, wins_model_2 in 0..99_u64, ties in 0..99_u64) {
        let tally = Tally { wins_model_1, wins_model_2, ties };
        prop_assume!(tally.decisive() > 0);
        let sum = |rate: fn(&Tally) -> Option<f64>| rate(&tally).unwrap() + rate(&tally.swapped()).unwrap();
        prop_assert!((sum(Tally::decisive_win_rate) - 1.0).abs() < ROUNDING);
        prop_assert!((sum(Tally::adjusted_win_rate) - 1.0).abs() < ROUNDING);
        prop_assert!(sum(Tally::win_rate) <= 1.0 + ROUNDING);
    }

    #[test]
    fn kappa_is_at_most_one_and_blind_to_order(counts in any_counts().prop_shuffle()) {
        let agreement = fleiss_kappa(&counts).unwrap();
        let mut sorted: Vec<[u64; 3]> = counts.iter().map(|&[a, b, c]| [c, a, b]).collect();
        sorted.sort_unstable();
        let other = fleiss_kappa(&sorted).unwrap();
        match (agreement.kappa, other.kappa) {
            (Kappa::Value(a), Kappa::Value(b)) => {
                prop_assert!(a <= 1.0 + ROUNDING && (a - b).abs() < ROUNDING);
                let unanimous = counts.iter().all(|row| row.contains(&agreement.raters));
                prop_assert_eq!(unanimous, (a - 1.0).abs() < ROUNDING);
            }
            (a, b) => {
                prop_assert_eq!((a, b), (Kappa::Undefined, Kappa::Undefined));
                prop_assert!((0..3).any(|j| counts.iter().all(|row| row[j] == agreement.raters)));
            }
        }
    }

    #[test]
    fn a_vote_is_blind_to_the_order_of_raters_and_fair_to_both_models(ratings in vec(any_choice(), 1..8)) {
        let decide = |ratings: &[Choice]| majority_vote(&[ratings], SplitPolicy::default()).unwrap().verdicts[0];
        let mut sorted = ratings.clone();
        sorted.sort_unstable();
        prop_assert_eq!(decide(&ratings), decide(&sorted));
        let swap = |choice| match choice { Model1 => Model2, Model2 => Model1, Equal => Equal };
        let swapped: Vec<Choice> = ratings.iter().copied().map(swap).collect();
        prop_assert_eq!(decide(&ratings).choice.map(swap), decide(&swapped).choice);
        let most = Choice::ALL.map(|choice| ratings.iter().filter(|&&rating| rating == choice).count());
        if let Some(winner) = Choice::ALL.into_iter().zip(most).find(|(_, votes)| 2 * votes > ratings.len()) {
            prop_assert_eq!(decide(&ratings).choice, Some(winner.0), "more than half of the votes always wins");
        }
    }
}

#[test]
fn bootstraps_refuse_what_they_cannot_resample() {
    let two = scores(&[(1, 5.0), (2, 6.0)]);
    let one = scores(&[(1, 5.0), (1, 6.0)]);
    assert_eq!(mean_interval(&one, 9, 0.95, &mut rng()), Err(Error::TooFewClusters { clusters: 1 }));
    assert_eq!(mean_interval(&scores(&[]), 9, 0.95, &mut rng()), Err(Error::TooFewClusters { clusters: 0 }));
    assert_eq!(mean_interval(&two, 0, 0.95, &mut rng()), Err(Error::NoResamples));
    for level in [0.0, 1.0, -1.0, 95.0, f64::NAN] {
        assert!(matches!(mean_interval(&two, 9, level, &mut rng()), Err(Error::Level { .. })), "{level}");
    }
    let other = scores(&[(2, 5.0), (3, 6.0), (4, 1.0)]);
    let unpaired = paired_difference_interval(&two, &other, 9, 0.95, &mut rng()).unwrap_err();
    assert_eq!(unpaired, Error::UnpairedClusters { only_first: vec![1], only_second: vec![3, 4] });
    assert!(unpaired.to_string().contains("[1]") && unpaired.to_string().contains("[3, 4]"));
    for value in [f64::NAN, f64::INFINITY] {
        let refused = ClusteredScores::new([(81, 1.0), (82, value)]).unwrap_err();
        assert!(matches!(refused, Error::NotFinite { row: 1, cluster: 82, .. }), "{refused}");
    }
}

#[test]
fn clusters_not_values_are_resampled() {
    // Two equal values per cluster: an interval over values would be narrower by √2.
    let once: Vec<(u64, f64)> = (0..40).map(|id| (id, f64::from(u8::try_from(id % 10).unwrap()))).collect();
    let twice: Vec<(u64, f64)> = once.iter().chain(&once).copied().collect();
    assert_eq!(interval(&once, 0.95), interval(&twice, 0.95));
}

#[test]
fn three_clusters_give_the_exact_distribution() {
    // Means of 0, 3 and 6 over the 27 equally likely resamples: 1/27 of them are 0, 3/27 are 1, 6/27 are 2, ...
    let estimate = mean_interval(&scores(&[(1, 0.0), (2, 3.0), (3, 6.0)]), 20_000, 0.8, &mut rng()).unwrap();
    assert_eq!((estimate.value, estimate.low, estimate.high), (3.0, 1.0, 5.0));
    let wide = mean_interval(&scores(&[(1, 0.0), (2, 3.0), (3, 6.0)]), 20_000, 0.95, &mut rng()).unwrap();
    assert_eq!((wide.low, wide.high), (0.0, 6.0));
    assert!(wide.excludes(6.5) && wide.excludes(-0.1) && !wide.excludes(0.0));
}

#[test]
fn split_votes_go_by_the_policy() {
    let items: [&[Choice]; 6] = [
        &[Model1, Model1, Equal],
        &[Model1, Model2, Equal],
        &[Model1, Model1, Model2, Model2],
        &[Model2, Equal],
        &[Equal, Equal, Model1, Model1, Model2],
        &[Model2],
    ];
    let votes = |policy| majority_vote(&items, policy).unwrap();
    let choices = |policy| votes(policy).verdicts.iter().map(|verdict| verdict.choice).collect::<Vec<_>>();

    let by_default = votes(SplitPolicy::default());
    assert_eq!(by_default.tally(), Tally { wins_model_1: 1, wins_model_2: 1, ties: 4 });
    assert_eq!([Split::No, Split::TwoWay, Split::ThreeWay].map(|split| by_default.splits(split)), [2, 3, 1]);
    assert_eq!(by_default.undecided(), 0);

    let leaning = SplitPolicy { two_way: TwoWaySplit::Leaning, three_way: ThreeWaySplit::Equal };
    assert_eq!(
        choices(leaning),
        [Some(Model1), Some(Equal), Some(Equal), Some(Model2), Some(Model1), Some(Model2)]
    );
    let undecided = SplitPolicy { two_way: TwoWaySplit::Undecided, three_way: ThreeWaySplit::Undecided };
    assert_eq!(choices(undecided), [Some(Model1), None, None, None, None, Some(Model2)]);
    assert_eq!(votes(undecided).undecided(), 4);

    let nobody: [&[Choice]; 2] = [&[Model1], &[]];
    assert_eq!(majority_vote(&nobody, leaning), Err(Error::NoVotes { item: 1 }));
}

#[test]
fn kappas_refuse_tables_that_are_not_of_one_piece() {
    assert_eq!(fleiss_kappa::<[u64; 2]>(&[]), Err(Error::TooFew { what: "items", needed: 1 }));
    assert_eq!(fleiss_kappa(&[[1, 0]]), Err(Error::TooFew { what: "raters", needed: 2 }));
    let unequal = fleiss_kappa(&[[3, 0], [1, 1]]);
    assert_eq!(unequal, Err(Error::UnequalRaters { item: 1, raters: 2, expected: 3 }));
    let ragged = fleiss_kappa(&[vec![3, 0], vec![1, 1, 1]]);
    assert_eq!(ragged, Err(Error::UnequalCategories { item: 1, categories: 3, expected: 2 }));
    let one_category = fleiss_kappa(&[[3, 0], [3, 0]]).unwrap();
    assert_eq!(
        (one_category.kappa, one_category.observed, one_category.expected),
        (Kappa::Undefined, 1.0, 1.0)
    );
    assert_eq!(one_category.kappa.value(), None);
    assert_eq!(randolph_kappa(&[[3, 0], [3, 0]]).unwrap().kappa, Kappa::Value(1.0));
    assert_eq!(randolph_kappa(&[[3], [3]]).unwrap().kappa, Kappa::Undefined);
}

#[test]
fn proportions_of_nothing_are_refused() {
    assert_eq!(wilson_interval(0, 0, 0.95), Err(Error::Proportion { successes: 0, trials: 0 }));
    assert_eq!(wilson_interval(2, 1, 0.95), Err(Error::Proportion { successes: 2, trials: 1 }));
    assert!(matches!(wilson_interval(1, 2, 1.0), Err(Error::Level { .. })));
    let nothing = Tally::default();
    assert_eq!(
        (nothing.win_rate(), nothing.decisive_win_rate(), nothing.adjusted_win_rate()),
        (None, None, None)
    );
    assert!(nothing.win_rate_interval(0.95).is_err());
}

#[test]
fn choices_are_written_as_ratings_files_write_them() {
    let written = serde_json::to_string(&Choice::ALL).unwrap();
    assert_eq!(written, r#"["model_1","model_2","equal"]"#);
    assert_eq!(serde_json::from_str::<Vec<Choice>>(&written).unwrap(), Choice::ALL);
}
