//! One optimizer step of DPO: with all optimizations, and with each one switched alone.
//!
//! `cargo bench -p trainer --bench step` prints a table. Times are medians of interleaved steps, so that other load on
//! the machine affects all equally. Memory is a process's high-water mark over a few steps. Weights and tokens are
//! random, with the lengths of hh-rlhf (harmless-base) and GAIR's set: values do not affect the cost of a step.

#![expect(clippy::print_stdout, reason = "a benchmark prints a table")]

use std::process::Command;
use std::time::Instant;

use policy_model::{Lora, ModelConfig, Policy, Targets, native_bf16};
use pref_data::{Layout, Padding, TokenPair};
use pref_loss::{Beta, PreferenceLoss};
use rand::RngExt;
use seeds::Seeds;
use serde_json::json;
use tch::{Device, Kind};
use trainer::{
    Activations, AdamWSettings, Decay, Head, Length, MicroBatch, MomentKind, Observer, Order, PairDelta,
    PreferenceObjective, Scoring, SequenceLogps, StepMetrics, TrainError, TrainSettings, Trained, Trainer,
    TrainerState,
};

const FAST: Scoring = Scoring::FAST;

/// A configuration of the step.
struct Way {
    name: &'static str,
    scoring: Scoring,
    /// The data type, if not the fastest one of the machine.
    kind: Option<Kind>,
    /// The rank of adapters on q and v, if adapters are trained.
    rank: Option<usize>,
}

/// All optimizations on, all weights trained.
const ALL_ON: Way = Way { name: "nothing off", scoring: FAST, kind: None, rank: None };

/// The configurations: what is switched, and the resulting settings.
const WAYS: [Way; 8] = [
    ALL_ON,
    Way { name: "shared_prompt off", scoring: Scoring { layout: Layout::Separate, ..FAST }, ..ALL_ON },
    Way { name: "padding_free off", scoring: Scoring { padding: Padding::Right(0), ..FAST }, ..ALL_ON },
    Way { name: "chunked_head off", scoring: Scoring { head: Head::Full, ..FAST }, ..ALL_ON },
    Way {
        name: "all three off",
        scoring: Scoring { layout: Layout::Separate, padding: Padding::Right(0), head: Head::Full, ..FAST },
        ..ALL_ON
    },
    Way { name: "bfloat16 off", kind: Some(Kind::Float), ..ALL_ON },
    Way {
        name: "gradient checkpointing on",
        scoring: Scoring { activations: Activations::Recomputed, ..FAST },
        ..ALL_ON
    },
    Way { name: "adapters of rank 16 on q and v", rank: Some(16), ..ALL_ON },
];

/// Pairs per step.
const BATCH: usize = 4;

/// A model's shape, and the number of timed steps.
struct Model {
    name: &'static str,
    config: fn() -> serde_json::Value,
    rounds: usize,
}

