//! The training loop on a tiny policy: exactness, determinism, resuming, errors.

mod clock;
mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use clock::Ticking;
use common::Record;
use distributed::ProcessGroup;
use policy_model::{Lora, ModelConfig, Policy, Rows, Targets};
use pref_data::{Dialogue, Layout, Padding, TokenPair};
use pref_loss::{Beta, KlEstimate, KtoBatch, KtoLoss, KtoOutput, PreferenceLoss, Weight};
use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind};
use test_support::REORDERED_FP32;
use trainer::{
    Activations, AdamWSettings, Context, Decay, Head, KlPairs, Length, Loss, MicroBatch, MomentKind, Order,
    Outcome, PreferenceObjective, Progress, RunDir, Scoring, SequenceLogps, Start, SupervisedRun, TrainError,
    TrainSettings, Trained, Trainer, run_supervised,
};

const FAST: Scoring = Scoring::FAST;

/// No optimizations: the baseline of the comparisons.
const PLAIN: Scoring = Scoring {
    layout: Layout::Separate,
    padding: Padding::Right(0),
    head: Head::Full,
    activations: Activations::Kept,
};

fn policy() -> Policy {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
        "initializer_range": 0.2,
    }));
    Policy::initialize(config.unwrap(), &Seeds::new(5), Kind::Float, Device::Cpu).unwrap()
}

fn ids(rng: &mut seeds::Stream, longest: usize) -> Vec<u32> {
    (0..rng.random_range(1..=longest)).map(|_| rng.random_range(1..48)).collect()
}

fn pairs(n: usize) -> Vec<TokenPair> {
    let mut rng = Seeds::new(1).stream("pairs");
    let mut pair = |i: usize| TokenPair {
        id: format!("pair-{i}"),
        prompt: ids(&mut rng, 9),
        chosen: ids(&mut rng, 7),
        rejected: ids(&mut rng, 12),
        flipped: false,
    };
    (0..n).map(&mut pair).collect()
}

fn dialogues(n: usize) -> Vec<Dialogue> {
    let mut rng = Seeds::new(2).stream("dialogues");
    (0..n).map(|_| Dialogue::completion(&ids(&mut rng, 5), &ids(&mut rng, 9)).unwrap()).collect()
}

fn settings() -> TrainSettings {
    TrainSettings {
        length: Length::Epochs(2.0),
        batch_size: 8,
        micro_batch: MicroBatch::Examples(8),
        learning_rate: 1e-3,
        warmup_ratio: 0.1,
        decay: Decay::Linear,
        adamw: AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.01,
            moments: MomentKind::Float,
        },
        max_grad_norm: 1.0,
        checkpoints: vec![0.5, 1.0],
        kind: Kind::Float,
        trained: Trained::All,
        order: Order::Shuffled,
        seeds: Seeds::new(0),
    }
}

/// Adapters on a projection of attention and one of the MLP.
fn adapters() -> Trained {
    Trained::Adapters(Lora::new(4, 8.0, Targets::names(["q_proj", "down_proj"])))
}

/// Trains on pairs and returns every step's metrics and the final weights.
fn train(settings: TrainSettings, scoring: Scoring) -> (Record, Vec<f32>) {
    let (policy, pairs) = (policy(), pairs(20));
    let reference = SequenceLogps::compute(&policy, &pairs, scoring, |_| {}).unwrap();
    let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() };
    let objective = PreferenceObjective {
        pairs: &pairs,
        reference: Some(&reference),
        loss: loss.into(),
        kl_pairs: None,
        scoring,
    };
    let mut trainer = Trainer::new(&policy, &objective, settings).unwrap();
    let mut record = Record::default();
    assert_eq!(trainer.run(&mut record).unwrap(), Outcome::Finished);
    (record, weights(&trainer.master_policy().unwrap()))
}

fn weights(policy: &Policy) -> Vec<f32> {
    let flat = |t: &tch::Tensor| Vec::<f32>::try_from(t.detach().view(-1).to_kind(Kind::Float)).unwrap();
    policy.parameters().iter().flat_map(|(_, t)| flat(t)).collect()
}

