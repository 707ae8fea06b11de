//! Losses with their gradients: the closed forms on slices and on tensors, against the same loss composed of ATen
//! operations with autograd.
//!
//! `cargo bench -p pref-loss --bench losses` prints a table in nanoseconds per pair, and which ratios differ from those in
//! `losses.json`; `-- --save-baseline` writes that file. Times are the least of interleaved runs, which other load on the
//! machine affects least. `-- --large` adds a million pairs, which `--features rayon` computes in parallel.

#![expect(clippy::print_stdout, reason = "a benchmark prints a table")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
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
const BATCHES: [usize; 2] = [16, 1_000];
const LARGE: usize = 1_000_000;
/// A ratio that differs by less is rounding of the clock or load.
const NOTABLE: f64 = 0.25;
/// The time spent on each cell of the table.
const PATIENCE: Duration = Duration::from_millis(1500);

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (mut batches, mut patience) = (BATCHES.to_vec(), PATIENCE);
    if !has("--bench") {
        (batches, patience) = (vec![16], Duration::ZERO);
    } else if has("--large") {
        batches.push(LARGE);
    }
    println!("{} threads, f32; nanoseconds a pair", tch::get_num_threads());
    println!(
        "| loss | pairs | slices | tensor to tensor | ATen with autograd | ATen / slices | ATen / tensors |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let mut ratios = Ratios::new();
    for pairs in batches {
        let input = Input::new(pairs);
        for text in LOSSES {
            let loss: PreferenceLoss = serde_json::from_str(text).expect("a loss");
            let [slices, tensors, aten] = input.measure(&loss, patience).map(|time| time / pairs as f64);
            let name = loss.name();
            println!(
                "| {name} | {pairs} | {slices:.2} | {tensors:.2} | {aten:.2} | {:.1} | {:.1} |",
                aten / slices,
                aten / tensors
            );
            ratios.insert(format!("{name}, {pairs} pairs, ATen / slices"), aten / slices);
            ratios.insert(format!("{name}, {pairs} pairs, ATen / tensors"), aten / tensors);
        }
    }
    if has("--bench") {
        compare(ratios, has("--save-baseline"));
    }
}

/// How many times as long ATen takes: other load on the machine changes these less than times.
type Ratios = BTreeMap<String, f64>;

/// The ratios of an earlier run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Baseline {
    processor: String,
    ratios: Ratios,
}

/// Prints which ratios differ from the baseline's, or makes them the baseline.
fn compare(ratios: Ratios, is_baseline: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/losses.json");
    let processor = processor();
    if is_baseline {
        let rounded = |(name, ratio): (String, f64)| (name, (10.0 * ratio).round() / 10.0);
        let baseline = Baseline { processor, ratios: ratios.into_iter().map(rounded).collect() };
        let text = serde_json::to_string_pretty(&baseline).expect("plain values");
        std::fs::write(path, text + "\n").expect("benches/ is writable");
        return println!("These ratios are the baseline.");
    }
    let text = std::fs::read_to_string(path).expect("benches/losses.json");
    let baseline: Baseline = serde_json::from_str(&text).expect("a baseline");
    let mut changed = 0;
    for (name, ratio) in &ratios {
        let Some(before) = baseline.ratios.get(name) else { continue };
        if (ratio / before).ln().abs() > (1.0 + NOTABLE).ln() {
            changed += 1;
            println!("{name}: {ratio:.1}, before {before:.1}");
        }
    }
    let (of, share) = (ratios.len(), 100.0 * NOTABLE);
    println!("{changed} of {of} ratios differ from the baseline by more than {share:.0}%.");
    if processor != baseline.processor {
        println!(
            "It is that of another processor ({}); `-- --save-baseline` makes one here.",
            baseline.processor
        );
    }
}

/// Returns the name of the processor, as Linux knows it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
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

    /// Returns nanoseconds: slices, tensors, ATen.
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
        fastest(patience, [&mut on_slices, &mut on_tensors, &mut with_autograd])
    }
}

/// Interleaves samples that are long enough to be measured: each repeats its work until a millisecond has passed. Returns the
/// least of each, which other load on the machine disturbs least.
fn fastest(patience: Duration, mut work: [&mut dyn FnMut(); 3]) -> [f64; 3] {
    const SAMPLE: Duration = Duration::from_millis(1);
    let mut fastest = [f64::INFINITY; 3];
    let begin = Instant::now();
    let mut samples = 0;
    while begin.elapsed() < patience || samples < 3 {
        for (work, fastest) in work.iter_mut().zip(&mut fastest) {
            let (start, mut runs) = (Instant::now(), 0.0);
            while start.elapsed() < SAMPLE {
                work();
                runs += 1.0;
            }
            *fastest = fastest.min(start.elapsed().as_nanos() as f64 / runs);
        }
        samples += 1;
    }
    fastest
}
