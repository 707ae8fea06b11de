//! Estimates the time of a run on this machine from a few seconds of measurement.

use policy_model::{ModelConfig, Policy, Targets};
use pref_data::{Dialogue, TokenCompletion, TokenPair};
use tch::{Device, Kind, Tensor};

use super::Precision;
use crate::context::Clock;
use crate::engine::{Observer, Trainer};
use crate::error::TrainError;
use crate::kl_pairs::KlPairs;
use crate::metrics::StepMetrics;
use crate::objective::{Loss, Objective, PreferenceObjective, SupervisedObjective};
use crate::pair_deltas::PairDelta;
use crate::parameters::Trained;
use crate::reference::{SequenceLogps, logps_of_dialogues};
use crate::scoring::Scoring;
use crate::settings::{Length, MicroBatch, Order, TrainSettings};
use crate::state::TrainerState;
use crate::unpaired::{Mismatched, UnpairedObjective, dialogues};

/// Estimated time on this machine in seconds, without evaluations and checkpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlannedTime {
    /// The reference's pass over the pairs; 0 if it is cached or there is no reference.
    pub reference: f64,
    /// All optimizer steps.
    pub training: f64,
}

/// The work of a run that determines its time.
pub(super) struct Work<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) settings: &'a TrainSettings,
    pub(super) scoring: Scoring,
    /// `None` in supervised training.
    pub(super) loss: Option<Loss>,
    /// The training examples, in their given order.
    pub(super) examples: TimedExamples<'a>,
    /// The number of tokens that the reference has not scored yet.
    pub(super) to_score: usize,
    pub(super) device: Device,
    pub(super) precision: Precision,
}

/// Training examples.
#[derive(Clone, Copy)]
pub(super) enum TimedExamples<'a> {
    Pairs(&'a [TokenPair]),
    Unpaired(&'a [TokenCompletion]),
}

/// The examples of a batch.
enum TimedBatch {
    Pairs(Vec<TokenPair>),
    Unpaired(Vec<TokenCompletion>),
}

impl TimedExamples<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Unpaired(completions) => completions.len(),
        }
    }

    fn tokens_of(self, example: usize) -> usize {
        match self {
            Self::Pairs(pairs) => pairs[example].unique_tokens(),
            Self::Unpaired(completions) => {
                let TokenCompletion { prompt, completion, .. } = &completions[example];
                prompt.len() + completion.len()
            }
        }
    }

    /// Returns the tokens of all examples.
    pub(super) fn tokens(self) -> usize {
        (0..self.len()).map(|example| self.tokens_of(example)).sum()
    }

    /// Returns some examples, with ids that a vocabulary of this size holds.
    fn batch(self, examples: &[usize], vocabulary: u32) -> TimedBatch {
        match self {
            Self::Pairs(pairs) => {
                let within = |&at: &usize| within(pairs[at].clone(), vocabulary);
                TimedBatch::Pairs(examples.iter().map(within).collect())
            }
            Self::Unpaired(completions) => {
                let small = |ids: &[u32]| ids.iter().map(|id| id % vocabulary).collect();
                let within = |&at: &usize| {
                    let one = &completions[at];
                    TokenCompletion {
                        prompt: small(&one.prompt),
                        completion: small(&one.completion),
                        removed: small(&one.removed),
                        ..one.clone()
                    }
                };
                TimedBatch::Unpaired(examples.iter().map(within).collect())
            }
        }
    }
}

/// Depths of the two measured models. Their difference in time gives the time per layer; the rest is independent of
/// depth.
const LAYERS: [usize; 2] = [1, 5];

/// Duration of each measurement, after one warm-up step.
const SECONDS: f64 = 0.7;

/// The maximum memory of a measured model's weights with their training state, in bytes. Larger models are measured at
/// half the width or less.
const MOST_BYTES: u64 = 2 << 30;