const MODELS: [Model; 2] = [
    Model {
        name: "tiny",
        config: || {
            json!({"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176,
                   "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true})
        },
        rounds: 60,
    },
    Model {
        name: "135M",
        config: || {
            json!({"model_type": "llama", "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1_536,
                   "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
                   "tie_word_embeddings": true, "rope_theta": 100_000.0})
        },
        rounds: 6,
    },
];

/// Mean tokens of prompt, chosen and rejected response.
const LENGTHS: [(&str, [f64; 3]); 2] =
    [("hh-rlhf", [125.0, 41.0, 51.0]), ("GAIR-like", [150.0, 250.0, 250.0])];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--peak") {
        let [model, lengths, way] = [1, 2, 3].map(|i| arguments[at + i].parse::<usize>().expect("an index"));
        let case = Case::new(&MODELS[model], LENGTHS[lengths].1);
        let way = &WAYS[way];
        case.trainer(&case.objective(way), way, 3.0).run(&mut Clock::new(3)).expect("three steps");
        return println!("{}", peak_mb());
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        // Under `cargo test` it only has to run.
        let case = Case::new(&MODELS[0], LENGTHS[0].1);
        let objective = case.objective(&ALL_ON);
        case.trainer(&objective, &ALL_ON, 1.0).run(&mut Clock::new(1)).expect("a step");
        return;
    }
    // Filters by names such as `-- 135M GAIR-like`; runs all cases without names.
    let wanted: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    println!(
        "| model | lengths | computes in | | ms a step | pairs/s | of the fastest | tokens a step | peak MB | mean loss |"
    );
    println!("|---|---|---|---|--:|--:|--:|--:|--:|--:|");
    for (m, model) in MODELS.iter().enumerate() {
        for (l, (lengths, means)) in LENGTHS.iter().enumerate() {
            if !wanted.iter().all(|word| [model.name, *lengths].contains(word)) {
                continue;
            }
            let case = Case::new(model, *means);
            let timed = case.medians();
            for (w, (way, median)) in WAYS.iter().zip(&timed).enumerate() {
                println!(
                    "| {} | {lengths} | {:?} | {} | {:.1} | {:.2} | {:.2} | {} | {} | {:.4} |",
                    model.name,
                    way.kind.unwrap_or(case.kind),
                    way.name,
                    median.seconds * 1e3,
                    BATCH as f64 / median.seconds,
                    median.seconds / timed[0].seconds,
                    median.tokens,
                    peak_of_child([m, l, w]),
                    median.loss,
                );
            }
            let pass = case.reference_pass();
            println!(
                "| {} | {lengths} | {:?} | reference_cache off, a batch of each run's first epoch | +{:.1} | | +{:.2} | | | |",
                model.name,
                case.kind,
                pass * 1e3,
                pass / timed[0].seconds,
            );
        }
    }
}

/// A model with pairs and their reference log-probabilities.
struct Case<'a> {
    model: &'a Model,
    policy: Policy,
    kind: Kind,
    pairs: Vec<TokenPair>,
    reference: SequenceLogps,
}

impl<'a> Case<'a> {
    fn new(model: &'a Model, lengths: [f64; 3]) -> Self {
        let config = ModelConfig::from_json((model.config)()).expect("a good configuration");
        let vocab = config.vocab_size as u32;
        // A model of a few layers gains nothing from bfloat16, and the sandbox's model computes in float32.
        let large = config.layers > 2;
        let kind = if large && native_bf16(Device::Cpu) { Kind::BFloat16 } else { Kind::Float };
        let policy = Policy::initialize(config, &Seeds::new(0), Kind::Float, Device::Cpu).expect("a policy");
        let pairs = pairs(BATCH * (model.rounds + 2), lengths, vocab);
        // The reference's values do not affect the cost of a step.
        let reference =
            SequenceLogps { chosen: vec![-100.0; pairs.len()], rejected: vec![-100.0; pairs.len()] };
        Self { model, policy, kind, pairs, reference }
    }

