//! The chunked head against full logits, log-softmax and autograd: time of log-probabilities and both gradients, and
//! peak additional memory.
//!
//! `cargo bench -p pref-loss --bench chunked_head` prints a table. Times are medians of interleaved runs, so that other
//! load on the machine affects both equally. Memory is a process's high-water mark above its inputs, minus its outputs.

#![expect(clippy::print_stdout, reason = "a benchmark prints a table")]

use std::process::Command;
use std::time::Instant;

use pref_loss::ChunkedHead;
use tch::{Device, Kind, Tensor};

const USAGE: &str = "--peak wants: METHOD TOKENS VOCAB WIDTH KIND";

/// Vocabulary and width of a small and of a 7B model, kind, tokens.
const CASES: [(i64, i64, Kind, &[i64]); 4] = [
    (49_152, 576, Kind::Float, &[128, 512, 2_048, 4_096]),
    (49_152, 576, Kind::BFloat16, &[128, 512, 2_048, 4_096]),
    (32_000, 4_096, Kind::Float, &[128, 512]),
    (32_000, 4_096, Kind::BFloat16, &[128, 512]),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--peak") {
        return print_peak(&arguments[at + 1..]);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        // Under `cargo test` it only has to run.
        let input = Input::new(7, 50, 8, Kind::Float);
        return drop((input.full(), input.chunked()));
    }
    println!(
        "| V | d | kind | tokens | full, ms | chunked, ms | ratio | full, MB extra | chunked, MB extra |"
    );
    println!("|--:|--:|---|--:|--:|--:|--:|--:|--:|");
    for (vocab, width, kind, tokens) in CASES {
        for &tokens in tokens {
            let [full, chunked] = medians(&Input::new(tokens, vocab, width, kind));
            let [full_peak, chunked_peak] =
                ["full", "chunked"].map(|method| peak_of_child(method, tokens, vocab, width, kind));
            println!(
                "| {vocab} | {width} | {kind:?} | {tokens} | {full:.0} | {chunked:.0} | {:.2} | {full_peak} | \
                 {chunked_peak} |",
                chunked / full
            );
        }
    }
}

struct Input {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    coefficients: Tensor,
}

type Results = (Tensor, Tensor, Tensor);

impl Input {
    /// Logits of unit variance, from sines: the values only have to differ, so no generator is needed.
    fn new(tokens: i64, vocab: i64, width: i64, kind: Kind) -> Self {
        let wave = |rows: i64, step: f64| {
            let angles = Tensor::arange(rows * width, (Kind::Float, Device::Cpu)) * step;
            angles.sin().view([rows, width]).to_kind(kind)
        };
        let targets = Tensor::arange(tokens, (Kind::Int64, Device::Cpu)) * 7_919;
        Self {
            hidden: wave(tokens, 0.731),
            weight: wave(vocab, 1.237) * (2.0 / (width as f64).sqrt()),
            targets: targets.remainder(vocab),
            coefficients: Tensor::arange(tokens, (Kind::Float, Device::Cpu)).cos() * 0.1,
        }
    }

    fn full(&self) -> Results {
        let hidden = self.hidden.detach().set_requires_grad(true);
        let weight = self.weight.detach().set_requires_grad(true);
        let logps = hidden.matmul(&weight.tr()).log_softmax(-1, Kind::Float);
        let logps = logps.gather(1, &self.targets.unsqueeze(1), false).squeeze_dim(1);
        (&logps * &self.coefficients).sum(Kind::Float).backward();
        (logps.detach(), hidden.grad(), weight.grad())
    }

    fn chunked(&self) -> Results {
        let head = ChunkedHead::new(&self.weight).expect("the weight is a matrix");
        let scored = head.forward(&self.hidden, &self.targets).expect("the input fits the weight");
        let logps = scored.logps().shallow_clone();
        let gradients = scored.backward(&self.coefficients).expect("one coefficient a token");
        (logps, gradients.hidden, gradients.weight)
    }

    fn run(&self, method: &str) -> Results {
        if method == "full" { self.full() } else { self.chunked() }
    }
}

/// Returns the median milliseconds of both methods, interleaved.
fn medians(input: &Input) -> [f64; 2] {
    let time = |method: &str| {
        let start = Instant::now();
        let results = input.run(method);
        let elapsed = start.elapsed().as_secs_f64() * 1e3;
        drop(results);
        elapsed
    };
    let first = time("full") + time("chunked");
    let repeats = (20_000.0 / first).clamp(5.0, 31.0) as usize;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..repeats {
        times[0].push(time("full"));
        times[1].push(time("chunked"));
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// Returns the output of `print_peak` in another process, since a high-water mark belongs to a process.
fn peak_of_child(method: &str, tokens: i64, vocab: i64, width: i64, kind: Kind) -> String {
    let numbers = [tokens, vocab, width].map(|number| number.to_string());
    let kind = if kind == Kind::Float { "f32" } else { "bf16" };
    let program = std::env::current_exe().expect("a running program has a path");
    let output = Command::new(program).args(["--peak", method]).args(numbers).arg(kind).output();
    let output = output.expect("this program starts again");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn print_peak(arguments: &[String]) {
    let [method, numbers @ .., kind] = arguments else { panic!("{USAGE}") };
    let numbers: Vec<i64> = numbers.iter().map(|number| number.parse().expect(USAGE)).collect();
    let &[tokens, vocab, width] = &numbers[..] else { panic!("{USAGE}") };
    let kind = if kind == "f32" { Kind::Float } else { Kind::BFloat16 };
    drop(Input::new(8, 64, width, kind).run(method)); // starts the threads
    let input = Input::new(tokens, vocab, width, kind);
    // Linux resets the mark to the current size on a write of 5.
    if std::fs::write("/proc/self/clear_refs", "5").is_err() {
        return println!("n/a");
    }
    let before = status_bytes("VmRSS:");
    let (logps, hidden, weight) = input.run(method);
    let outputs: usize =
        [logps, hidden, weight].iter().map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
    println!("{:.0}", (status_bytes("VmHWM:") - before - outputs as f64) / 1e6);
}

fn status_bytes(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has this file");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field is always there");
    let kilobytes: f64 =
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kilobytes * 1024.0
}
