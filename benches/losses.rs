//! Losses with their gradients: the closed forms on slices and on tensors, against the same loss composed of ATen
//! operations with autograd.
//!
//! `cargo bench -p pref-loss --bench losses` prints a table in nanoseconds per pair. Times are medians of interleaved
//! runs, so that other load on the machine affects all three equally. With `--features rayon`, slices of a million
//! pairs are computed in parallel.

#![expect(clippy::print_stdout, reason = "a benchmark prints a table")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use pref_loss::{LossOutput, PairBatch, PairLogpTensors, PairLogps, PairTokens, PreferenceLoss};
use tch::{Kind, Tensor};

/// The losses, named as in a recipe.
const LOSSES: [&str; 6] = [
    r#"{"kind": "dpo", "beta": 0.1}"#,
    r#"{"kind": "cdpo", "beta": 0.1, "label_smoothing": 0.1}"#,
    r#"{"kind": "ipo", "beta": 0.1, "reduction": "sum"}"#,
    r#"{"kind": "simpo", "beta": 2.0, "gamma": 1.0}"#,
    r#"{"kind": "nca_pair", "beta": 0.1}"#,
    r#"{"kind": "exo_pair", "beta": 0.1, "label_smoothing": 0.1}"#,
];
const BATCHES: [usize; 3] = [16, 1_000, 1_000_000];
/// The time spent on each cell of the table.
const PATIENCE: Duration = Duration::from_millis(1500);

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (batches, patience) = if is_bench { (&BATCHES[..], PATIENCE) } else { (&[16][..], Duration::ZERO) };
    println!("{} threads, f32; nanoseconds a pair", tch::get_num_threads());
    println!(
        "| loss | pairs | slices | tensor to tensor | ATen with autograd | ATen / slices | ATen / tensors |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for &pairs in batches {
        let input = Input::new(pairs);
        for text in LOSSES {
            let loss: PreferenceLoss = serde_json::from_str(text).expect("a loss");
            let [slices, tensors, aten] = input.measure(&loss, patience).map(|time| time / pairs as f64);
            println!(
                "| {} | {pairs} | {slices:.2} | {tensors:.2} | {aten:.2} | {:.1} | {:.1} |",
                loss.name(),
                aten / slices,
                aten / tensors
            );
        }
    }
}

/// Chosen and rejected log-probabilities of the policy and the reference, and token counts.
struct Input {
    logps: [Vec<f32>; 4],
    tokens: Vec<u32>,
}

impl Input {
    fn new(pairs: usize) -> Self {
        // Any spread of margins around 0 will do: no kernel branches on its data.
        let column =
            |phase: f32| (0..pairs).map(|i| -150.0 + 40.0 * (i as f32 * 0.37 + phase).sin()).collect();
        Self {
            logps: [0.0, 1.0, 2.0, 3.0].map(column),
            tokens: (0..pairs).map(|i| 20 + i as u32 % 80).collect(),
        }
    }

    /// Returns medians in nanoseconds: slices, tensors, ATen.
    fn measure(&self, loss: &PreferenceLoss, patience: Duration) -> [f64; 3] {
        let [chosen, rejected, ref_chosen, ref_rejected] = &self.logps;
        let tokens = PairTokens { chosen: &self.tokens, rejected: &self.tokens };
        let policy = PairLogps { chosen, rejected };
        let reference = PairLogps { chosen: ref_chosen, rejected: ref_rejected };
        let batch = PairBatch::new(policy, reference, tokens).expect("a batch");
        let tensors = |logps: PairLogps<'_, f32>, has_grad| PairLogpTensors {
            chosen: Tensor::from_slice(logps.chosen).set_requires_grad(has_grad),
            rejected: Tensor::from_slice(logps.rejected).set_requires_grad(has_grad),
        };
        let (plain, leaves) = (tensors(policy, false), tensors(policy, true));
        let reference = tensors(reference, false);
        let mut out = LossOutput::with_capacity(self.tokens.len());
        let mut on_slices = || loss.evaluate(black_box(&batch), &mut out).expect("a loss");
        let mut on_tensors =
            || drop(black_box(loss.fused(&plain, Some(&reference), tokens).expect("a loss")));
        let mut with_autograd = || {
            let mean = loss.forward(&leaves, &reference, tokens).expect("a loss").mean(Kind::Float);
            mean.backward();
            for leaf in [&leaves.chosen, &leaves.rejected] {
                let _ = leaf.grad().zero_();
            }
        };
        medians(patience, [&mut on_slices, &mut on_tensors, &mut with_autograd])
    }
}

/// Interleaves samples that are long enough to be measured: each repeats its work until a millisecond has passed.
fn medians(patience: Duration, mut work: [&mut dyn FnMut(); 3]) -> [f64; 3] {
    const SAMPLE: Duration = Duration::from_millis(1);
    let mut samples = [const { Vec::new() }; 3];
    let begin = Instant::now();
    while begin.elapsed() < patience || samples[0].len() < 3 {
        for (work, samples) in work.iter_mut().zip(&mut samples) {
            let (start, mut runs) = (Instant::now(), 0.0);
            while start.elapsed() < SAMPLE {
                work();
                runs += 1.0;
            }
            samples.push(start.elapsed().as_nanos() as f64 / runs);
        }
    }
    samples.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    })
}
