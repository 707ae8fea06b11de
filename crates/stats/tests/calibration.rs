//! Whether intervals cover, tests keep their level and power comes out as predicted, on simulated studies that are shaped
//! like MT-Bench: 80 questions of two turns, scores on half points that pile up at 10.
//!
//! `cargo test -p stats --test calibration -- --nocapture` prints the figures that the README shows.

use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use statrs::function::erf::erfc;
use stats::{
    ClusteredScores, CrossedScores, Design, Interval, Method, Observation, Over, Plan, Resamples, Variances,
    Zeros, difference_interval, equivalence_test, mean_intervals, sign_flip_test, wilcoxon_test,
};

const STUDIES: usize = 2_000;
const QUESTIONS: u64 = 80;
const TURNS: u64 = 2;
/// What 95% intervals must cover.
const COVERAGE: std::ops::RangeInclusive<f64> = 0.93..=0.97;
/// Seeds and their standard deviation where a single degree of freedom says too little of how seeds vary: the README warns.
const TOO_FEW: (u64, f64) = (2, 0.5);
const BELOW: std::ops::RangeInclusive<f64> = 0.85..=0.93;
/// How often tests at 5% may find what is not there: 5% with three standard errors of 2,000 studies.
const LEVEL: std::ops::RangeInclusive<f64> = 0.035..=0.065;

/// Normal deviates of a seeded generator (Box and Muller).
struct Normal(ChaCha8Rng);