fn assert_close(a: &Record, b: &Record) {
    for (a, b) in a.steps.iter().zip(&b.steps) {
        let close = |x: f64, y: f64| (x - y).abs() <= REORDERED_FP32 * x.abs().max(1.0);
        assert!(close(a.loss, b.loss), "step {}: loss {} and {}", a.step, a.loss, b.loss);
        assert!(close(a.grad_norm, b.grad_norm), "step {}: norm {} and {}", a.step, a.grad_norm, b.grad_norm);
    }
}

/// The nats by which the reference's log-probabilities in KTO's test are lowered, so that the baseline is not clamped
/// to 0.
const BELOW: f64 = 3.0;

/// KTO's loss of all pairs by its definition: each response on its own, against the mean log-ratio of mismatched
/// responses.
fn kto_by_hand(
    loss: KtoLoss,
    policy: &Policy,
    start: &Policy,
    pairs: &[TokenPair],
    shifted: &[TokenPair],
) -> (f64, KlEstimate) {
    let responses = |policy: &Policy, pairs: &[TokenPair]| {
        let logps = SequenceLogps::compute(policy, pairs, PLAIN, |_| {}).unwrap();
        [logps.chosen, logps.rejected].concat()
    };
    let of_reference =
        |pairs| responses(start, pairs).into_iter().map(|logp| logp - BELOW).collect::<Vec<_>>();
    let baseline = KlEstimate::new(&responses(policy, shifted), &of_reference(shifted)).unwrap();
    assert!(baseline.nats() > 0.0, "a baseline of 0 would prove nothing");
    let (policy, start) = (responses(policy, pairs), of_reference(pairs));
    let desirable: Vec<bool> = (0..policy.len()).map(|at| at < pairs.len()).collect();
    let mut out = KtoOutput::default();
    loss.evaluate(&KtoBatch::new(&policy, &start, &desirable).unwrap(), baseline, &mut out);
    (out.losses().iter().sum::<f64>() / out.losses().len() as f64, baseline)
}

#[test]
fn kto_takes_its_baseline_from_the_whole_batch() {
    let (policy, pairs) = (policy(), pairs(20));
    let shifted = KlPairs::shifted(&pairs, 64);
    let of = |pairs: &[TokenPair]| {
        let mut logps = SequenceLogps::compute(&policy, pairs, FAST, |_| {}).unwrap();
        logps.chosen.iter_mut().chain(&mut logps.rejected).for_each(|logp| *logp -= BELOW);
        logps
    };
    let (reference, kl_pairs) = (of(&pairs), KlPairs::new(shifted.clone(), of(&shifted)));
    let kto = KtoLoss { beta: Beta::new(0.5).unwrap(), desirable: Weight::ONE, undesirable: Weight::ONE };
    let objective = PreferenceObjective {
        pairs: &pairs,
        reference: Some(&reference),
        loss: Loss::Kto(kto),
        kl_pairs: Some(&kl_pairs),
        scoring: FAST,
    };
    let whole = |micro_batch| TrainSettings {
        batch_size: 20,
        length: Length::Epochs(6.0),
        micro_batch,
        ..settings()
    };
    let mut records = Vec::new();
    for micro_batch in [MicroBatch::Examples(20), MicroBatch::Examples(3)] {
        let mut trainer = Trainer::new(&policy, &objective, whole(micro_batch)).unwrap();
        let mut record = Record::default();
        trainer.run(&mut record).unwrap();
        let trained = trainer.master_policy().unwrap();
        records.push((record, trained));
    }
    let [(first, trained), (second, _)] = &records[..] else { unreachable!() };
    assert_close(first, second);
    assert!((first.steps[0].loss - 0.5).abs() < 1e-6, "the initial policy equals the reference");
    assert!(first.steps[5].loss < first.steps[1].loss, "it learns: {:?}", first.steps);

    // One more step, from these weights, measures the loss there.
    let again =
        TrainSettings { length: Length::Epochs(1.0), learning_rate: 0.0, ..whole(MicroBatch::Examples(3)) };
    let mut record = Record::default();
    Trainer::new(trained, &objective, again).unwrap().run(&mut record).unwrap();
    let (expected, baseline) = kto_by_hand(kto, trained, &policy, &pairs, &shifted);
    assert!((record.steps[0].loss - expected).abs() < 1e-5, "{} {expected}", record.steps[0].loss);
    let kl = record.steps[0].kl.unwrap();
    assert!((kl - baseline.nats()).abs() < 1e-4, "{kl} {baseline:?}");
    let (unshifted, _) = kto_by_hand(kto, trained, &policy, &pairs, &pairs);
    assert!(
        (record.steps[0].loss - unshifted).abs() > 1e-4,
        "the baseline is not of the responses' own prompts: {unshifted}"
    );
}

