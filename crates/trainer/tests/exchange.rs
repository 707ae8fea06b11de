//! Weights are bitwise independent of how ranks exchange gradients: of sharding, and of the number of buckets. Ranks
//! are threads here.

mod common;

use std::num::NonZeroU32;
use std::thread;
use std::time::Duration;

use common::Record;
use distributed::{Exchange, Placement, ProcessGroup, Rank, Sharding, Timing, Token};
use policy_model::{Lora, ModelConfig, Policy, PolicyError, Targets};
use pref_data::TokenPair;
use pref_loss::{Beta, DynamicBeta, KtoLoss, LabelSmoothing, PreferenceLoss, Weight};
use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind, Tensor};
use trainer::{
    Activations, AdamWSettings, Decay, KlPairs, Length, Loss, MicroBatch, MomentKind, Order, PairwiseLoss,
    PreferenceObjective, Scoring, SequenceLogps, StepMetrics, TrainSettings, Trained, Trainer,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fn policy() -> Policy {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "llama", "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
        "initializer_range": 0.2,
    }));
    Policy::initialize(config.unwrap(), &Seeds::new(5), Kind::Float, Device::Cpu).unwrap()
}

fn pairs() -> Vec<TokenPair> {
    let mut rng = Seeds::new(1).stream("pairs");
    let mut ids = |longest: usize| -> Vec<u32> {
        (0..rng.random_range(1..=longest)).map(|_| rng.random_range(1..48)).collect()
    };
    let mut pair = |i: usize| TokenPair {
        id: format!("pair-{i}"),
        prompt: ids(9),
        chosen: ids(7),
        rejected: ids(12),
        flipped: false,
    };
    (0..13).map(&mut pair).collect()
}

/// The settings of one run. The last batch of an epoch is one pair, so that one of two ranks has no example.
#[derive(Clone)]
struct Way {
    kind: Kind,
    trained: Trained,
    scoring: Scoring,
    max_grad_norm: f64,
    loss: Loss,
    micro_batch: usize,
    moments: MomentKind,
    policy: fn() -> Policy,
}

impl Way {
    fn plain() -> Self {
        let dpo = PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() };
        Self {
            kind: Kind::Float,
            trained: Trained::All,
            scoring: Scoring::FAST,
            max_grad_norm: 0.0,
            loss: dpo.into(),
            micro_batch: 1,
            moments: MomentKind::Float,
            policy,
        }
    }

    fn settings(&self) -> TrainSettings {
        TrainSettings {
            length: Length::Epochs(2.0),
            batch_size: 4,
            micro_batch: MicroBatch::Examples(self.micro_batch),
            learning_rate: 1e-2,
            warmup_ratio: 0.1,
            decay: Decay::Linear,
            adamw: AdamWSettings {
                betas: (0.9, 0.999),
                eps: 1e-8,
                weight_decay: 0.01,
                moments: self.moments,
            },
            max_grad_norm: self.max_grad_norm,
            checkpoints: vec![0.5, 1.0],
            kind: self.kind,
            trained: self.trained.clone(),
            order: Order::Shuffled,
            seeds: Seeds::new(0),
        }
    }
}

/// The result of training: each step's metrics, and all trained weights.
type Result = (Vec<StepMetrics>, Vec<f32>);