impl Normal {
    fn draw(&mut self, deviation: f64) -> f64 {
        let (u, v): (f64, f64) = (1.0 - self.0.random::<f64>(), self.0.random());
        deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

/// A population of policies, questions and answers: latent qualities are normal, scores are what a judge makes of them.
#[derive(Clone, Copy)]
struct World {
    mean: f64,
    seed: f64,
    question: f64,
    seed_question: f64,
    turn: f64,
    answer: f64,
}

/// Standard deviations near those of the sandbox and of published MT-Bench runs: questions differ by two points, another
/// seed by a seventh of a point, and one answer in five is a 10.
const WORLD: World =
    World { mean: 7.6, seed: 0.15, question: 1.6, seed_question: 0.7, turn: 0.6, answer: 1.3 };

fn judged(quality: f64) -> f64 {
    ((2.0 * quality).round() / 2.0).clamp(1.0, 10.0)
}

impl World {
    /// The mean score of the whole population, exactly: the latent quality is normal.
    fn truth(&self) -> f64 {
        let squares = [self.seed, self.question, self.seed_question, self.turn, self.answer].map(|s| s * s);
        let deviation = squares.iter().sum::<f64>().sqrt();
        let below = |x: f64| 0.5 * erfc(-(x - self.mean) / deviation / std::f64::consts::SQRT_2);
        // E = 1 + ½ Σ P(score ≥ 1.5), P(score ≥ 2), …
        1.0 + (3..=20).map(|half| 0.5 * (1.0 - below(f64::from(half) / 2.0 - 0.25))).sum::<f64>()
    }

    /// Scores of several seeds of each of `shifts`' policies, on the same new questions.
    fn study(&self, seeds: u64, shifts: &[f64], normal: &mut Normal) -> Vec<Vec<Observation>> {
        let mut policies = vec![Vec::new(); shifts.len()];
        let seed_effects: Vec<Vec<f64>> =
            shifts.iter().map(|_| (0..seeds).map(|_| normal.draw(self.seed)).collect()).collect();
        for question in 0..QUESTIONS {
            let hardness = normal.draw(self.question);
            let turns: Vec<f64> = (0..TURNS).map(|_| normal.draw(self.turn)).collect();
            for (policy, shift) in shifts.iter().enumerate() {
                for seed in 0..seeds {
                    let cell = normal.draw(self.seed_question);
                    for turn in 0..TURNS {
                        let base = self.mean + shift + hardness + turns[turn as usize] + cell;
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

fn share(hits: usize) -> f64 {
    hits as f64 / STUDIES as f64
}

#[test]
fn bootstrap_intervals_cover_what_other_questions_would_say() {
    // One model: its seed's effect is part of what is estimated, so there is none here.
    let world = World { seed: 0.0, ..WORLD };
    let better = World { mean: world.mean + 0.5, ..world };
    let (truth, difference) = (world.truth(), better.truth() - world.truth());
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(11));
    let mut hits = [[0; 2]; 2];
    for _ in 0..STUDIES {
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
        println!("| {method} | mean {:.3} | paired difference {:.3} |", share(hits[0]), share(hits[1]));
        assert!(hits.iter().all(|&hits| COVERAGE.contains(&share(hits))), "{method}: {hits:?}");
    }
}

#[test]
fn intervals_over_seeds_cover_at_two_and_at_four_seeds() {
    let studies =
        [(2, 0.0), (2, 0.15), (2, 0.25), (2, 0.5), (4, 0.0), (4, 0.15), (4, 0.25), (4, 0.5), (8, 0.25)];
    for (seeds, deviation) in studies {
        let world = World { seed: deviation, ..WORLD };
        let (truth, mut hits, mut naive) = (world.truth(), 0, 0);
        let mut normal = Normal(ChaCha8Rng::seed_from_u64(12));
        let holds = |interval: Interval| interval.low <= truth && truth <= interval.high;
        for _ in 0..STUDIES {
            let rows = world.study(seeds, &[0.0], &mut normal).remove(0);
            let components = CrossedScores::new(rows).unwrap().components().unwrap();
            let over = |over: Over| components.estimate(over).unwrap().interval(0.95).unwrap();
            hits += usize::from(holds(over(Over::SeedsAndQuestions)));
            naive += usize::from(holds(over(Over::Questions)));
        }
        println!("| {seeds} | {deviation} | {:.3} | {:.3} |", share(hits), share(naive));
        let expected = if (seeds, deviation) == TOO_FEW { BELOW } else { COVERAGE };
        assert!(expected.contains(&share(hits)), "{seeds} seeds that vary by {deviation}: {}", share(hits));
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
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(13));
    let mut hits = [0; 2];
    for _ in 0..STUDIES {
        let policies = World { seed: 0.0, ..WORLD }.study(1, &[0.0, 0.0], &mut normal);
        let differences = clustered(&policies[0]).paired_differences(&clustered(&policies[1])).unwrap();
        hits[0] += usize::from(sign_flip_test(&differences, &mut normal.0).unwrap().p_value <= 0.05);
        let ranks = wilcoxon_test(&differences, Zeros::RankedThenDropped).unwrap();
        hits[1] += usize::from(ranks.p.p_value <= 0.05);
    }
    println!("| sign flips {:.3} | signed ranks {:.3} |", share(hits[0]), share(hits[1]));
    assert!(hits.iter().all(|&hits| LEVEL.contains(&share(hits))), "{hits:?}");
}

#[test]
fn equivalence_is_claimed_wrongly_as_often_as_it_says() {
    // A true difference of just the margin: every claim of equivalence is false.
    let mut normal = Normal(ChaCha8Rng::seed_from_u64(14));
    let claims = (0..STUDIES)
        .filter(|_| {
            let differences: Vec<f64> = (0..80).map(|_| 0.5 + normal.draw(1.2)).collect();
            let mean = stats::MeanEstimate::of(&differences).unwrap();
            equivalence_test(&mean, 0.5).unwrap().p_value <= 0.05
        })
        .count();
    println!("| TOST at its margin {:.3} |", share(claims));
    assert!(LEVEL.contains(&share(claims)), "{claims}");
}

#[test]
fn power_matches_its_prediction() {
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
        for _ in 0..STUDIES {
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
        println!("| {over:?} | {seeds} | {difference:.3} | {:.3} |", share(found));
        assert!((share(found) - 0.8).abs() < TOLERANCE, "{over:?}, {seeds} seeds: {}", share(found));
    }
}
