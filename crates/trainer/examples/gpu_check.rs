//! Compares each computation on a GPU with the CPU, in about a minute: `cargo xtask gpu-check`.
//!
//! Without a GPU it prints a message and fails. `gpu_check cpu` compares the CPU with itself, to test the check.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the output is its purpose")]

use std::error::Error;
use std::process::ExitCode;

use policy_model::{GenerationOptions, GenerationRequest, Lora, ModelConfig, Policy, Sampling, Targets};
use pref_data::{Layout, Padding, TokenPair};
use pref_loss::{Beta, PreferenceLoss};
use rand::RngExt;
use seeds::Seeds;
use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::{SharedPrefixRows, VarlenRows, shared_prefix_attention, varlen_attention};
use trainer::{
    Activations, AdamWSettings, Decay, Head, Length, MicroBatch, MomentKind, Observer, Order, PairDelta,
    PreferenceObjective, Scoring, SequenceLogps, StepMetrics, TrainError, TrainSettings, Trained, Trainer,
    TrainerState,
};

const VOCABULARY: usize = 512;

fn main() -> ExitCode {
    let device = match std::env::args().nth(1).as_deref() {
        Some("cpu") => Device::Cpu,
        Some(unknown) => return failed(&format!("`{unknown}` is not a device; pass `cpu` or no argument")),
        None if Cuda::is_available() && Cuda::device_count() > 0 => Device::Cuda(0),
        None => {
            return failed(
                "libtorch finds no GPU, so nothing was checked; with an NVIDIA driver, `cargo xtask setup` installs \
                 libtorch for CUDA",
            );
        }
    };
    println!("{device:?} against the CPU: largest difference, relative to the greater number (or to 1)");
    match check_all(device) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => failed(&format!("{wrong} of the computations differ from the CPU")),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// Runs all checks and returns the number of failures.
fn check_all(device: Device) -> Result<usize, Box<dyn Error>> {
    let mut wrong = 0;
    let mut compare = |what: &str, of: &dyn Fn(Device) -> Result<Vec<f64>, Box<dyn Error>>, bound: f64| {
        let (here, there) = (of(Device::Cpu)?, of(device)?);
        let apart = here.iter().zip(&there).map(|(a, b)| (a - b).abs() / a.abs().max(b.abs()).max(1.0));
        let furthest = apart.fold(0.0, f64::max);
        // NaN is not within any bound.
        let is_right = here.len() == there.len()
            && !here.is_empty()
            && furthest <= bound
            && there.iter().all(|x| x.is_finite());
        println!("{} {what:<62} {furthest:.1e} of {bound:.0e}", if is_right { "ok   " } else { "WRONG" });
        wrong += usize::from(!is_right);
        Ok::<_, Box<dyn Error>>(())
    };
    for (kind, bound) in [(Kind::Float, 1e-4), (Kind::BFloat16, 5e-2)] {
        compare(
            &format!("attention of trunks and branches, {kind:?}, with gradients"),
            &|device| attention(device, kind),
            bound,
        )?;
    }
    // Sums of a few dozen log-probabilities; bfloat16 has 8 bits of precision.
    for (kind, bound) in [(Kind::Float, 1e-4), (Kind::BFloat16, 5e-2)] {
        for (name, scoring) in ways() {
            let what = format!("log-probabilities, {kind:?}, {name}");
            compare(&what, &|device| logps(device, kind, scoring), bound)?;
        }
    }
    for (kind, bound) in [(Kind::Float, 1e-3), (Kind::BFloat16, 5e-2)] {
        for (name, scoring) in ways() {
            let what = format!("losses of training, {kind:?}, {name}");
            compare(&what, &|device| losses(device, kind, &Trained::All, scoring, WHOLE), bound)?;
        }
        let lora = Trained::Adapters(Lora::new(4, 8.0, Targets::AllLinear));
        let what = format!("losses of training, {kind:?}, adapters");
        compare(&what, &|device| losses(device, kind, &lora, Scoring::FAST, WHOLE), bound)?;
        let recomputed = Scoring { activations: Activations::Recomputed, ..Scoring::FAST };
        let what = format!("losses of training, {kind:?}, adapters over NF4");
        let of = |device| losses(device, kind, &lora, recomputed, (MomentKind::Float, true));
        compare(&what, &of, bound)?;
        let what = format!("losses of training, {kind:?}, moments in eight bits");
        let of = |device| losses(device, kind, &Trained::All, Scoring::FAST, (MomentKind::EightBit, false));
        compare(&what, &of, bound)?;
    }
    compare("greedy answers, Float: tokens", &answers, 0.0)?;
    #[cfg(feature = "nccl")]
    if device != Device::Cpu {
        compare("a sum over one rank through NCCL", &sum_over_ranks, 0.0)?;
    }
    Ok(wrong)
}

/// Attention outputs of rows with branches, and the gradients of queries, keys and values. On a GPU, libtorch's
/// variable-length kernels compute them; without them, a policy silently uses another implementation.
fn attention(device: Device, kind: Kind) -> Result<Vec<f64>, Box<dyn Error>> {
    let rows = SharedPrefixRows::new([(37, &[5, 70][..]), (0, &[9][..]), (130, &[][..]), (1, &[1, 64][..])]);
    let operand = |heads: i64, seed: f64| {
        let count = rows.tokens() * heads * 32;
        let numbers = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7 + seed).sin();
        let numbers = numbers.view([rows.tokens(), heads, 32]).to_kind(kind);
        numbers.to_device(device).set_requires_grad(true)
    };
    let (q, k, v) = (operand(4, 0.0), operand(2, 1.0), operand(2, 2.0));
    let attended = if device.is_cuda() {
        let rows = VarlenRows::new(&rows, device).ok_or("too many keys for the kernels")?;
        varlen_attention(&q, &k, &v, &rows)?
    } else {
        shared_prefix_attention(&q, &k, &v, &rows)?
    };
    let attended = attended.ok_or("no kernel for these operands")?;
    (attended.to_kind(Kind::Float) * q.detach()).sum(Kind::Float).backward();
    let all = [attended.detach(), q.grad(), k.grad(), v.grad()];
    let all = Tensor::cat(&all.map(|x| x.to_kind(Kind::Double).view(-1)), 0).to_device(Device::Cpu);
    Ok(Vec::try_from(all)?)
}

