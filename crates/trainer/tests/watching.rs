//! Evaluations during training: their values, and that they do not affect training.

use policy_model::{AttentionMask, ModelConfig, Policy, Rows};
use pref_data::{Layout, Padding, TokenPair};
use pref_loss::{Beta, PreferenceLoss};
use rand::RngExt;
use seeds::Seeds;
use tch::{Device, Kind, Tensor};
use test_support::REORDERED_FP32;
use trainer::{
    Activations, AdamWSettings, Decay, Head, HeldOut, HeldOutMetrics, Length, MicroBatch, MomentKind,
    Observer, Order, Outcome, OwnAnswers, PairDelta, PreferenceObjective, Scoring, SequenceLogps,
    StepMetrics, TrainError, TrainSettings, Trained, Trainer, TrainerState,
};

const VOCABULARY: u32 = 24;
const BETA: f64 = 0.1;
/// A direct computation of the same numbers.
const PLAIN: Scoring = Scoring {
    layout: Layout::Separate,
    padding: Padding::Right(0),
    head: Head::Full,
    activations: Activations::Kept,
};

fn policy(seed: u64) -> Policy {
    let config = ModelConfig::from_json(serde_json::json!({
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true,
        "initializer_range": 0.2,
    }));
    Policy::initialize(config.unwrap(), &Seeds::new(seed), Kind::Float, Device::Cpu).unwrap()
}

fn pairs(stream: &str, n: usize) -> Vec<TokenPair> {
    let mut rng = Seeds::new(1).stream(stream);
    let mut ids = |longest: usize| -> Vec<u32> {
        (0..rng.random_range(1..=longest)).map(|_| rng.random_range(1..VOCABULARY)).collect()
    };
    let pair = |i: usize| TokenPair {
        id: format!("{stream}-{i}"),
        prompt: ids(9),
        chosen: ids(7),
        rejected: ids(12),
        flipped: false,
    };
    (0..n).map(pair).collect()
}