#[test]
fn thread_replicas_agree_with_intra_op_threads() {
    let before = tch::get_num_threads();
    for trained in [Trained::All, adapters()] {
        let with = |threads, micro_batch| {
            tch::set_num_threads(threads);
            train(TrainSettings { trained: trained.clone(), micro_batch, ..settings() }, FAST)
        };
        let (alone, of_alone) = with(1, MicroBatch::Examples(8));
        for (threads, micro_batch) in [(2, 8), (3, 8), (2, 5), (16, 8)] {
            let (replicated, weights) = with(threads, MicroBatch::Examples(micro_batch));
            assert_close(&alone, &replicated);
            let pairs = |record: &Record| record.deltas.iter().map(|delta| delta.pair).collect::<Vec<_>>();
            assert_eq!(pairs(&alone), pairs(&replicated));
            let far = weights.iter().zip(&of_alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-4, "{threads} threads: weights differ by {far}");
            let norms = |record: &Record| record.steps.iter().map(|step| step.grad_norm).collect::<Vec<_>>();
            assert_ne!(norms(&alone), norms(&replicated), "{threads} threads: no replicas were used");
        }
    }
    tch::set_num_threads(before);
}

#[test]
fn training_starts_at_ln_2_and_is_deterministic() {
    let (first, weights_1) = train(settings(), FAST);
    let (second, weights_2) = train(settings(), FAST);
    assert_eq!(first.steps.len(), 2 * 3, "20 pairs make three batches of at most 8");
    assert!((first.steps[0].loss - std::f64::consts::LN_2).abs() < 1e-6);
    assert_eq!(first.steps[0].kl, None, "DPO has no baseline");
    assert_eq!(first.steps[0].learning_rate, 0.0, "the first update of a warm-up has learning rate zero");
    assert_eq!(first.steps, second.steps);
    assert_eq!(weights_1, weights_2);
    assert_eq!(first.checkpoints, [3, 6]);
    let last = first.steps.last().unwrap();
    assert!(last.loss < 0.69, "it learns: {}", last.loss);
}

#[test]
fn accumulation_agrees_up_to_rounding() {
    let (whole, _) = train(settings(), FAST);
    let (split, _) = train(TrainSettings { micro_batch: MicroBatch::Examples(1), ..settings() }, FAST);
    assert_close(&whole, &split);
    let (balanced, _) = train(TrainSettings { micro_batch: MicroBatch::Tokens(40), ..settings() }, FAST);
    assert_close(&whole, &balanced);
    let (alone, _) = train(TrainSettings { micro_batch: MicroBatch::Tokens(1), ..settings() }, FAST);
    assert_close(&split, &alone);
}

#[test]
fn each_option_of_scoring_agrees_up_to_rounding() {
    let (plain, _) = train(settings(), PLAIN);
    for scoring in [
        Scoring { layout: FAST.layout, ..PLAIN },
        Scoring { padding: FAST.padding, ..PLAIN },
        Scoring { head: FAST.head, ..PLAIN },
        Scoring { activations: Activations::Recomputed, ..PLAIN },
        Scoring { activations: Activations::Recomputed, ..FAST },
        FAST,
    ] {
        let (other, _) = train(settings(), scoring);
        assert_close(&plain, &other);
        let shares = scoring.layout == Layout::SharedPrompt;
        assert_eq!(other.steps[0].tokens < plain.steps[0].tokens, shares, "a shared prompt is computed once");
    }
}

