//! Bootstrap intervals of a whole table: 10,000 resamples of 160 scores for each of 20 policies.
//!
//! `cargo bench -p stats --bench bootstrap` prints medians in milliseconds, including the drawing of resamples.
//! `benches/bootstrap.py` compares them with NumPy.

#![expect(clippy::print_stdout, reason = "a benchmark prints a table")]

use std::hint::black_box;
use std::time::Instant;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use stats::{ClusteredScores, Method, Resamples, mean_intervals};

const POLICIES: usize = 20;
const SCORES: u64 = 160;
const RESAMPLES: usize = 10_000;

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let runs = if is_bench { 31 } else { 1 };
    for (name, turns, method) in [
        ("clusters", 2, Method::Percentile),
        ("clusters-bca", 2, Method::Bca),
        ("independent", 1, Method::Percentile),
    ] {
        let policies: Vec<ClusteredScores> = (0..POLICIES).map(|policy| scores(policy, turns)).collect();
        let policies: Vec<&ClusteredScores> = policies.iter().collect();
        let mut times: Vec<f64> = (0..runs)
            .map(|run| {
                let start = Instant::now();
                let rng = &mut ChaCha8Rng::seed_from_u64(run);
                let draws =
                    Resamples::draw(policies[0].clusters(), RESAMPLES, rng).expect("two clusters or more");
                black_box(mean_intervals(&policies, &draws, 0.95, method).expect("draws for these clusters"));
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{name} {:.2}", times[times.len() / 2]);
    }
}

/// Multiples of one half between 1 and 10.
fn scores(policy: usize, turns: u64) -> ClusteredScores {
    let half_points = |row: u64| (row * 7919 + policy as u64 * 104_729) % 19;
    let rows = (0..SCORES).map(|row| (row / turns, 1.0 + half_points(row) as f64 / 2.0));
    ClusteredScores::new(rows).expect("finite scores")
}