fn settings() -> TrainSettings {
    TrainSettings {
        length: Length::Epochs(2.0),
        batch_size: 8,
        micro_batch: MicroBatch::Examples(4),
        learning_rate: 1e-2,
        warmup_ratio: 0.0,
        decay: Decay::Linear,
        adamw: AdamWSettings {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
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

#[derive(Default)]
struct Record {
    steps: Vec<(StepMetrics, Vec<PairDelta>)>,
    evaluations: Vec<HeldOutMetrics>,
}

impl Observer for Record {
    fn seconds(&self) -> f64 {
        0.0
    }

    fn on_step(&mut self, metrics: &StepMetrics, deltas: &[PairDelta], _: u64) -> Result<(), TrainError> {
        self.steps.push((metrics.clone(), deltas.to_vec()));
        Ok(())
    }

    fn on_evaluation(&mut self, metrics: &HeldOutMetrics) -> Result<(), TrainError> {
        self.evaluations.push(*metrics);
        Ok(())
    }

    fn on_checkpoint(&mut self, _: &TrainerState<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        false
    }
}

fn answers(prompts: usize, max_tokens: usize) -> OwnAnswers {
    OwnAnswers { reference: policy(5), prompts, max_tokens, stop_tokens: vec![0], seeds: Seeds::new(9) }
}

/// Trains, evaluates on `held_out` if given, and returns the observed metrics and the trained policy.
fn train(held_out: Option<(&[TokenPair], Option<OwnAnswers>, u64)>) -> (Record, Policy) {
    let (policy, pairs) = (policy(5), pairs("trained", 20));
    let score = |pairs: &[TokenPair]| SequenceLogps::compute(&policy, pairs, Scoring::FAST, |_| {}).unwrap();
    let reference = score(&pairs);
    let (loss, scoring) = (PreferenceLoss::Dpo { beta: Beta::new(BETA).unwrap() }, Scoring::FAST);
    let objective = PreferenceObjective {
        pairs: &pairs,
        reference: Some(&reference),
        loss: loss.into(),
        kl_pairs: None,
        scoring,
    };
    let mut record = Record::default();
    let trained = |trainer: &mut Trainer<'_>, record: &mut Record| {
        assert_eq!(trainer.run(record).unwrap(), Outcome::Finished);
        trainer.master_policy().unwrap()
    };
    let policy = match held_out {
        None => trained(&mut Trainer::new(&policy, &objective, settings()).unwrap(), &mut record),
        Some((pairs, answers, every)) => {
            let reference = score(pairs);
            let held_out = HeldOut {
                pairs,
                reference: Some(&reference),
                loss: loss.into(),
                kl_pairs: None,
                scoring,
                answers,
            };
            let trainer = Trainer::new(&policy, &objective, settings()).unwrap();
            trained(&mut trainer.with_held_out(&held_out, every), &mut record)
        }
    };
    (record, policy)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= REORDERED_FP32 * a.abs().max(1.0), "{a} and {b}");
}

#[test]
fn held_out_metrics_match_their_definitions() {
    let held_out = pairs("held out", 13);
    let (record, trained) = train(Some((&held_out, None, 0)));
    let steps: Vec<u64> = record.evaluations.iter().map(|metrics| metrics.step).collect();
    assert_eq!(steps, [0, 3, 6], "before the first step and at both checkpoints");
    let first = record.evaluations[0];
    assert_eq!(first.loss, std::f64::consts::LN_2);
    assert_eq!((first.margin(), first.accuracy()), (Some(0.0), Some(0.0)));
    assert_eq!((first.kl, first.answer_tokens), (None, None));

    let score = |policy: &Policy| SequenceLogps::compute(policy, &held_out, PLAIN, |_| {}).unwrap();
    let (now, then) = (score(&trained), score(&policy(5)));
    let mean = |of: &dyn Fn(usize) -> f64| (0..held_out.len()).map(of).sum::<f64>() / held_out.len() as f64;
    let delta = |i: usize| now.chosen[i] - then.chosen[i] - (now.rejected[i] - then.rejected[i]);
    close(record.evaluations[2].loss, mean(&|i| (-BETA * delta(i)).exp().ln_1p()));
    let last = record.evaluations[2].preference.unwrap();
    close(last.margin, mean(&|i| BETA * delta(i)));
    close(last.chosen_reward, mean(&|i| BETA * (now.chosen[i] - then.chosen[i])));
    close(last.rejected_reward, mean(&|i| BETA * (now.rejected[i] - then.rejected[i])));
    close(last.accuracy, mean(&|i| f64::from(u8::from(delta(i) > 0.0))));
    close(last.chosen_logps, mean(&|i| now.chosen[i]));
    close(last.rejected_logps, mean(&|i| now.rejected[i]));
    assert!(last.margin.abs() > 0.01, "something moved");
}

#[test]
fn evaluation_does_not_affect_training_and_has_its_interval() {
    let held_out = pairs("held out", 5);
    let (watched, watched_policy) = train(Some((&held_out, Some(answers(5, 6)), 2)));
    let (unwatched, policy) = train(None);
    let steps: Vec<u64> = watched.evaluations.iter().map(|metrics| metrics.step).collect();
    assert_eq!(steps, [0, 2, 3, 4, 6]);
    assert_eq!(watched.steps, unwatched.steps);
    for ((name, a), (_, b)) in watched_policy.parameters().iter().zip(policy.parameters()) {
        assert!(a.equal(b), "{name}");
    }
}

#[test]
fn deltas_are_the_margins_of_the_step_without_beta() {
    let (record, _) = train(None);
    let mut seen = vec![0; 20];
    for (metrics, deltas) in &record.steps {
        let mean = deltas.iter().map(|row| row.delta).sum::<f64>() / deltas.len() as f64;
        close(metrics.preference.unwrap().margin, BETA * mean);
        deltas.iter().for_each(|row| seen[row.pair] += 1);
    }
    assert!(seen.iter().all(|&times| times == 2), "each pair once in each of two epochs: {seen:?}");
}

/// Returns log-probabilities of the token after each prompt, `[prompts][vocabulary]`.
fn next(policy: &Policy, prompts: &[TokenPair]) -> Vec<Vec<f64>> {
    let of = |prompt: &[u32]| {
        let ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
        let length = ids.len() as i64;
        let row = |values: &Tensor| values.view([1, length]);
        let positions = Tensor::arange(length, (Kind::Int64, Device::Cpu));
        let rows = Rows {
            ids: row(&Tensor::from_slice(&ids)),
            positions: row(&positions),
            mask: AttentionMask::Causal,
            dropout: None,
            routing: None,
        };
        let logits = tch::no_grad(|| policy.logits(&policy.hidden_states(&rows).unwrap()));
        let last = logits.view([length, -1]).get(length - 1).log_softmax(-1, Kind::Double);
        Vec::<f64>::try_from(last).unwrap()
    };
    prompts.iter().map(|pair| of(&pair.prompt)).collect()
}

#[test]
fn the_kl_of_one_token_answers_matches_the_exact_kl() {
    const PROMPTS: usize = 400;
    let held_out = pairs("asked", PROMPTS);
    let (record, trained) = train(Some((&held_out, Some(answers(PROMPTS, 1)), 0)));
    let first = record.evaluations[0];
    assert_eq!((first.kl, first.answer_tokens), (Some(0.0), Some(1.0)), "the policy is its reference");

    let (ours, theirs) = (next(&trained, &held_out), next(&policy(5), &held_out));
    let (mut divergence, mut variance) = (0.0, 0.0);
    for (p, q) in ours.iter().zip(&theirs) {
        let moment = |k: i32| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q).powi(k)).sum::<f64>();
        divergence += moment(1) / PROMPTS as f64;
        variance += (moment(2) - moment(1).powi(2)) / (PROMPTS * PROMPTS) as f64;
    }
    let (kl, error) = (record.evaluations[2].kl.unwrap(), variance.sqrt());
    assert!(divergence > 5.0 * error, "the policy has changed: {divergence}, standard error {error}");
    assert!(
        (kl - divergence).abs() < 4.0 * error,
        "{kl} differs from {divergence}, with standard error {error}"
    );
}

#[test]
fn answers_without_room_in_the_context_are_not_evaluated() {
    let held_out = pairs("asked", 3);
    let longer_than_the_context = policy(5).config().max_position_embeddings;
    let (record, _) = train(Some((&held_out, Some(answers(3, longer_than_the_context)), 0)));
    assert!(record.evaluations.iter().all(|metrics| metrics.kl.is_none() && metrics.answer_tokens.is_none()));
}

#[test]
fn answers_end_at_the_limit_and_their_kl_grows() {
    let held_out = pairs("asked", 40);
    let (record, _) = train(Some((&held_out, Some(answers(40, 12)), 0)));
    assert!(record.evaluations.iter().all(|metrics| metrics.answer_tokens.unwrap() <= 12.0));
    assert!(record.evaluations[2].kl.unwrap() > 0.0);
}
