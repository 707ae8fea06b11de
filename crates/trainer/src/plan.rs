//! What a run would do, in numbers; nothing runs.

mod cluster;
mod memory;
mod time;

use distributed::Sharding;
use pref_data::{Dialogue, TokenPair, TokenizeReport, ViewReport};
use tch::{Device, Kind};

use crate::context::Clock;
use crate::engine::{MicroBatch, TrainSettings};
use crate::error::TrainError;
use crate::input::Input;
use crate::recipe::Recipe;
use crate::reference::{ReferenceModel, ReferencePasses};
use crate::run::{compute_kind, scoring, settings};
use crate::run_dir::{RunDir, Start};
use crate::scoring::Scoring;
use cluster::Load;
use time::Work;

pub use cluster::{Cluster, OnCluster};
pub use memory::{Memory, WidestMicroBatch};
pub use time::PlannedTime;

/// What a run would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What became of the records.
    pub view: ViewReport,
    /// What became of the pairs, before the recipe's share of them was taken.
    pub tokenized: TokenizeReport,
    /// Examples trained on: the recipe's share of the pairs.
    pub examples: usize,
    /// Of these, how many have their label swapped.
    pub flipped: usize,
    /// Tokens of the prompts of the examples.
    pub prompt: TokenCounts,
    /// Tokens of their chosen responses.
    pub chosen: TokenCounts,
    /// Tokens of their rejected responses.
    pub rejected: TokenCounts,
    /// Passes over the examples.
    pub epochs: u64,
    /// Optimiser steps a pass.
    pub steps_per_epoch: u64,
    /// After which optimiser steps a checkpoint is written.
    pub checkpoints: Vec<u64>,
    /// Weights of the policy.
    pub parameters: u64,
    /// How many numbers are trained: all weights, or those of the adapters.
    pub trained: u64,
    /// The micro-batch with the most tokens.
    pub widest: WidestMicroBatch,
    /// What training takes.
    pub memory: Memory,
    /// How long it takes on this machine.
    pub time: PlannedTime,
    /// Which cluster it is computed for.
    pub cluster: Cluster,
    /// What it would take there, where each GPU holds its part of the optimiser's state (ZeRO-1).
    pub on_cluster: OnCluster,
    /// What it would take there where each GPU holds all of it.
    pub replicated: OnCluster,
    /// The pass of the reference; none in supervised training.
    pub reference: Option<PlannedReference>,
}

/// Tokens of one part of the examples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenCounts {
    /// The mean.
    pub mean: f64,
    /// The most.
    pub max: usize,
}

/// Log-probabilities of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedReference {
    /// Sequences that are scored: two for each pair of the data, whatever share of them the recipe uses; four for KTO.
    pub sequences: usize,
    /// Whether an earlier run kept them.
    pub is_cached: bool,
}

impl Plan {
    /// Optimiser steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        self.epochs * self.steps_per_epoch
    }
}

impl TokenCounts {
    fn of<'a>(parts: impl Iterator<Item = &'a Vec<u32>>) -> Self {
        let (mut count, mut sum, mut max) = (0usize, 0usize, 0);
        for ids in parts {
            count += 1;
            sum += ids.len();
            max = max.max(ids.len());
        }
        Self { mean: sum as f64 / count.max(1) as f64, max }
    }
}

/// What [`run`](crate::run()) would do. Files are read as a run reads them, but for the weights: a plan of a 70B model needs no
/// memory for it. Nothing is written. How long it would take is tried for a few seconds by `clock`, on layers of this model's
/// width. The run is also computed on a `cluster`.
///
/// # Errors
///
/// As for a run, for everything that a run can tell of recipe, model, data and output folder before its first step.
pub fn plan(recipe: &Recipe, start: Start, cluster: Cluster, clock: &dyn Clock) -> Result<Plan, TrainError> {
    recipe.train.take_threads();
    let loss = recipe.loss.build()?;
    let input = Input::read(recipe, None)?;
    let device = recipe.model.device.resolve();
    let kind = compute_kind(recipe.model.dtype.kind(), device);
    let scoring = scoring(recipe, input.pad_id);
    let reference = loss.as_ref().map(|_| ReferenceModel::read(recipe)).transpose()?;
    let passes = loss.as_ref().zip(reference).map(|(loss, reference)| {
        ReferencePasses::new((recipe, loss), &reference, kind, scoring, &input.all_tokens, None)
    });
    let to_score = passes.as_ref().map_or(Vec::new(), ReferencePasses::left);
    let reference = passes
        .map(|passes| PlannedReference { sequences: passes.sequences(), is_cached: to_score.is_empty() });
    RunDir::at(&recipe.output.dir).holds_run(&recipe.to_toml(), start)?;
    let settings = settings(recipe, kind)?;
    let examples = Examples::new(&input, loss.is_some());
    let steps_per_epoch = settings.steps_per_epoch(examples.len());
    let steps = settings.epochs * steps_per_epoch;
    let widest = examples.widest(&settings, scoring);
    let work = Work {
        config: &input.config,
        settings: &settings,
        scoring,
        loss,
        pairs: &input.pairs,
        to_score: &to_score,
        device,
    };
    let on_cluster = |sharding| on_cluster(&work, &examples, steps, cluster, sharding);
    let tokens = |part: fn(&TokenPair) -> &Vec<u32>| TokenCounts::of(input.pairs.iter().map(part));
    Ok(Plan {
        examples: examples.len(),
        flipped: input.pairs.iter().filter(|pair| pair.flipped).count(),
        prompt: tokens(|pair| &pair.prompt),
        chosen: tokens(|pair| &pair.chosen),
        rejected: tokens(|pair| &pair.rejected),
        epochs: settings.epochs,
        steps_per_epoch,
        checkpoints: settings.checkpoint_steps(steps),
        parameters: input.config.parameter_count(),
        trained: settings.trained.parameter_count(&input.config),
        widest,
        memory: Memory::of_training(&input.config, &settings.trained, (kind, device), scoring, widest),
        time: work.time(clock)?,
        cluster,
        on_cluster: on_cluster(Sharding::Optimizer),
        replicated: on_cluster(Sharding::None),
        reference,
        view: input.view,
        tokenized: input.tokenized,
    })
}