#[test]
fn layerwise_backward_is_bitwise_equal() {
    let by_layer = |scoring| Scoring { activations: Activations::KeptByLayer, ..scoring };
    for scoring in [FAST, PLAIN] {
        for settings in [
            settings(),
            TrainSettings { kind: Kind::BFloat16, ..settings() },
            TrainSettings { trained: adapters(), ..settings() },
        ] {
            let ((one, weights_of_one), (other, weights_of_other)) =
                (train(settings.clone(), scoring), train(settings, by_layer(scoring)));
            assert_eq!(one.steps, other.steps);
            assert!(weights_of_one == weights_of_other);
        }
    }
}

#[test]
fn adapters_agree_under_each_option_and_keep_the_weights() {
    let lora = TrainSettings { trained: adapters(), learning_rate: 1e-2, ..settings() };
    let (plain, trained) = train(lora.clone(), PLAIN);
    assert_eq!(trained, weights(&policy()), "frozen weights are unchanged");
    for scoring in [FAST, Scoring { activations: Activations::Recomputed, ..FAST }] {
        let (other, _) = train(lora.clone(), scoring);
        assert_close(&plain, &other);
    }
    let (split, _) = train(TrainSettings { micro_batch: MicroBatch::Examples(1), ..lora.clone() }, FAST);
    assert_close(&plain, &split);
    let Trained::Adapters(mut dropping) = adapters() else { unreachable!("adapters are trained") };
    dropping.dropout = 0.3;
    let dropping = TrainSettings { trained: Trained::Adapters(dropping), ..lora.clone() };
    let (dropped, _) = train(dropping.clone(), PLAIN);
    assert_ne!(dropped.steps[3].loss, plain.steps[3].loss);
    for (scoring, examples) in
        [(FAST, 8), (PLAIN, 3), (Scoring { activations: Activations::Recomputed, ..FAST }, 1)]
    {
        let micro_batch = MicroBatch::Examples(examples);
        let (other, _) = train(TrainSettings { micro_batch, ..dropping.clone() }, scoring);
        assert_close(&dropped, &other);
    }
    let losses: Vec<f64> = plain.steps.iter().map(|step| step.loss).collect();
    assert!((losses[0] - std::f64::consts::LN_2).abs() < 1e-6, "initial adapters are zero");
    assert!(losses[5] < losses[0], "it learns: {losses:?}");
    let (low, _) = train(TrainSettings { kind: Kind::BFloat16, ..lora }, FAST);
    assert!(low.steps[5].loss < low.steps[0].loss, "in bfloat16 too");
}

#[test]
fn an_untrained_policy_equals_its_reference_bitwise() {
    let still = TrainSettings {
        learning_rate: 0.0,
        length: Length::Epochs(1.0),
        batch_size: 5,
        // Too few for thread replicas.
        micro_batch: MicroBatch::Examples(3),
        ..settings()
    };
    for kind in [Kind::Float, Kind::BFloat16] {
        let policy = policy();
        let computing = Policy::from_parameters(
            policy.config().clone(),
            policy.parameters().iter().map(|(name, t)| (name.clone(), t.to_kind(kind))).collect(),
        )
        .unwrap();
        // Long enough for products of many rows: libtorch uses another fp32 kernel for few rows.
        let mut pairs = pairs(20);
        for pair in &mut pairs {
            pair.prompt = pair.prompt.iter().copied().cycle().take(80).collect();
        }
        // The reference sees every other pair swapped, as under flipped labels.
        let mut swapped = pairs.clone();
        for pair in swapped.iter_mut().step_by(2) {
            std::mem::swap(&mut pair.chosen, &mut pair.rejected);
        }
        let mut reference = SequenceLogps::compute(&computing, &swapped, FAST, |_| {}).unwrap();
        for i in (0..pairs.len()).step_by(2) {
            std::mem::swap(&mut reference.chosen[i], &mut reference.rejected[i]);
        }
        let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() };
        let objective = PreferenceObjective {
            pairs: &pairs,
            reference: Some(&reference),
            loss: loss.into(),
            kl_pairs: None,
            scoring: FAST,
        };
        let mut record = Record::default();
        Trainer::new(&policy, &objective, TrainSettings { kind, ..still.clone() })
            .unwrap()
            .run(&mut record)
            .unwrap();
        assert_eq!(record.steps.len(), 4);
        for step in record.steps {
            let measured = step.preference.unwrap();
            assert_eq!((measured.margin, measured.accuracy), (0.0, 0.0), "{kind:?}, step {}", step.step);
            assert!((step.loss - std::f64::consts::LN_2).abs() < 1e-15, "{kind:?}: {}", step.loss);
        }
    }
}