    fn objective(&self, way: &Way) -> PreferenceObjective<'_> {
        let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1).expect("in range") };
        PreferenceObjective {
            pairs: &self.pairs,
            reference: Some(&self.reference),
            loss: loss.into(),
            kl_pairs: None,
            scoring: way.scoring,
        }
    }

    fn trainer<'o>(&self, objective: &'o PreferenceObjective<'_>, way: &Way, epochs: f64) -> Trainer<'o> {
        let targets = Targets::names(["q_proj", "v_proj"]);
        let adapters = |rank| Trained::Adapters(Lora::new(rank, 16.0, targets));
        let settings = TrainSettings {
            length: Length::Epochs(epochs),
            batch_size: BATCH,
            micro_batch: MicroBatch::Examples(BATCH),
            learning_rate: 5e-7,
            warmup_ratio: 0.0,
            decay: Decay::Linear,
            adamw: AdamWSettings {
                betas: (0.9, 0.999),
                eps: 1e-8,
                weight_decay: 0.0,
                moments: MomentKind::Float,
            },
            max_grad_norm: 1.0,
            checkpoints: vec![],
            kind: way.kind.unwrap_or(self.kind),
            trained: way.rank.map_or(Trained::All, adapters),
            order: Order::AsGiven,
            seeds: Seeds::new(0),
        };
        Trainer::new(&self.policy, objective, settings).expect("a trainer")
    }

    /// Measures the steps of each configuration.
    fn medians(&self) -> Vec<Median> {
        let objectives: Vec<_> = WAYS.iter().map(|way| self.objective(way)).collect();
        let mut trainers: Vec<_> =
            WAYS.iter().zip(&objectives).map(|(way, objective)| self.trainer(objective, way, 1.0)).collect();
        let mut clocks: Vec<Clock> = WAYS.iter().map(|_| Clock::new(1)).collect();
        for _ in 0..=self.model.rounds {
            for (trainer, clock) in trainers.iter_mut().zip(&mut clocks) {
                clock.left = 1;
                trainer.run(clock).expect("a step");
            }
        }
        clocks.into_iter().map(Clock::median).collect()
    }

    /// Returns the median seconds in which the reference scores a batch.
    fn reference_pass(&self) -> f64 {
        let reference = self.policy.to_kind(self.kind).expect("another kind");
        let mut seconds: Vec<f64> = Vec::new();
        for batch in self.pairs.chunks(BATCH) {
            let start = Instant::now();
            SequenceLogps::compute(&reference, batch, FAST, |_| {}).expect("log-probabilities");
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.remove(0);
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }
}

/// Prompts and responses with lengths that scatter by a factor of two, as in real sets.
fn pairs(n: usize, means: [f64; 3], vocab: u32) -> Vec<TokenPair> {
    let mut rng = Seeds::new(1).stream("bench-pairs");
    let mut ids = |mean: f64| -> Vec<u32> {
        let scatter: f64 = (0..4).map(|_| rng.random_range(-0.6..0.6)).sum::<f64>().exp() / 1.26;
        (0..(mean * scatter).clamp(2.0, 400.0) as usize).map(|_| rng.random_range(1..vocab)).collect()
    };
    let mut pair = |i: usize| TokenPair {
        id: i.to_string(),
        prompt: ids(means[0]),
        chosen: ids(means[1]),
        rejected: ids(means[2]),
        flipped: false,
    };
    (0..n).map(&mut pair).collect()
}

/// The measurement of steps after a warm-up step: median seconds, mean tokens and loss.
struct Median {
    seconds: f64,
    tokens: u64,
    loss: f64,
}

/// Times steps, and stops after some.
struct Clock {
    start: Instant,
    left: usize,
    steps: Vec<StepMetrics>,
}

impl Clock {
    fn new(left: usize) -> Self {
        Self { start: Instant::now(), left, steps: Vec::new() }
    }

    fn median(self) -> Median {
        let steps = &self.steps[1..];
        let count = steps.len();
        let mut seconds: Vec<f64> = steps.iter().map(|step| step.step_seconds).collect();
        seconds.sort_by(f64::total_cmp);
        Median {
            seconds: seconds[count / 2],
            tokens: steps.iter().map(|step| step.tokens).sum::<u64>() / count as u64,
            loss: steps.iter().map(|step| step.loss).sum::<f64>() / count as f64,
        }
    }
}

impl Observer for Clock {
    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn on_step(&mut self, metrics: &StepMetrics, _: &[PairDelta], _: u64) -> Result<(), TrainError> {
        self.steps.push(metrics.clone());
        self.left -= 1;
        Ok(())
    }

    fn on_checkpoint(&mut self, _: &TrainerState<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.left == 0
    }
}

fn peak_of_child(case: [usize; 3]) -> String {
    let program = std::env::current_exe().expect("this program has a path");
    let arguments = case.map(|index| index.to_string());
    let output = Command::new(program).arg("--peak").args(arguments).output().expect("a child process");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns this process's high-water mark, if the system reports it.
fn peak_mb() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kb.map_or_else(|| "–".to_owned(), |kb| (kb / 1000).to_string())
}