/// What the run would take on several GPUs, each of which computes in bfloat16 on its share of a batch.
fn on_cluster(
    work: &Work<'_>,
    examples: &Examples<'_>,
    steps: u64,
    cluster: Cluster,
    sharding: Sharding,
) -> OnCluster {
    let Work { config, settings, scoring, .. } = *work;
    let share = settings.batch_size.div_ceil(cluster.gpus as usize);
    let settings = &TrainSettings {
        micro_batch: match settings.micro_batch {
            MicroBatch::Examples(examples) => MicroBatch::Examples(examples.min(share)),
            tokens => tokens,
        },
        ..settings.clone()
    };
    let scoring = if cluster.gpus > 1 { scoring.by_layer() } else { scoring };
    let widest = examples.widest(settings, scoring);
    let on_gpu = (Kind::BFloat16, Device::Cuda(0));
    let sum = |pairs: &[TokenPair]| pairs.iter().map(TokenPair::unique_tokens).sum::<usize>() as f64;
    let load = Load {
        config,
        trained: &settings.trained,
        activations: scoring.activations,
        memory: Memory::of_training(config, &settings.trained, on_gpu, scoring, widest),
        steps,
        tokens: settings.epochs as f64 * sum(work.pairs),
        reference_tokens: sum(work.to_score),
    };
    cluster.run(&load, sharding)
}

/// What is trained on.
enum Examples<'a> {
    Pairs(&'a [TokenPair]),
    Dialogues(Vec<Dialogue>),
}

impl<'a> Examples<'a> {
    fn new(input: &'a Input, has_preferences: bool) -> Self {
        if has_preferences { Self::Pairs(&input.pairs) } else { Self::Dialogues(input.dialogues()) }
    }

    fn len(&self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Dialogues(dialogues) => dialogues.len(),
        }
    }

    /// The micro-batch with the most tokens.
    fn widest(&self, settings: &TrainSettings, scoring: Scoring) -> WidestMicroBatch {
        match self {
            Self::Pairs(pairs) => {
                widest(pairs, settings, |some: &[&TokenPair]| WidestMicroBatch::of(some, scoring))
            }
            Self::Dialogues(dialogues) => widest(dialogues, settings, |some: &[&Dialogue]| {
                WidestMicroBatch::of_dialogues(some, scoring.padding)
            }),
        }
    }
}

/// The micro-batch with the most tokens of `examples` in the very order in which a run sees them, by what `of` says of some.
fn widest<E>(
    examples: &[E],
    settings: &TrainSettings,
    of: impl Fn(&[&E]) -> WidestMicroBatch,
) -> WidestMicroBatch {
    let tokens = |example: usize| of(&[&examples[example]]).tokens as usize;
    let mut widest = WidestMicroBatch::default();
    for epoch in 0..settings.epochs {
        for batch in settings.epoch_order(examples.len(), epoch).chunks(settings.batch_size) {
            for micro_batch in settings.micro_batches(batch, tokens) {
                let some: Vec<&E> = micro_batch.iter().map(|&example| &examples[example]).collect();
                widest = widest.max(of(&some));
            }
        }
    }
    widest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_of_nothing_are_zero() {
        assert_eq!(TokenCounts::of(std::iter::empty()), TokenCounts::default());
        let ids = [vec![1], vec![1, 2, 3, 4]];
        assert_eq!(TokenCounts::of(ids.iter()), TokenCounts { mean: 2.5, max: 4 });
    }
}