fn train(way: &Way, group: ProcessGroup, exchange: Exchange) -> Result {
    tch::set_num_threads(1);
    let (policy, pairs, scoring) = ((way.policy)(), pairs(), way.scoring);
    let reference = SequenceLogps::compute(&policy, &pairs, scoring, |_| {}).unwrap();
    let shifted = KlPairs::shifted(&pairs, 64);
    let of_shifted = SequenceLogps::compute(&policy, &shifted, scoring, |_| {}).unwrap();
    let kl_pairs = KlPairs::new(shifted, of_shifted);
    let kl_pairs = matches!(way.loss, Loss::Kto(_)).then_some(&kl_pairs);
    let objective = PreferenceObjective {
        pairs: &pairs,
        reference: Some(&reference),
        loss: way.loss.clone(),
        kl_pairs,
        scoring,
    };
    let mut trainer = Trainer::together(&policy, &objective, way.settings(), group, exchange).unwrap();
    let mut record = Record::default();
    trainer.run(&mut record).unwrap();
    let policy = trainer.master_policy().unwrap();
    // As in a saved model: with sharded masters, no rank has all of them.
    let as_saved = |t: &Tensor| t.detach().view(-1).to_kind(way.kind).to_kind(Kind::Float);
    let flat = |t: &Tensor| Vec::<f32>::try_from(as_saved(t)).unwrap();
    let weights = match policy.adapters() {
        Some(adapters) => adapters.parameters().iter().flat_map(|(_, tensor)| flat(tensor)).collect(),
        None => all_weights(&policy, flat),
    };
    policy.finish_passes().unwrap();
    (record.steps, weights)
}

/// Returns all weights; layers that ranks share are gathered.
fn all_weights(policy: &Policy, flat: impl Fn(&Tensor) -> Vec<f32>) -> Vec<f32> {
    let mut weights = Vec::new();
    let collected = policy.for_each_parameter::<PolicyError>(|_, tensor| {
        weights.extend(flat(tensor));
        Ok(())
    });
    collected.unwrap();
    weights
}

/// Returns the result of each rank.
fn together(way: &Way, world_size: u16, exchange: Exchange) -> Vec<Result> {
    on_ranks(world_size, |group| train(way, group, exchange))
}