#[test]
fn bfloat16_computation_has_fp32_masters() {
    let tiny = TrainSettings { kind: Kind::BFloat16, learning_rate: 5e-7, warmup_ratio: 0.0, ..settings() };
    let (record, after) = train(tiny, FAST);
    assert!(record.steps.iter().all(|s| (s.loss - std::f64::consts::LN_2).abs() < 0.05));
    let before = weights(&policy());
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    // At this rate most bfloat16 weights could not change; fp32 masters do.
    assert!(moved * 2 > before.len(), "{moved} of {} weights moved", before.len());
}

#[test]
fn a_nan_loss_stops_before_the_update() {
    let (policy, pairs) = (policy(), pairs(8));
    let mut reference = SequenceLogps::compute(&policy, &pairs, FAST, |_| {}).unwrap();
    reference.chosen[3] = f64::NAN;
    let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() };
    let objective = PreferenceObjective {
        pairs: &pairs,
        reference: Some(&reference),
        loss: loss.into(),
        kl_pairs: None,
        scoring: FAST,
    };
    let mut trainer = Trainer::new(&policy, &objective, settings()).unwrap();
    let error = trainer.run(&mut Record::default()).unwrap_err().to_string();
    assert!(error.starts_with("the loss is NaN at step 1"), "{error}");
    assert!(error.contains("pair-3"), "it names the batch: {error}");
    assert_eq!(weights(&trainer.master_policy().unwrap()), weights(&policy));
}

/// Requests a stop after a number of steps, which it counts by its progress calls.
struct StopAfter<'a> {
    stop: &'a AtomicBool,
    after: u64,
}

impl Progress for StopAfter<'_> {
    fn begin(&mut self, _: &str, _: u64) {}

    fn advance(&mut self, done: u64, _: &str) {
        self.stop.store(done >= self.after, Ordering::Relaxed);
    }

    fn end(&mut self) {}
}

/// A supervised run in `root`, with a stop request after `after` steps.
fn supervised(root: &Path, start: Start, after: u64) -> Result<Outcome, TrainError> {
    supervised_of(Trained::All, root, start, after)
}

fn supervised_of(trained: Trained, root: &Path, start: Start, after: u64) -> Result<Outcome, TrainError> {
    let (policy, dialogues) = (policy(), dialogues(40));
    let companions = root.parent().unwrap().join("companions");
    fs::create_dir_all(&companions).unwrap();
    let dir = RunDir::open(root, "seed = 0\n", start)?;
    let run = SupervisedRun {
        policy: &policy,
        companions: &companions,
        dialogues: &dialogues,
        settings: TrainSettings { checkpoints: vec![0.3, 0.6, 1.0], trained, ..settings() },
        dir: &dir,
    };
    let stop = AtomicBool::new(false);
    let mut progress = StopAfter { stop: &stop, after };
    let clock = Ticking::default();
    let mut context = Context {
        clock: &clock,
        progress: &mut progress,
        stop: &stop,
        group: ProcessGroup::single(),
        cache: None,
    };
    run_supervised(run, &mut context)
}

