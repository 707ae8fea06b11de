//! Coverage of intervals, level of tests and power on simulated studies of the shape of MT-Bench: 80 questions of two
//! turns, scores on half points with a ceiling at 10.
//!
//! Each test simulates few studies by default. `cargo test -p stats --test calibration -- --nocapture --include-ignored`
//! simulates enough for the figures of the README, and prints them.
#![expect(clippy::print_stdout, reason = "the README has the printed figures")]

use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rayon::prelude::*;
use statrs::function::erf::erfc;
use stats::{
    Alternative, ClusteredScores, CrossedScores, Design, Equivalence, Interval, MeanEstimate, Method,
    Observation, Over, Plan, PooledSeeds, Pooling, Resamples, Variances, Zeros, all_pairs,
    difference_interval, equivalence_test, equivalence_tests, holm, mean_intervals, select_by_cross_fitting,
    sign_flip_test, wilcoxon_test,
};

/// How many studies a test simulates, and what their number adds to the accepted bands.
#[derive(Clone, Copy)]
struct Effort {
    studies: usize,
    slack: f64,
}

/// About two standard errors of 95% among the studies.
const QUICK: Effort = Effort { studies: 300, slack: 0.025 };
const FULL: Effort = Effort { studies: 2_000, slack: 0.0 };

impl Effort {
    fn share(self, hits: usize) -> f64 {
        hits as f64 / self.studies as f64
    }

    fn accepts(self, band: &std::ops::RangeInclusive<f64>, share: f64) -> bool {
        (band.start() - self.slack..=band.end() + self.slack).contains(&share)
    }
}

const QUESTIONS: u64 = 80;
const TURNS: u64 = 2;
/// Accepted coverage of 95% intervals.
const COVERAGE: std::ops::RangeInclusive<f64> = 0.93..=0.97;
/// Seeds and their standard deviation for which one degree of freedom is too few; the README warns.
const TOO_FEW: (u64, f64) = (2, 0.5);
const BELOW: std::ops::RangeInclusive<f64> = 0.85..=0.93;
/// Accepted level of tests at 5%: three standard errors of 2,000 studies.
const LEVEL: std::ops::RangeInclusive<f64> = 0.035..=0.065;

/// Normal deviates of a seeded generator (Box and Muller).
struct Normal(ChaCha8Rng);