impl Work<'_> {
    /// Measures steps of shallow models on one typical batch, and extrapolates to the run.
    ///
    /// Time is proportional to tokens and layers. This is exact for everything but attention, whose share is small at
    /// typical lengths of preference data.
    pub(super) fn time(&self, clock: &dyn Clock) -> Result<PlannedTime, TrainError> {
        let batch = self.typical_batch();
        let tried = batch.iter().map(|&example| self.examples.tokens_of(example)).sum::<usize>() as f64;
        let small = narrowed(self.config);
        let batch = self.examples.batch(&batch, small.vocab_size as u32);
        let layers = LAYERS.map(|layers| layers.min(small.layers));
        let of = |layers: usize| self.try_out(&small, layers, &batch, clock);
        let (few, more) = (of(layers[0])?, of(layers[1])?);
        let whole = |few: f64, more: f64| {
            let of_layer = ((more - few) / (layers[1] - layers[0]).max(1) as f64).max(0.0);
            let seconds = more + of_layer * (small.layers - layers[1]) as f64;
            seconds * self.config.active_parameter_count() as f64 / small.active_parameter_count() as f64
        };
        let steps = self.examples.tokens() as f64 * self.settings.epochs(self.examples.len()) / tried;
        Ok(PlannedTime {
            reference: whole(few.pass, more.pass) * self.to_score as f64 / tried,
            training: whole(few.step, more.step) * steps,
        })
    }

    /// The batch of the first epoch with the median number of tokens.
    fn typical_batch(&self) -> Vec<usize> {
        let order = self.settings.epoch_order(self.examples.len(), 0);
        let mut batches: Vec<&[usize]> = order.chunks(self.settings.batch_size).collect();
        let tokens = |batch: &&[usize]| batch.iter().map(|&at| self.examples.tokens_of(at)).sum::<usize>();
        batches.sort_by_key(tokens);
        batches[batches.len() / 2].to_vec()
    }

    fn try_out(
        &self,
        config: &ModelConfig,
        layers: usize,
        batch: &TimedBatch,
        clock: &dyn Clock,
    ) -> Result<Tried, TrainError> {
        let mut config = config.clone();
        config.layers = layers;
        let load = if self.settings.trained == Trained::All { Kind::Float } else { self.settings.kind };
        let policy = constant(config, load, self.device)?;
        let policy = if self.precision.is_quantized { policy.in_nf4()? } else { policy };
        let scoring = self.scoring;
        let pass = match (self.to_score, batch) {
            (0, _) => 0.0,
            (_, TimedBatch::Pairs(pairs)) => {
                let reference = policy.to_kind(self.settings.kind)?;
                repeat(clock, || SequenceLogps::compute(&reference, pairs, scoring, |_| {}).map(drop))?
            }
            (_, TimedBatch::Unpaired(completions)) => {
                let reference = policy.to_kind(self.settings.kind)?;
                let dialogues = dialogues(completions);
                repeat(clock, || logps_of_dialogues(&reference, &dialogues, scoring).map(drop))?
            }
        };
        let step = match (&self.loss, batch) {
            (&Some(Loss::Kto(loss)), TimedBatch::Unpaired(completions)) => {
                let reference = &*vec![0.0; completions.len()];
                let mismatched = &Mismatched::new(dialogues(completions), reference.to_vec());
                let objective = UnpairedObjective { completions, reference, loss, mismatched, scoring };
                self.step(&policy, &objective, clock)?
            }
            (Some(loss), TimedBatch::Pairs(batch)) => {
                let zeros = vec![0.0; batch.len()];
                let reference = SequenceLogps { chosen: zeros.clone(), rejected: zeros };
                let kl_pairs = KlPairs::new(batch.to_vec(), reference.clone());
                let kl_pairs = matches!(loss, Loss::Kto(_)).then_some(&kl_pairs);
                let reference = loss.reads_reference().then_some(&reference);
                let loss = loss.clone();
                let objective = PreferenceObjective { pairs: batch, reference, loss, kl_pairs, scoring };
                self.step(&policy, &objective, clock)?
            }
            (_, batch) => {
                let chosen = |pair: &TokenPair| Dialogue::completion(&pair.prompt, &pair.chosen);
                let dialogues: Vec<Dialogue> = match batch {
                    TimedBatch::Pairs(pairs) => pairs.iter().filter_map(chosen).collect(),
                    TimedBatch::Unpaired(completions) => dialogues(completions),
                };
                let Scoring { padding, head, activations, .. } = scoring;
                let objective = SupervisedObjective { dialogues: &dialogues, padding, head, activations };
                self.step(&policy, &objective, clock)?
            }
        };
        Ok(Tried { pass, step })
    }

    /// Returns the median duration of a step over all examples of `objective`, in seconds.
    fn step(&self, policy: &Policy, objective: &dyn Objective, clock: &dyn Clock) -> Result<f64, TrainError> {
        let batch_size = objective.examples().max(1);
        let settings = TrainSettings {
            length: Length::Steps(u64::from(u32::MAX)),
            batch_size,
            micro_batch: match self.settings.micro_batch {
                MicroBatch::Examples(examples) => MicroBatch::Examples(examples.min(batch_size)),
                tokens => tokens,
            },
            checkpoints: Vec::new(),
            trained: in_shallow(&self.settings.trained, policy.config()),
            order: Order::AsGiven,
            ..self.settings.clone()
        };
        let mut stopwatch = Stopwatch { clock, seconds: Vec::new() };
        Trainer::new(policy, objective, settings)?.run(&mut stopwatch)?;
        Ok(stopwatch.median())
    }
}