fn read(root: &Path, file: &str) -> Vec<u8> {
    fs::read(root.join(file)).unwrap()
}

#[test]
fn a_stopped_run_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    assert_eq!(supervised(&whole, Start::Fresh, u64::MAX).unwrap(), Outcome::Finished);
    assert_eq!(supervised(&parts, Start::Fresh, 2).unwrap(), Outcome::Stopped(2));
    assert_eq!(supervised(&parts, Start::Resume, 5).unwrap(), Outcome::Stopped(5));
    assert_eq!(supervised(&parts, Start::Resume, u64::MAX).unwrap(), Outcome::Finished);
    for file in ["model/model.safetensors", "metrics.jsonl", "checkpoints/step-6/model.safetensors"] {
        assert!(read(&whole, file) == read(&parts, file), "{file} differs");
    }
    let steps = |root: &Path| {
        let listed = RunDir::open_finished(root).unwrap().list_checkpoints().unwrap();
        listed.into_iter().map(|(step, _)| step).collect::<Vec<_>>()
    };
    assert_eq!(steps(&whole), [3, 6, 10]);
    assert_eq!(steps(&parts), steps(&whole), "checkpoints of interruptions are removed");
    assert_eq!(supervised(&parts, Start::Resume, 0).unwrap(), Outcome::Finished, "no step is repeated");
}

#[test]
fn adapters_are_saved_merged_and_separately_and_resume_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    supervised_of(adapters(), &whole, Start::Fresh, u64::MAX).unwrap();
    assert_eq!(supervised_of(adapters(), &parts, Start::Fresh, 5).unwrap(), Outcome::Stopped(5));
    supervised_of(adapters(), &parts, Start::Resume, u64::MAX).unwrap();
    let adapter = "adapter/adapter_model.safetensors";
    for file in ["model/model.safetensors", adapter, &format!("checkpoints/step-6/{adapter}")] {
        assert!(read(&whole, file) == read(&parts, file), "{file} differs");
    }
    let base = policy();
    let merged = Policy::load(&whole.join("model"), Kind::Float, Device::Cpu).unwrap();
    let over_base = base.load_adapters(&whole.join("adapter")).unwrap();
    let rows = Rows::causal(&[&[3, 4, 5, 6, 7]], Device::Cpu);
    let states =
        |policy: &Policy| Vec::<f32>::try_from(policy.hidden_states(&rows).unwrap().view(-1)).unwrap();
    for (a, b) in states(&merged).iter().zip(states(&over_base)) {
        assert!(f64::from((a - b).abs()) < REORDERED_FP32 * f64::from(b.abs()).max(1.0), "{a} and {b}");
    }
    for ((name, before), (_, after)) in base.parameters().iter().zip(merged.parameters()) {
        let is_target = name.contains("q_proj") || name.contains("down_proj");
        assert_eq!(before.equal(after), !is_target, "{name}");
    }
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    supervised(&whole, Start::Fresh, u64::MAX).unwrap();
    supervised(&parts, Start::Fresh, 5).unwrap();
    let state = parts.join("checkpoints/step-5/trainer/optimizer.safetensors");
    let bytes = fs::read(&state).unwrap();
    fs::write(&state, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(supervised(&parts, Start::Resume, u64::MAX).unwrap(), Outcome::Finished);
    assert!(read(&whole, "model/model.safetensors") == read(&parts, "model/model.safetensors"));
}

#[test]
fn a_folder_has_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    assert_eq!(supervised(&root, Start::Resume, 1).unwrap(), Outcome::Stopped(1), "resuming starts a run");
    let again = supervised(&root, Start::Fresh, 1).unwrap_err().to_string();
    assert!(again.contains("pass --resume"), "{again}");
    let other = RunDir::open(&root, "seed = 1\n", Start::Resume).unwrap_err().to_string();
    assert!(other.contains("there `seed = 0`, here `seed = 1`"), "{other}");
}