impl Normal {
    fn draw(&mut self, deviation: f64) -> f64 {
        let (u, v): (f64, f64) = (1.0 - self.0.random::<f64>(), self.0.random());
        deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// Standard deviations of a population of policies, questions and answers. Latent qualities are normal; the judge
/// rounds them to half points.
#[derive(Clone, Copy)]
struct World {
    mean: f64,
    seed: f64,
    /// Of a seed's effect on all policies alike.
    shared_seed: f64,
    question: f64,
    seed_question: f64,
    policy_question: f64,
    turn: f64,
    answer: f64,
}

/// Standard deviations similar to the sandbox and to published MT-Bench runs. One answer in five has a score of 10.
const WORLD: World = World {
    mean: 7.6,
    seed: 0.15,
    shared_seed: 0.0,
    question: 1.6,
    seed_question: 0.7,
    policy_question: 0.0,
    turn: 0.6,
    answer: 1.3,
};

fn judged(quality: f64) -> f64 {
    ((2.0 * quality).round() / 2.0).clamp(1.0, 10.0)
}

impl World {
    /// The mean score of the whole population, exactly: the latent quality is normal.
    fn truth(&self) -> f64 {
        let squares =
            [self.seed, self.question, self.seed_question, self.policy_question, self.turn, self.answer]
                .map(|s| s * s);
        let deviation = squares.iter().sum::<f64>().sqrt();
        let below = |x: f64| 0.5 * erfc(-(x - self.mean) / deviation / std::f64::consts::SQRT_2);
        // E = 1 + ½ Σ P(score ≥ 1.5), P(score ≥ 2), …
        1.0 + (3..=20).map(|half| 0.5 * (1.0 - below(f64::from(half) / 2.0 - 0.25))).sum::<f64>()
    }

    /// Scores of several seeds of each of `shifts`' policies, on the same new questions.
    fn study(&self, seeds: u64, shifts: &[f64], normal: &mut Normal) -> Vec<Vec<Observation>> {
        self.study_of(seeds, shifts, &vec![self.seed; shifts.len()], normal)
    }

    /// As `study`, with a standard deviation of seeds for each policy.
    fn study_of(
        &self,
        seeds: u64,
        shifts: &[f64],
        deviations: &[f64],
        normal: &mut Normal,
    ) -> Vec<Vec<Observation>> {
        let mut policies = vec![Vec::new(); shifts.len()];
        let mut seed_effects: Vec<Vec<f64>> =
            deviations.iter().map(|&s| (0..seeds).map(|_| normal.draw(s)).collect()).collect();
        if self.shared_seed > 0.0 {
            let shared: Vec<f64> = (0..seeds).map(|_| normal.draw(self.shared_seed)).collect();
            for of_policy in &mut seed_effects {
                of_policy.iter_mut().zip(&shared).for_each(|(effect, shared)| *effect += shared);
            }
        }
        for question in 0..QUESTIONS {
            let hardness = normal.draw(self.question);
            let turns: Vec<f64> = (0..TURNS).map(|_| normal.draw(self.turn)).collect();
            for (policy, shift) in shifts.iter().enumerate() {
                let taste = if self.policy_question > 0.0 { normal.draw(self.policy_question) } else { 0.0 };
                for seed in 0..seeds {
                    let cell = normal.draw(self.seed_question);
                    for turn in 0..TURNS {
                        let base = self.mean + shift + taste + hardness + turns[turn as usize] + cell;
                        let quality = base + seed_effects[policy][seed as usize] + normal.draw(self.answer);
                        policies[policy].push(Observation {
                            seed,
                            question,
                            turn,
                            repeat: 0,
                            score: judged(quality),
                        });
                    }
                }
            }
        }
        policies
    }
}

fn clustered(rows: &[Observation]) -> ClusteredScores {
    ClusteredScores::new(rows.iter().map(|row| (row.question, row.score))).unwrap()
}

#[test]
fn bootstrap_intervals_have_nominal_coverage() {
    check_bootstrap_intervals_have_nominal_coverage(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn bootstrap_intervals_have_nominal_coverage_in_many_studies() {
    check_bootstrap_intervals_have_nominal_coverage(FULL);
}

fn check_bootstrap_intervals_have_nominal_coverage(effort: Effort) {
    // One model: its seed's effect is part of what is estimated, so there is none here.
    let world = World { seed: 0.0, ..WORLD };
    let better = World { mean: world.mean + 0.5, ..world };
    let (truth, difference) = (world.truth(), better.truth() - world.truth());
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(11));
    let mut hits = [[0; 2]; 2];
    for _ in 0..effort.studies {
        let policies = world.study(1, &[0.0, 0.5], &mut normal);
        let (base, other) = (clustered(&policies[0]), clustered(&policies[1]));
        let draws = Resamples::draw(80, 1_000, &mut normal.0).unwrap();
        for (method, hits) in [Method::Percentile, Method::Bca].into_iter().zip(&mut hits) {
            let mean = mean_intervals(&[&base], &draws, 0.95, method).unwrap()[0];
            let gap = difference_interval(&other, &base, &draws, 0.95, method).unwrap();
            hits[0] += usize::from(!mean.excludes(truth));
            hits[1] += usize::from(!gap.excludes(difference));
        }
    }
    for (method, hits) in ["percentile", "BCa"].into_iter().zip(hits) {
        println!(
            "| {method} | mean {:.3} | paired difference {:.3} |",
            effort.share(hits[0]),
            effort.share(hits[1])
        );
        assert!(hits.iter().all(|&hits| effort.accepts(&COVERAGE, effort.share(hits))), "{method}: {hits:?}");
    }
}

#[test]
fn intervals_over_seeds_have_nominal_coverage() {
    check_intervals_over_seeds_have_nominal_coverage(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn intervals_over_seeds_have_nominal_coverage_in_many_studies() {
    check_intervals_over_seeds_have_nominal_coverage(FULL);
}

fn check_intervals_over_seeds_have_nominal_coverage(effort: Effort) {
    let studies =
        [(2, 0.0), (2, 0.15), (2, 0.25), (2, 0.5), (4, 0.0), (4, 0.15), (4, 0.25), (4, 0.5), (8, 0.25)];
    for (seeds, deviation) in studies {
        let world = World { seed: deviation, ..WORLD };
        let (truth, mut hits, mut naive) = (world.truth(), 0, 0);
        let mut normal = Normal(ChaCha8Rng::seed_from_u64(12));
        let holds = |interval: Interval| interval.low <= truth && truth <= interval.high;
        for _ in 0..effort.studies {
            let rows = world.study(seeds, &[0.0], &mut normal).remove(0);
            let components = CrossedScores::new(rows).unwrap().components().unwrap();
            let over = |over: Over| components.estimate(over).unwrap().interval(0.95).unwrap();
            hits += usize::from(holds(over(Over::SeedsAndQuestions)));
            naive += usize::from(holds(over(Over::Questions)));
        }
        println!("| {seeds} | {deviation} | {:.3} | {:.3} |", effort.share(hits), effort.share(naive));
        let expected = if (seeds, deviation) == TOO_FEW { BELOW } else { COVERAGE };
        assert!(
            effort.accepts(&expected, effort.share(hits)),
            "{seeds} seeds that vary by {deviation}: {}",
            effort.share(hits)
        );
    }
}

#[test]
fn the_bootstrap_over_seeds_and_questions_covers_at_eight_seeds() {
    const FEWER: usize = 500;
    let world = World { seed: 0.25, ..WORLD };
    let (truth, mut hits) = (world.truth(), 0);
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(16));
    for _ in 0..FEWER {
        let scores = CrossedScores::new(world.study(8, &[0.0], &mut normal).remove(0)).unwrap();
        let mean = scores.bootstrap(400, 0.95, &mut normal.0).unwrap();
        hits += usize::from(!mean.excludes(truth));
    }
    let covered = hits as f64 / FEWER as f64;
    println!("| bootstrap over 8 seeds and questions {covered:.3} |");
    // 500 studies leave an uncertainty of one point, which widens the band.
    assert!((0.92..=0.98).contains(&covered), "{covered}");
}

#[test]
fn tests_keep_their_level() {
    check_tests_keep_their_level(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn tests_keep_their_level_in_many_studies() {
    check_tests_keep_their_level(FULL);
}

fn check_tests_keep_their_level(effort: Effort) {
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(13));
    let mut hits = [0; 2];
    for _ in 0..effort.studies {
        let policies = World { seed: 0.0, ..WORLD }.study(1, &[0.0, 0.0], &mut normal);
        let differences = clustered(&policies[0]).paired_differences(&clustered(&policies[1])).unwrap();
        hits[0] += usize::from(sign_flip_test(&differences, &mut normal.0).unwrap().p_value <= 0.05);
        let ranks = wilcoxon_test(&differences, Zeros::RankedThenDropped).unwrap();
        hits[1] += usize::from(ranks.p.p_value <= 0.05);
    }
    println!("| sign flips {:.3} | signed ranks {:.3} |", effort.share(hits[0]), effort.share(hits[1]));
    assert!(hits.iter().all(|&hits| effort.accepts(&LEVEL, effort.share(hits))), "{hits:?}");
}

#[test]
fn equivalence_tests_keep_their_level() {
    check_equivalence_tests_keep_their_level(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn equivalence_tests_keep_their_level_in_many_studies() {
    check_equivalence_tests_keep_their_level(FULL);
}

fn check_equivalence_tests_keep_their_level(effort: Effort) {
    // A true difference of just the margin: every claim of equivalence is false.
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(14));
    let claims = (0..effort.studies)
        .filter(|_| {
            let differences: Vec<f64> = (0..80).map(|_| 0.5 + normal.draw(1.2)).collect();
            let mean = stats::MeanEstimate::of(&differences).unwrap();
            equivalence_test(&mean, 0.5).unwrap().p_value <= 0.05
        })
        .count();
    println!("| TOST at its margin {:.3} |", effort.share(claims));
    assert!(effort.accepts(&LEVEL, effort.share(claims)), "{claims}");
}

#[test]
fn power_matches_its_prediction() {
    check_power_matches_its_prediction(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn power_matches_its_prediction_in_many_studies() {
    check_power_matches_its_prediction(FULL);
}

fn check_power_matches_its_prediction(effort: Effort) {
    /// Three standard errors of a share of 0.8 among 2,000, and what Satterthwaite's approximation may be off.
    const TOLERANCE: f64 = 0.035;
    let variances =
        Variances { seed: 0.02, question: 0.4, seed_question: 0.5, turn: 0.2, answer: 1.5, judge: 0.0 };
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(15));
    for (over, seeds) in
        [(Over::Questions, 1), (Over::SeedsAndQuestions, 4), (Over::SeedsAndQuestions, 8), (Over::Seeds, 4)]
    {
        let plan = Plan { variances, over, level: 0.95 };
        let design = Design { seeds, questions: 80, turns: 2, repeats: 1 };
        let difference = plan.minimal_detectable_difference(design, 0.8).unwrap();
        let kept = |fixed: bool, variance: f64| if fixed { 0.0 } else { variance.sqrt() };
        let seed_effect = kept(over == Over::Questions, variances.seed);
        let question_effect = kept(over == Over::Seeds, variances.question);
        let turn_effect = kept(over == Over::Seeds, variances.turn);
        let mut found = 0;
        for _ in 0..effort.studies {
            let by_seed: Vec<f64> = (0..seeds).map(|_| normal.draw(seed_effect)).collect();
            let mut rows = Vec::new();
            for question in 0..80 {
                let of_question = difference + normal.draw(question_effect);
                let of_turns = [normal.draw(turn_effect), normal.draw(turn_effect)];
                for (seed, of_seed) in (0..).zip(&by_seed) {
                    let cell = of_question + of_seed + normal.draw(variances.seed_question.sqrt());
                    rows.extend((0..).zip(of_turns).map(|(turn, of_turn)| Observation {
                        seed,
                        question,
                        turn,
                        repeat: 0,
                        score: cell + of_turn + normal.draw(variances.answer.sqrt()),
                    }));
                }
            }
            let components = CrossedScores::new(rows).unwrap().components().unwrap();
            let interval = components.estimate(over).unwrap().interval(0.95).unwrap();
            found += usize::from(interval.low > 0.0 || interval.high < 0.0);
        }
        println!("| {over:?} | {seeds} | {difference:.3} | {:.3} |", effort.share(found));
        assert!(
            (effort.share(found) - 0.8).abs() < TOLERANCE + effort.slack,
            "{over:?}, {seeds} seeds: {}",
            effort.share(found)
        );
    }
}

const CELLS: usize = 8;
/// Differences from the first cell, as in a study with six comparisons.
const COMPARISONS: usize = 6;
/// One in so many studies, since each has six differences.
const CELLS_A_STUDY: usize = 2;

/// The differences of six cells from the first one in a study whose cells all have the same true score: with pooled
/// seed variances of independent and of paired seeds, and each with its own.
fn null_differences(world: World, seeds: u64, study: u64) -> [Vec<MeanEstimate>; 3] {
    let mut rng = ChaCha8Rng::seed_from_u64(20);
    rng.set_stream(study);
    let rows = world.study(seeds, &[0.0; CELLS], &mut Normal(rng));
    let cells: Vec<CrossedScores> = rows.into_iter().map(|rows| CrossedScores::new(rows).unwrap()).collect();
    let of = |pooling| -> Vec<MeanEstimate> {
        let study = PooledSeeds::new(cells.iter().map(|cell| (0, cell)), pooling).unwrap();
        (1..=COMPARISONS).map(|cell| study.difference(cell, 0).unwrap()).collect()
    };
    let alone = cells[1..=COMPARISONS].iter().map(|cell| {
        let components = cell.minus(&cells[0]).unwrap().components().unwrap();
        components.estimate(Over::SeedsAndQuestions).unwrap()
    });
    [of(Pooling::Pooled), of(Pooling::Paired), alone.collect()]
}

/// Returns the coverage of 95% intervals of differences of 0, and the familywise error under Holm at 5%.
fn coverage_and_familywise_error(studies: &[Vec<MeanEstimate>]) -> (f64, f64) {
    let (mut covered, mut erred) = (0, 0);
    for differences in studies {
        let p_values: Vec<f64> = differences.iter().map(MeanEstimate::p_value).collect();
        covered += p_values.iter().filter(|&&p| p > 0.05).count();
        erred += usize::from(holm(&p_values).unwrap().iter().any(|&p| p <= 0.05));
    }
    let differences = studies.iter().map(Vec::len).sum::<usize>();
    (covered as f64 / differences as f64, erred as f64 / studies.len() as f64)
}

#[test]
fn pooled_seed_variances_give_nominal_coverage_and_familywise_error() {
    check_pooled_seed_variances_give_nominal_coverage_and_familywise_error(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn pooled_seed_variances_give_nominal_coverage_and_familywise_error_in_many_studies() {
    check_pooled_seed_variances_give_nominal_coverage_and_familywise_error(FULL);
}

fn check_pooled_seed_variances_give_nominal_coverage_and_familywise_error(effort: Effort) {
    // The seeds of the last world have an effect on all cells, as if they chose the data.
    const WORLDS: [(f64, f64); 4] = [(0.0, 0.0), (0.15, 0.0), (0.3, 0.0), (0.15, 0.3)];
    for (seeds, (deviation, shared)) in (2..=4).flat_map(|seeds| WORLDS.map(|world| (seeds, world))) {
        let world = World { seed: deviation, shared_seed: shared, policy_question: 0.5, ..WORLD };
        let studies = (0..(effort.studies / CELLS_A_STUDY) as u64).into_par_iter();
        let all: Vec<[Vec<MeanEstimate>; 3]> =
            studies.map(|study| null_differences(world, seeds, study)).collect();
        let of = |at: usize| {
            coverage_and_familywise_error(&all.iter().map(|of| of[at].clone()).collect::<Vec<_>>())
        };
        let [(pooled, pooled_erred), (paired, paired_erred), (alone, alone_erred)] = [of(0), of(1), of(2)];
        println!(
            "| {seeds} | {deviation} | {shared} | {paired:.3} | {paired_erred:.3} | {pooled:.3} | {pooled_erred:.3} | \
             {alone:.3} | {alone_erred:.3} |"
        );
        let what = format!("{seeds} seeds, s.d. {deviation}, shared {shared}");
        let checked = if shared == 0.0 {
            vec![(paired, paired_erred), (pooled, pooled_erred)]
        } else {
            vec![(paired, paired_erred)]
        };
        for (covered, erred) in checked {
            assert!(effort.accepts(&COVERAGE, covered), "{what}: coverage {covered}");
            assert!(erred <= 0.06 + 2.0 * effort.slack, "{what}: familywise error {erred}");
        }
    }
}

#[test]
fn groups_of_cells_with_other_seed_variances_have_nominal_coverage() {
    check_groups_of_cells_with_other_seed_variances_have_nominal_coverage(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn groups_of_cells_with_other_seed_variances_have_nominal_coverage_in_many_studies() {
    check_groups_of_cells_with_other_seed_variances_have_nominal_coverage(FULL);
}

/// Half of the cells have seeds that hardly vary, such as those on clean labels, and half have seeds that vary widely.
fn check_groups_of_cells_with_other_seed_variances_have_nominal_coverage(effort: Effort) {
    const HALF: usize = CELLS / 2;
    let world = World { policy_question: 0.5, ..WORLD };
    let deviations: Vec<f64> = (0..CELLS).map(|cell| if cell < HALF { 0.05 } else { 0.4 }).collect();
    for seeds in 2..=4 {
        let studies = (0..(effort.studies / CELLS_A_STUDY) as u64).into_par_iter();
        let p_values = studies.map(|study| {
            let mut rng = ChaCha8Rng::seed_from_u64(24);
            rng.set_stream(study);
            let rows = world.study_of(seeds, &[0.0; CELLS], &deviations, &mut Normal(rng));
            let cells: Vec<CrossedScores> =
                rows.into_iter().map(|rows| CrossedScores::new(rows).unwrap()).collect();
            let of = |group: fn(usize) -> u64, pairs: [(usize, usize); 3]| {
                let grouped = cells.iter().enumerate().map(|(at, cell)| (group(at), cell));
                let study = PooledSeeds::new(grouped, Pooling::Paired).unwrap();
                pairs.map(|(one, other)| study.difference(one, other).unwrap().p_value())
            };
            let grouped = |at| u64::from(at >= HALF);
            let (clean, wild, across) =
                ([(1, 0), (2, 0), (3, 0)], [(5, 4), (6, 4), (7, 4)], [(4, 0), (5, 1), (6, 2)]);
            [of(grouped, clean), of(grouped, wild), of(grouped, across), of(|_| 0, clean), of(|_| 0, wild)]
        });
        let p_values: Vec<[[f64; 3]; 5]> = p_values.collect();
        let covered = |of: usize| {
            let all = p_values.iter().flat_map(|study| study[of]);
            all.filter(|p| *p > 0.05).count() as f64 / (3 * p_values.len()) as f64
        };
        let [clean, wild, across, clean_alone, wild_alone] = [0, 1, 2, 3, 4].map(covered);
        println!(
            "| {seeds} seeds, groups of s.d. 0.05 and 0.4 | {clean:.3} | {wild:.3} | across {across:.3} | one group: \
             {clean_alone:.3} | {wild_alone:.3} |"
        );
        for covered in [clean, wild, across] {
            assert!(effort.accepts(&COVERAGE, covered), "{seeds} seeds: {covered}");
        }
        assert!(wild_alone < wild + effort.slack, "one variance for all is too small for some cells");
    }
}

#[test]
fn corrected_equivalence_tests_keep_their_familywise_error() {
    check_corrected_equivalence_tests_keep_their_familywise_error(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn corrected_equivalence_tests_keep_their_familywise_error_in_many_studies() {
    check_corrected_equivalence_tests_keep_their_familywise_error(FULL);
}

/// Eight claims whose true differences are just at the margin: every claim of equivalence is false.
fn check_corrected_equivalence_tests_keep_their_familywise_error(effort: Effort) {
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(23));
    let (mut corrected, mut uncorrected) = (0, 0);
    for _ in 0..effort.studies {
        let claims: Vec<MeanEstimate> = (0..8)
            .map(|_| MeanEstimate::of(&(0..80).map(|_| 0.5 + normal.draw(1.2)).collect::<Vec<_>>()).unwrap())
            .collect();
        let erred = |tests: &[Equivalence]| usize::from(tests.iter().any(|test| test.p_value <= 0.05));
        corrected += erred(&equivalence_tests(&claims, 0.5).unwrap());
        let alone: Vec<_> = claims.iter().map(|claim| equivalence_test(claim, 0.5).unwrap()).collect();
        uncorrected += erred(&alone);
    }
    let [corrected, uncorrected] = [corrected, uncorrected].map(|erred| effort.share(erred));
    println!(
        "| eight equivalence tests at the margin | Holm {corrected:.3} | uncorrected {uncorrected:.3} |"
    );
    assert!(corrected <= 0.06 + 2.0 * effort.slack, "{corrected}");
    assert!(uncorrected > 0.2, "{uncorrected}");
}

/// Eleven settings that are all equal to the baseline, as in a sweep of β.
const SETTINGS: usize = 11;
/// One in so many studies, since each has twelve cells.
const SETTINGS_A_STUDY: usize = 5;
/// Three standard errors of 400 studies above 5%.
const LEVEL_OF_SETTINGS: f64 = 0.083;

#[test]
fn selection_by_cross_fitting_keeps_its_level() {
    check_selection_by_cross_fitting_keeps_its_level(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn selection_by_cross_fitting_keeps_its_level_in_many_studies() {
    check_selection_by_cross_fitting_keeps_its_level(FULL);
}

fn check_selection_by_cross_fitting_keeps_its_level(effort: Effort) {
    let all = (effort.studies / SETTINGS_A_STUDY) as u64;
    for seeds in [2, 4] {
        let world = World { seed: 0.15, policy_question: 0.5, ..WORLD };
        let studies = (0..all).into_par_iter();
        let found: Vec<[f64; 3]> = studies
            .map(|study| {
                let mut rng = ChaCha8Rng::seed_from_u64(21);
                rng.set_stream(study);
                let mut normal = Normal(rng);
                let rows = world.study(seeds, &[0.0; SETTINGS + 1], &mut normal);
                let mut cells: Vec<CrossedScores> =
                    rows.into_iter().map(|rows| CrossedScores::new(rows).unwrap()).collect();
                let baseline = cells.pop().unwrap();
                let selection = select_by_cross_fitting(&cells, &baseline, 5, &mut normal.0).unwrap();
                let components = cells[selection.best].minus(&baseline).unwrap().components().unwrap();
                let naive = components.estimate(Over::SeedsAndQuestions).unwrap();
                let rejected = |gain: &MeanEstimate| f64::from(u8::from(gain.p_value() <= 0.05));
                [rejected(&selection.gain), rejected(&naive), selection.gain.value]
            })
            .collect();
        let mean = |column: usize| found.iter().map(|row| row[column]).sum::<f64>() / found.len() as f64;
        println!(
            "| {seeds} | cross-fitting {:.3} | chosen and tested on the same data {:.3} | gain {:.3} |",
            mean(0),
            mean(1),
            mean(2)
        );
        assert!(mean(0) <= LEVEL_OF_SETTINGS + 2.0 * effort.slack, "{seeds} seeds: {}", mean(0));
        assert!(
            effort.slack > 0.0 || mean(1) > mean(0),
            "the test on the same data shows what cross-fitting prevents"
        );
        assert!(mean(2).abs() < 0.05 + effort.slack, "the gain of equal settings is 0: {}", mean(2));
    }
}

#[test]
fn max_contrast_tests_keep_their_level() {
    check_max_contrast_tests_keep_their_level(QUICK);
}

#[test]
#[ignore = "rare: cargo xtask test rare"]
fn max_contrast_tests_keep_their_level_in_many_studies() {
    check_max_contrast_tests_keep_their_level(FULL);
}

fn check_max_contrast_tests_keep_their_level(effort: Effort) {
    let all = (effort.studies / SETTINGS_A_STUDY) as u64;
    let world = World { seed: 0.15, policy_question: 0.5, ..WORLD };
    let rejected: usize = (0..all)
        .into_par_iter()
        .map(|study| {
            let mut rng = ChaCha8Rng::seed_from_u64(22);
            rng.set_stream(study);
            let mut normal = Normal(rng);
            let rows = world.study(3, &[0.0; 5], &mut normal);
            let cells: Vec<CrossedScores> =
                rows.into_iter().map(|rows| CrossedScores::new(rows).unwrap()).collect();
            let study = PooledSeeds::new(cells.iter().map(|cell| (0, cell)), Pooling::Pooled).unwrap();
            let test = study.max_contrast_test(&all_pairs(5), Alternative::TwoSided, 500, &mut normal.0);
            usize::from(test.unwrap().p_value <= 0.05)
        })
        .sum();
    let level = rejected as f64 / all as f64;
    println!("| max-contrast test of all pairs of five cells {level:.3} |");
    assert!(effort.accepts(&(0.02..=LEVEL_OF_SETTINGS), level), "{level}");
}