/// Seconds per batch.
struct Tried {
    pass: f64,
    step: f64,
}

/// An observer that stops training after a fixed time and records the duration of each step.
struct Stopwatch<'a> {
    clock: &'a dyn Clock,
    seconds: Vec<f64>,
}

impl Stopwatch<'_> {
    /// Durations of all steps but the first.
    fn median(&self) -> f64 {
        median(self.seconds[1..].to_vec())
    }
}

impl Observer for Stopwatch<'_> {
    fn seconds(&self) -> f64 {
        self.clock.seconds()
    }

    fn on_step(&mut self, metrics: &StepMetrics, _: &[PairDelta], _: u64) -> Result<(), TrainError> {
        self.seconds.push(metrics.step_seconds);
        Ok(())
    }

    fn on_checkpoint(&mut self, _: &TrainerState<'_>) -> Result<(), TrainError> {
        Ok(())
    }

    fn wants_stop(&self) -> bool {
        self.seconds.len() > 1 && self.seconds[1..].iter().sum::<f64>() >= SECONDS
    }
}

/// Returns the median duration of `work`, repeated for a fixed time, in seconds.
fn repeat(clock: &dyn Clock, work: impl Fn() -> Result<(), TrainError>) -> Result<f64, TrainError> {
    work()?;
    let mut seconds = Vec::new();
    while seconds.iter().sum::<f64>() < SECONDS / 2.0 {
        let began = clock.seconds();
        work()?;
        seconds.push((clock.seconds() - began).max(f64::MIN_POSITIVE));
    }
    Ok(median(seconds))
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Returns the model's configuration, scaled to a width that can be measured.
fn narrowed(config: &ModelConfig) -> ModelConfig {
    let mut small = config.clone();
    let bytes = |config: &ModelConfig| {
        let mut few = config.clone();
        few.layers = LAYERS[1].min(config.layers);
        20 * few.parameter_count()
    };
    while bytes(&small) > MOST_BYTES && small.heads.is_multiple_of(2) && small.hidden_size.is_multiple_of(2) {
        small.vocab_size = small.vocab_size.div_ceil(2);
        small.hidden_size /= 2;
        small.intermediate_size = small.intermediate_size.div_ceil(2);
        small.halve_experts();
        small.heads /= 2;
        if small.kv_heads > 1 && small.kv_heads.is_multiple_of(2) {
            small.kv_heads /= 2;
        }
    }
    small
}

/// Returns the trained weights of a model with fewer layers. Adapters of single layers become those of all, which takes longer.
fn in_shallow(trained: &Trained, config: &ModelConfig) -> Trained {
    match trained {
        Trained::Adapters(lora) if lora.fits(config).is_err() => {
            let mut lora = lora.clone();
            lora.targets = Targets::AllLinear;
            lora.modules_to_save.clear();
            Trained::Adapters(lora)
        }
        trained => trained.clone(),
    }
}

/// Maps the pair's ids to a smaller vocabulary.
fn within(mut pair: TokenPair, vocabulary: u32) -> TokenPair {
    for ids in [&mut pair.prompt, &mut pair.chosen, &mut pair.rejected] {
        ids.iter_mut().for_each(|id| *id %= vocabulary);
    }
    pair
}

/// Creates a policy with constant weights: their values do not affect the time.
fn constant(config: ModelConfig, kind: Kind, device: Device) -> Result<Policy, TrainError> {
    let weight = |(name, shape): (String, Vec<i64>)| (name, Tensor::full(shape, 0.01, (kind, device)));
    let parameters = config.parameter_shapes().into_iter().map(weight).collect();
    Ok(Policy::from_parameters(config, parameters)?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use pref_data::{Layout, Padding};
    use pref_loss::Beta;
    use seeds::Seeds;

    use super::*;
    use crate::moments::MomentKind;
    use crate::optimizer::AdamWSettings;
    use crate::schedule::Decay;
    use crate::scoring::{Activations, Head};

    /// A clock that advances by one second per reading.
    struct Ticking(Cell<f64>);

    impl Clock for Ticking {
        fn seconds(&self) -> f64 {
            self.0.set(self.0.get() + 1.0);
            self.0.get()
        }

        fn unix_seconds(&self) -> f64 {
            0.0
        }
    }

    #[test]
    fn time_is_proportional_to_tokens() {
        let config = ModelConfig::from_json(serde_json::json!({
            "model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 9, "num_attention_heads": 2, "tie_word_embeddings": true,
        }))
        .unwrap();
        let pair = |prompt: usize| TokenPair {
            id: String::new(),
            prompt: vec![1; prompt],
            chosen: vec![2; 2],
            rejected: vec![3; 3],
            flipped: false,
        };
        // Batches of 10, 20 and 30 tokens: the median one is measured.
        let pairs = [5, 15, 25].map(pair);
        let settings = TrainSettings {
            length: Length::Epochs(2.0),
            batch_size: 1,
            micro_batch: MicroBatch::Examples(4),
            learning_rate: 1e-4,
            warmup_ratio: 0.0,
            decay: Decay::Linear,
            adamw: AdamWSettings {
                betas: (0.9, 0.999),
                eps: 1e-8,
                weight_decay: 0.0,
                moments: MomentKind::Float,
            },
            max_grad_norm: 1.0,
            checkpoints: vec![1.0],
            kind: Kind::Float,
            trained: Trained::All,
            order: Order::AsGiven,
            seeds: Seeds::new(0),
        };
        let plain = Scoring {
            layout: Layout::Separate,
            padding: Padding::Right(0),
            head: Head::Full,
            activations: Activations::Recomputed,
        };
        let dpo = Loss::from(pref_loss::PreferenceLoss::Dpo { beta: Beta::new(0.1).unwrap() });
        for (loss, scoring) in [(Some(dpo.clone()), Scoring::FAST), (Some(dpo), plain), (None, Scoring::FAST)]
        {
            // Two of the three pairs, with 10 and 20 tokens.
            let to_score = if loss.is_some() { 30 } else { 0 };
            let work = Work {
                config: &config,
                settings: &settings,
                scoring,
                loss: loss.clone(),
                examples: TimedExamples::Pairs(&pairs),
                to_score,
                device: Device::Cpu,
                precision: Kind::Float.into(),
            };
            // With this clock a layer takes no time, and every step and pass takes one second.
            let PlannedTime { reference, training } = work.time(&Ticking(Cell::new(0.0))).unwrap();
            assert!((training - 2.0 * 60.0 / 20.0).abs() < 1e-9, "{training}");
            assert!((reference - if loss.is_some() { 1.5 } else { 0.0 }).abs() < 1e-9, "{reference}");
        }
    }

    #[test]
    fn a_large_model_is_measured_at_a_fraction_of_its_width() {
        let config = |hidden: usize, heads: usize| {
            ModelConfig::from_json(serde_json::json!({
                "model_type": "llama", "vocab_size": 32000, "hidden_size": hidden, "intermediate_size": 7 * hidden / 2,
                "num_hidden_layers": 32, "num_attention_heads": heads, "num_key_value_heads": heads / 4,
            }))
            .unwrap()
        };
        let seven_billion = narrowed(&config(4096, 32));
        assert_eq!((seven_billion.hidden_size, seven_billion.heads, seven_billion.layers), (1024, 8, 32));
        let mixtral = ModelConfig::from_json(serde_json::json!({
            "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        }));
        let mixtral = mixtral.unwrap();
        assert_eq!(mixtral.parameter_count(), 46_702_792_704);
        assert_eq!(mixtral.active_parameter_count(), 12_879_925_248);
        let mut narrow = narrowed(&mixtral);
        narrow.layers = LAYERS[1];
        assert!(20 * narrow.parameter_count() <= MOST_BYTES, "{}", narrow.parameter_count());
        let small = config(256, 8);
        assert_eq!(narrowed(&small).parameter_count(), small.parameter_count());
    }
}