/// The options that select different paths through libtorch.
fn ways() -> [(&'static str, Scoring); 4] {
    let plain = Scoring {
        layout: Layout::Separate,
        padding: Padding::Right(0),
        head: Head::Full,
        activations: Activations::Kept,
    };
    [
        ("padded rows", plain),
        ("packed rows, tiled head", Scoring::FAST),
        ("layer by layer", Scoring { activations: Activations::KeptByLayer, ..Scoring::FAST }),
        ("computed again", Scoring { activations: Activations::Recomputed, ..Scoring::FAST }),
    ]
}

fn policy(device: Device, kind: Kind) -> Result<Policy, Box<dyn Error>> {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "qwen3", "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
        "initializer_range": 0.1,
    }))?;
    // Sampled in fp32 on the CPU, so that all devices have the same values.
    let drawn = Policy::initialize(config.clone(), &Seeds::new(5), Kind::Float, Device::Cpu)?;
    let moved = drawn
        .parameters()
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_device(device).to_kind(kind)));
    Ok(Policy::from_parameters(config, moved.collect())?)
}

fn pairs() -> Vec<TokenPair> {
    let mut rng = Seeds::new(1).stream("pairs");
    let mut ids = |longest: usize| -> Vec<u32> {
        let length = rng.random_range(1..=longest);
        (0..length).map(|_| rng.random_range(1..VOCABULARY as u32)).collect()
    };
    let mut pair = |i: usize| TokenPair {
        id: format!("pair-{i}"),
        prompt: ids(40),
        chosen: ids(30),
        rejected: ids(50),
        flipped: false,
    };
    (0..12).map(&mut pair).collect()
}