/// Runs `body` on ranks that are threads, and returns their results.
fn on_ranks<T: Send>(world_size: u16, body: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let port = test_support::free_port();
    let run_rank = |index: u16| {
        let place = Placement {
            rank: Rank::new(index, world_size).unwrap(),
            local_rank: index.into(),
            host: "127.0.0.1".to_owned(),
            port,
            token: Token::default(),
        };
        body(ProcessGroup::join(&place, Device::Cpu, TIMEOUT).unwrap())
    };
    thread::scope(|scope| {
        let run_rank = &run_rank;
        let ranks: Vec<_> = (0..world_size).map(|index| scope.spawn(move || run_rank(index))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn exchange(sharding: Sharding, bucket: u32) -> Exchange {
    Exchange { sharding, bucket: NonZeroU32::new(bucket).unwrap(), timing: Timing::DuringBackward }
}

/// Asserts that two ranks get bitwise equal results with each exchange, and equal a single process up to rounding.
fn assert_same(way: &Way, exchanges: &[Exchange]) {
    let (_, alone) = train(way, ProcessGroup::single(), Exchange::default());
    let mut first: Option<Result> = None;
    for &exchange in exchanges {
        for (rank, result) in together(way, 2, exchange).into_iter().enumerate() {
            let (steps, weights) = &result;
            let (expected_steps, expected) = first.get_or_insert_with(|| result.clone());
            assert!(weights == expected, "rank {rank}, {exchange:?}: other weights");
            for (step, expected) in steps.iter().zip(expected_steps.iter()) {
                // The order of summation in a norm depends on the shards.
                let apart = (step.grad_norm - expected.grad_norm).abs();
                assert!(apart <= 1e-6 * expected.grad_norm, "rank {rank}, {exchange:?}: {apart}");
                assert_eq!(step.loss, expected.loss, "rank {rank}, {exchange:?}");
            }
        }
    }
    let (_, weights) = first.unwrap();
    let furthest = alone.iter().zip(&weights).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Adam moves a weight even if its gradient is only rounding.
    assert!(furthest < 0.05, "{furthest}");
}

fn every_exchange() -> Vec<Exchange> {
    let shardings = [Sharding::None, Sharding::Optimizer];
    shardings.into_iter().flat_map(|s| [1_000_000, 3000, 517].map(|bucket| exchange(s, bucket))).collect()
}

const STAGES: [Sharding; 4] =
    [Sharding::None, Sharding::Optimizer, Sharding::Gradients, Sharding::Parameters];

/// Layers are recomputed, as stage 3 requires.
const RECOMPUTED: Scoring = Scoring { activations: Activations::Recomputed, ..Scoring::FAST };

#[test]
fn all_stages_agree_bitwise_on_one_micro_batch() {
    let exchanges: Vec<Exchange> =
        STAGES.iter().flat_map(|stage| [1_000_000, 517].map(|bucket| exchange(*stage, bucket))).collect();
    for kind in [Kind::Float, Kind::BFloat16] {
        assert_same(&Way { kind, micro_batch: 4, scoring: RECOMPUTED, ..Way::plain() }, &exchanges);
    }
}

#[test]
fn losses_of_all_stages_match_those_of_one_process() {
    let way = Way { max_grad_norm: 1.0, scoring: RECOMPUTED, ..Way::plain() };
    let (alone, _) = train(&way, ProcessGroup::single(), Exchange::default());
    // With four ranks and batches of four and of one, some ranks have no example.
    for (world_size, stage) in [2, 4].into_iter().flat_map(|n| STAGES.map(|stage| (n, stage))) {
        for (steps, _) in together(&way, world_size, exchange(stage, 3000)) {
            for (step, alone) in steps.iter().zip(&alone) {
                let apart = (step.loss - alone.loss).abs();
                assert!(apart < 1e-5, "{stage:?} on {world_size}, step {}: {apart}", step.step);
            }
        }
    }
    assert!(alone.last().unwrap().loss < alone[0].loss, "it learns: {alone:?}");
}

/// A small Mixtral with random weights.
fn experts() -> Policy {
    let config = serde_json::json!({
        "model_type": "mixtral", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "tie_word_embeddings": false,
    });
    let config = ModelConfig::from_json(config).unwrap();
    Policy::initialize(config, &Seeds::new(3), Kind::Float, Device::Cpu).unwrap()
}

/// Nats. The tokens of an expert depend on the batch, and with them the rounding of its products.
const ROUNDING_OF_EXPERTS: f64 = 1e-4;

#[test]
fn experts_train_alike_at_all_stages() {
    let way = Way { max_grad_norm: 1.0, scoring: RECOMPUTED, policy: experts, ..Way::plain() };
    let (alone, _) = train(&way, ProcessGroup::single(), Exchange::default());
    for (world_size, stage) in [2, 3].into_iter().flat_map(|n| STAGES.map(|stage| (n, stage))) {
        for (steps, _) in together(&way, world_size, exchange(stage, 3000)) {
            for (step, alone) in steps.iter().zip(&alone) {
                let apart = (step.loss - alone.loss).abs();
                assert!(
                    apart < ROUNDING_OF_EXPERTS,
                    "{stage:?} on {world_size}, step {}: {apart}",
                    step.step
                );
            }
        }
    }
    assert!(alone.last().unwrap().loss < alone[0].loss, "it learns: {alone:?}");
}

#[test]
fn shared_layers_serve_passes_before_the_gradient() {
    let (beta, label_smoothing) = (Beta::new(0.1).unwrap(), LabelSmoothing::new(0.1).unwrap());
    let kto = KtoLoss { beta, desirable: Weight::ONE, undesirable: Weight::ONE };
    for loss in [Loss::Kto(kto), PreferenceLoss::Aot { beta, label_smoothing }.into()] {
        let way = Way { loss, scoring: RECOMPUTED, ..Way::plain() };
        let (alone, _) = train(&way, ProcessGroup::single(), Exchange::default());
        for (steps, _) in together(&way, 3, exchange(Sharding::Parameters, 1000)) {
            for (step, alone) in steps.iter().zip(&alone) {
                assert!((step.loss - alone.loss).abs() < 1e-5, "step {}: {}", step.step, step.loss);
            }
        }
    }
}

#[test]
fn gradients_of_adapters_are_sharded_and_weights_are_not() {
    let lora = Lora::new(4, 8.0, Targets::names(["q_proj", "down_proj"]));
    let way = Way { trained: Trained::Adapters(lora), micro_batch: 4, ..Way::plain() };
    let exchanges = [Sharding::Optimizer, Sharding::Gradients].map(|stage| exchange(stage, 517));
    assert_same(&way, &exchanges);
    let refused = refusals(&way, Sharding::Parameters);
    assert!(refused.iter().all(|error| error.contains("distributed.zero = 3")), "{refused:?}");
}

#[test]
fn shared_layers_need_recomputation() {
    for activations in [Activations::Kept, Activations::KeptByLayer] {
        let way = Way { scoring: Scoring { activations, ..Scoring::FAST }, ..Way::plain() };
        for error in refusals(&way, Sharding::Parameters) {
            assert!(error.contains("Activations::Recomputed") || error.contains("failed"), "{error}");
        }
    }
}

/// Returns the error of each of two ranks.
fn refusals(way: &Way, stage: Sharding) -> Vec<String> {
    on_ranks(2, |group| {
        tch::set_num_threads(1);
        let (policy, pairs, scoring) = ((way.policy)(), pairs(), way.scoring);
        let reference = SequenceLogps::compute(&policy, &pairs, scoring, |_| {}).unwrap();
        let (loss, reference) = (way.loss.clone(), Some(&reference));
        let objective = PreferenceObjective { pairs: &pairs, reference, loss, kl_pairs: None, scoring };
        let exchange = exchange(stage, 3000);
        let trained = Trainer::together(&policy, &objective, way.settings(), group.clone(), exchange)
            .and_then(|mut trainer| trainer.run(&mut Record::default()));
        group.propagate_error(trained).unwrap_err().to_string()
    })
}

#[test]
fn all_weights_in_fp32() {
    assert_same(&Way::plain(), &every_exchange());
}

#[test]
fn all_weights_in_bf16() {
    assert_same(&Way { kind: Kind::BFloat16, ..Way::plain() }, &every_exchange());
}

#[test]
fn adapters() {
    let mut lora = Lora::new(4, 8.0, Targets::names(["q_proj", "down_proj"]));
    lora.dropout = 0.2;
    assert_same(&Way { trained: Trained::Adapters(lora), ..Way::plain() }, &every_exchange());
}

#[test]
fn adapters_over_weights_in_nf4() {
    let lora = Lora::new(4, 8.0, Targets::AllLinear);
    let way = Way {
        trained: Trained::Adapters(lora),
        policy: || policy().in_nf4().unwrap(),
        scoring: RECOMPUTED,
        micro_batch: 4,
        ..Way::plain()
    };
    assert_same(&way, &STAGES[..3].iter().map(|stage| exchange(*stage, 517)).collect::<Vec<_>>());
}

/// Nats, at a learning rate that changes the loss by a tenth of a nat: blocks of 256 numbers begin elsewhere on several ranks.
const OTHER_BLOCKS: f64 = 0.02;

#[test]
fn moments_in_eight_bits_are_sharded_at_all_stages() {
    let way = Way { moments: MomentKind::EightBit, scoring: RECOMPUTED, ..Way::plain() };
    let (alone, _) = train(&way, ProcessGroup::single(), Exchange::default());
    let (in_fp32, _) = train(
        &Way { moments: MomentKind::Float, ..way.clone() },
        ProcessGroup::single(),
        Exchange::default(),
    );
    let close = |steps: &[StepMetrics], expected: &[StepMetrics], within: f64, what: &str| {
        for (step, expected) in steps.iter().zip(expected) {
            let apart = (step.loss - expected.loss).abs();
            assert!(apart <= within, "{what}, step {}: {apart}", step.step);
        }
    };
    close(&alone, &in_fp32, OTHER_BLOCKS, "fp32");
    assert!(alone.iter().zip(&in_fp32).any(|(a, b)| a.loss != b.loss), "moments are rounded");
    for (world_size, stage) in [2, 3].into_iter().flat_map(|n| STAGES.map(|stage| (n, stage))) {
        let what = format!("{stage:?} on {world_size}");
        for (steps, _) in together(&way, world_size, exchange(stage, 3000)) {
            // Replicated moments have the blocks of one process.
            let within = if stage == Sharding::None { 1e-5 } else { OTHER_BLOCKS };
            close(&steps, &alone, within, &what);
        }
    }
}

#[test]
fn exchange_during_and_after_the_backward_pass_agree() {
    let expected = together(&Way::plain(), 2, exchange(Sharding::Optimizer, 3000)).remove(0);
    for activations in [Activations::Kept, Activations::KeptByLayer, Activations::Recomputed] {
        for timing in [Timing::DuringBackward, Timing::AfterBackward] {
            for sharding in [Sharding::None, Sharding::Optimizer] {
                let way = Way { scoring: Scoring { activations, ..Scoring::FAST }, ..Way::plain() };
                let exchange = Exchange { timing, ..exchange(sharding, 3000) };
                for (_, weights) in together(&way, 2, exchange) {
                    assert!(weights == expected.1, "{activations:?}, {exchange:?}");
                }
            }
        }
    }
}

#[test]
fn three_ranks_support_sizes_not_divisible_by_three() {
    let way = Way { max_grad_norm: 1.0, ..Way::plain() };
    let (_, whole) = together(&way, 3, exchange(Sharding::None, 1000)).remove(0);
    for (_, part) in together(&way, 3, exchange(Sharding::Optimizer, 1000)) {
        let furthest = whole.iter().zip(&part).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest < 0.05, "{furthest}");
    }
}

#[test]
fn ranks_share_one_baseline_per_batch() {
    let kto = KtoLoss { beta: Beta::new(0.1).unwrap(), desirable: Weight::ONE, undesirable: Weight::ONE };
    let way = Way { loss: Loss::Kto(kto), ..Way::plain() };
    let (alone, _) = train(&way, ProcessGroup::single(), Exchange::default());
    for (steps, _) in together(&way, 2, exchange(Sharding::None, 1000)) {
        for (step, alone) in steps.iter().zip(&alone) {
            assert!(
                (step.loss - alone.loss).abs() < 1e-5,
                "step {}: {} {}",
                step.step,
                step.loss,
                alone.loss
            );
        }
    }
    assert!((alone[0].loss - 0.5).abs() < 1e-6 && alone.last().unwrap().loss < 0.5, "it learns: {alone:?}");
}

#[test]
fn ranks_compare_the_pairs_of_a_whole_batch() {
    let (beta, label_smoothing) = (Beta::new(0.1).unwrap(), LabelSmoothing::new(0.1).unwrap());
    let dynamic_beta = DynamicBeta::new(beta, Weight::new(0.6).unwrap(), 0.9).unwrap();
    let dpo = PairwiseLoss::from(PreferenceLoss::Dpo { beta });
    let losses = [
        PreferenceLoss::Aot { beta, label_smoothing }.into(),
        PreferenceLoss::AotUnpaired { beta, label_smoothing }.into(),
        Loss::Pair(PairwiseLoss { dynamic_beta: Some(dynamic_beta), ..dpo }),
    ];
    for loss in losses {
        let way = Way { loss, ..Way::plain() };
        let (alone, _) = train(&way, ProcessGroup::single(), Exchange::default());
        for (steps, _) in together(&way, 2, exchange(Sharding::Optimizer, 1000)) {
            for (step, alone) in steps.iter().zip(&alone) {
                let apart = (step.loss - alone.loss).abs();
                assert!(apart < 1e-5, "step {}: {} {}", step.step, step.loss, alone.loss);
                assert_eq!(step.beta.is_some(), alone.beta.is_some());
            }
        }
        assert!(alone.last().unwrap().loss < alone[0].loss, "it learns: {alone:?}");
    }
}