fn logps(device: Device, kind: Kind, scoring: Scoring) -> Result<Vec<f64>, Box<dyn Error>> {
    let of = SequenceLogps::compute(&policy(device, kind)?, &pairs(), scoring, |_| {})?;
    Ok([of.chosen, of.rejected].concat())
}

/// Returns the losses of some steps, from fp32 masters. Weights in NF4 are quantized on the device, in `kind`.
fn losses(
    device: Device,
    kind: Kind,
    trained: &Trained,
    scoring: Scoring,
    (moments, in_nf4): (MomentKind, bool),
) -> Result<Vec<f64>, Box<dyn Error>> {
    let (policy, pairs) = match in_nf4 {
        true => (policy(device, kind)?.in_nf4()?, pairs()),
        false => (policy(device, Kind::Float)?, pairs()),
    };
    let reference = SequenceLogps::compute(&policy.to_kind(kind)?, &pairs, scoring, |_| {})?;
    let loss = PreferenceLoss::Dpo { beta: Beta::DEFAULT };
    let objective = PreferenceObjective {
        pairs: &pairs,
        reference: Some(&reference),
        loss: loss.into(),
        kl_pairs: None,
        scoring,
    };
    let settings = TrainSettings {
        length: Length::Epochs(2.0),
        batch_size: 4,
        micro_batch: MicroBatch::Examples(2),
        learning_rate: 1e-4,
        warmup_ratio: 0.1,
        decay: Decay::Linear,
        adamw: AdamWSettings { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, moments },
        max_grad_norm: 1.0,
        checkpoints: Vec::new(),
        kind,
        trained: trained.clone(),
        order: Order::AsGiven,
        seeds: Seeds::new(0),
    };
    let mut losses = Losses(Vec::new());
    Trainer::new(&policy, &objective, settings)?.run(&mut losses)?;
    Ok(losses.0)
}

/// fp32 moments, and no quantized weights.
const WHOLE: (MomentKind, bool) = (MomentKind::Float, false);

/// Records the loss of each step.
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn on_step(&mut self, metrics: &StepMetrics, _: &[PairDelta], _: u64) -> Result<(), TrainError> {
        self.0.push(metrics.loss);
        Ok(())
    }

    fn on_checkpoint(&mut self, _: &TrainerState<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        false
    }
}

fn answers(device: Device) -> Result<Vec<f64>, Box<dyn Error>> {
    let requests: Vec<GenerationRequest> = pairs()
        .into_iter()
        .map(|pair| GenerationRequest {
            prompt: pair.prompt,
            sampling: Sampling::greedy(16, Vec::new()),
            stream: Seeds::new(0).stream("answers"),
        })
        .collect();
    let answers = policy(device, Kind::Float)?.generate(&requests, &GenerationOptions { max_batch: 4 })?;
    Ok(answers.into_iter().flat_map(|answer| answer.tokens).map(f64::from).collect())
}

#[cfg(feature = "nccl")]
fn sum_over_ranks(device: Device) -> Result<Vec<f64>, Box<dyn Error>> {
    use std::time::Duration;

    use tch::Tensor;
    use torch_ext::distributed::{ProcessGroup, Rank, ReduceOp, Store};

    let timeout = Duration::from_secs(30);
    let store = Store::serve("127.0.0.1", 0, timeout)?;
    let group = match device {
        Device::Cpu => ProcessGroup::gloo(&store, "check", Rank::ALONE, timeout)?,
        _ => ProcessGroup::nccl(&store, "check", Rank::ALONE, timeout)?,
    };
    let mut tensor = Tensor::arange(1000, (Kind::Float, device));
    group.all_reduce(&mut tensor, ReduceOp::Sum)?;
    Ok(Vec::try_from(tensor.to_device(Device::Cpu).to_kind(Kind::Double))?)
}
