//! Plans a run: its size, memory and time, without training.

mod cluster;
mod largest;
mod memory;
mod time;

use distributed::Sharding;
use pref_data::{Dialogue, TokenPair, TokenizeReport, ViewReport};
use tch::{Device, Kind};

use crate::context::Clock;
use crate::error::TrainError;
use crate::input::Input;
use crate::objective::Loss;
use crate::parameters::Trained;
use crate::recipe::Recipe;
use crate::reference::{CompletionPass, ReferenceModel, ReferencePasses};
use crate::run::{
    check_model, compute_kind, digests_of_policy, run_inputs, scoring, scoring_of_ranks, settings,
};
use crate::run_dir::{RunDir, Start};
use crate::scoring::Scoring;
use crate::settings::{MicroBatch, TrainSettings};
use crate::unpaired::dialogues;
use cluster::Load;
use time::{TimedExamples, Work};

pub use cluster::{Cluster, OnCluster};
pub use largest::{LargestModel, largest_models};
pub use memory::{Memory, Precision, WidestMicroBatch};
pub use time::PlannedTime;

/// The plan of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPlan {
    /// How records became pairs.
    pub view: ViewReport,
    /// How pairs became tokens, before `data.fraction` applies.
    pub tokenized: TokenizeReport,
    /// The number of training examples, after `data.fraction`.
    pub examples: usize,
    /// The number of examples with a flipped label.
    pub flipped: usize,
    /// Tokens per prompt.
    pub prompt: TokenCounts,
    /// Tokens per chosen or desirable response.
    pub chosen: TokenCounts,
    /// Tokens per rejected or undesirable response.
    pub rejected: TokenCounts,
    /// The number of passes over the examples.
    pub epochs: f64,
    /// Optimizer steps per epoch.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Whether early stopping may end the run before its last step.
    pub stops_early: bool,
    /// The steps after which a checkpoint is written.
    pub checkpoints: Vec<u64>,
    /// The number of the policy's parameters.
    pub parameters: u64,
    /// The number of trained parameters: all, or those of the adapters.
    pub trained: u64,
    /// The micro-batch with the most tokens.
    pub widest: WidestMicroBatch,
    /// The memory of training.
    pub memory: Memory,
    /// The time on this machine.
    pub time: PlannedTime,
    /// The cluster of the estimates below.
    pub cluster: Cluster,
    /// The run on the cluster, as `distributed.zero` says.
    pub on_cluster: OnCluster,
    /// The run at each stage that it supports, from 0.
    pub by_stage: Vec<AtStage>,
    /// The run on groups of the cluster's GPUs of each size that divides their number, in ascending order, as
    /// `distributed.zero` says.
    pub by_group: Vec<(u64, OnCluster)>,
    /// The run on 1, 2, 4 and 8 GPUs of one node, as `distributed.zero` says.
    pub by_node: Vec<(u64, OnCluster)>,
    /// The reference's pass; `None` for a loss without a reference.
    pub reference: Option<PlannedReference>,
}

/// A run whose state is divided among as many processes as the cluster has GPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtStage {
    /// The memory of each process on this machine's device.
    pub here: Memory,
    /// The run on the cluster.
    pub on_cluster: OnCluster,
}

/// Token counts of prompts or responses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenCounts {
    /// The mean.
    pub mean: f64,
    /// The maximum.
    pub max: usize,
}

/// The reference's pass over the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedReference {
    /// The number of scored sequences: two per pair of the whole data set, independent of `data.fraction`, and four for
    /// KTO; two per unpaired preference that is used.
    pub sequences: usize,
    /// Whether the log-probabilities are in the cache.
    pub is_cached: bool,
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

/// Plans what [`run`](crate::run()) would do, and writes nothing.
///
/// Files are read as in a run, except weights: planning a 70B model needs no memory for it. Time is measured with
/// `clock` in a few seconds of steps on layers of this model's width. Time and memory on `cluster` are computed.
///
/// # Errors
///
/// The errors that a run returns about recipe, model, data and output folder before its first step.
pub fn plan(
    recipe: &Recipe,
    start: Start,
    cluster: Cluster,
    clock: &dyn Clock,
) -> Result<TrainPlan, TrainError> {
    recipe.train.take_threads();
    let loss = recipe.loss.build()?;
    let input = Input::read(recipe, None)?;
    let device = recipe.model.device.resolve();
    let kind = compute_kind(recipe.model.dtype.kind(), device);
    let scoring = scoring(recipe, input.pad_id);
    let has_reference = loss.as_ref().is_some_and(Loss::reads_reference);
    let reference = has_reference.then(|| ReferenceModel::read(recipe)).transpose()?;
    let settings = settings(recipe, kind)?;
    check_model(recipe, &settings.trained, &input.config)?;
    let dir = RunDir::at(&recipe.output.dir);
    if dir.holds_run(&recipe.to_toml(), start)? {
        let digests = digests_of_policy(recipe, reference.as_ref())?;
        dir.compare_inputs(
            run_inputs(&input, digests, reference.as_ref(), &settings, loss.is_some()),
            start,
        )?;
    }
    let has_preferences = loss.is_some();
    let passes = loss.as_ref().zip(reference).map(|(loss, reference)| match &*input.unpaired {
        [] => {
            let passes =
                ReferencePasses::new((recipe, loss), &reference, kind, scoring, &input.all_tokens, None);
            (passes.sequences(), passes.tokens_left())
        }
        completions => {
            let pass = CompletionPass::new(recipe, reference, kind, scoring, completions, None);
            (pass.sequences(), pass.tokens_left())
        }
    });
    let to_score = passes.map_or(0, |(_, tokens)| tokens);
    let reference = passes.map(|(sequences, tokens)| PlannedReference { sequences, is_cached: tokens == 0 });
    let examples = Examples::new(&input, has_preferences);
    let steps_per_epoch = settings.steps_per_epoch(examples.len());
    let steps = settings.total_steps(examples.len());
    let widest = examples.widest(&settings, scoring);
    let work = Work {
        config: &input.config,
        settings: &settings,
        scoring,
        loss,
        examples: match &*input.unpaired {
            [] => TimedExamples::Pairs(&input.pairs),
            completions => TimedExamples::Unpaired(completions),
        },
        to_score,
        device,
        precision: Precision {
            kind,
            moments: settings.adamw.moments,
            is_quantized: recipe.model.quantization.is_some(),
        },
    };
    let precision = work.precision;
    let sharding = recipe.distributed.exchange().sharding;
    let on_group = |gpus: u64| {
        // A single process holds the whole state.
        let sharding = if gpus == 1 { Sharding::None } else { sharding };
        (gpus, on_cluster(&work, &examples, steps, Cluster::a100s(gpus), sharding))
    };
    let by_group =
        (1..=cluster.gpus).filter(|gpus| cluster.gpus.is_multiple_of(*gpus)).map(on_group).collect();
    let by_node = [1, 2, 4, 8].map(on_group).into();
    let stages = [Sharding::None, Sharding::Optimizer, Sharding::Gradients, Sharding::Parameters];
    let is_supported = |stage: &Sharding| settings.trained == Trained::All || *stage != Sharding::Parameters;
    let at_stage = |sharding| AtStage {
        here: of_each_rank(&work, &examples, device, (sharding, cluster.gpus)),
        on_cluster: on_cluster(&work, &examples, steps, cluster, sharding),
    };
    let by_stage = stages.into_iter().filter(is_supported).map(at_stage).collect();
    let [prompt, chosen, rejected] = token_counts(&input);
    Ok(TrainPlan {
        examples: examples.len(),
        flipped: input.pairs.iter().filter(|pair| pair.flipped).count(),
        prompt,
        chosen,
        rejected,
        epochs: settings.epochs(examples.len()),
        steps_per_epoch,
        total_steps: steps,
        stops_early: recipe.train.early_stopping.is_some(),
        checkpoints: settings.checkpoint_steps(steps),
        parameters: input.config.parameter_count(),
        trained: settings.trained.parameter_count(&input.config),
        widest,
        memory: Memory::of_training(&input.config, &settings.trained, (precision, device), scoring, widest),
        time: work.time(clock)?,
        cluster,
        on_cluster: on_cluster(&work, &examples, steps, cluster, sharding),
        by_stage,
        by_group,
        by_node,
        reference,
        view: input.view,
        tokenized: input.tokenized,
    })
}

/// Returns the token counts of prompts, chosen and rejected responses. Of unpaired preferences, the desirable are the
/// chosen ones.
fn token_counts(input: &Input) -> [TokenCounts; 3] {
    let completions = &input.unpaired;
    if completions.is_empty() {
        let counts = |part: fn(&TokenPair) -> &Vec<u32>| TokenCounts::of(input.pairs.iter().map(part));
        return [counts(|pair| &pair.prompt), counts(|pair| &pair.chosen), counts(|pair| &pair.rejected)];
    }
    let labeled = |is_desirable| {
        let these = completions.iter().filter(move |one| one.is_desirable == is_desirable);
        TokenCounts::of(these.map(|one| &one.completion))
    };
    [TokenCounts::of(completions.iter().map(|one| &one.prompt)), labeled(true), labeled(false)]
}

/// Estimates the run on several GPUs; each computes its shard of a batch in bfloat16.
fn on_cluster(
    work: &Work<'_>,
    examples: &Examples<'_>,
    steps: u64,
    cluster: Cluster,
    sharding: Sharding,
) -> OnCluster {
    let config = work.config;
    let (settings, scoring) = of_rank(work, cluster.gpus, sharding);
    let widest = examples.widest(&settings, scoring);
    let on_gpu = (Precision { kind: Kind::BFloat16, ..work.precision }, Device::Cuda(0));
    let tokens = settings.epochs(work.examples.len()) * work.examples.tokens() as f64;
    let share = settings.batch_size.div_ceil(cluster.gpus as usize);
    let micro_batches = match settings.micro_batch {
        MicroBatch::Examples(examples) => share.div_ceil(examples) as f64,
        MicroBatch::Tokens(most) => {
            (tokens / (steps.max(1) * cluster.gpus) as f64 / most as f64).ceil().max(1.0)
        }
    };
    let load = Load {
        config,
        trained: &settings.trained,
        activations: scoring.activations,
        memory: Memory::of_training(config, &settings.trained, on_gpu, scoring, widest),
        steps,
        micro_batches,
        tokens,
        reference_tokens: work.to_score as f64,
    };
    cluster.run(&load, sharding)
}

/// Returns the settings of each of several ranks.
fn of_rank(work: &Work<'_>, ranks: u64, sharding: Sharding) -> (TrainSettings, Scoring) {
    let share = work.settings.batch_size.div_ceil(ranks as usize);
    let settings = TrainSettings {
        micro_batch: match work.settings.micro_batch {
            MicroBatch::Examples(examples) => MicroBatch::Examples(examples.min(share)),
            tokens => tokens,
        },
        ..work.settings.clone()
    };
    let scoring = if ranks > 1 { scoring_of_ranks(work.scoring, sharding) } else { work.scoring };
    (settings, scoring)
}

/// Returns the memory of each of several ranks on this machine's device.
fn of_each_rank(
    work: &Work<'_>,
    examples: &Examples<'_>,
    device: Device,
    (sharding, ranks): (Sharding, u64),
) -> Memory {
    let (settings, scoring) = of_rank(work, ranks, sharding);
    let widest = examples.widest(&settings, scoring);
    let memory =
        Memory::of_training(work.config, &settings.trained, (work.precision, device), scoring, widest);
    memory.divided(work.config, &settings.trained, (work.precision.kind, device), (sharding, ranks))
}

/// The training examples.
enum Examples<'a> {
    Pairs(&'a [TokenPair]),
    Dialogues(Vec<Dialogue>),
}

impl<'a> Examples<'a> {
    fn new(input: &'a Input, has_preferences: bool) -> Self {
        match &*input.unpaired {
            _ if !has_preferences => Self::Dialogues(input.dialogues.clone()),
            [] => Self::Pairs(&input.pairs),
            completions => Self::Dialogues(dialogues(completions)),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Dialogues(dialogues) => dialogues.len(),
        }
    }

    /// Returns the micro-batch with the most tokens.
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

/// The most epochs whose micro-batches are measured. Later ones are drawn in the same way.
const EPOCHS: u64 = 1000;

/// Returns the micro-batch with the most tokens, in a run's order of `examples`; `of` measures a micro-batch.
fn widest<E>(
    examples: &[E],
    settings: &TrainSettings,
    of: impl Fn(&[&E]) -> WidestMicroBatch,
) -> WidestMicroBatch {
    let tokens = |example: usize| of(&[&examples[example]]).tokens as usize;
    let mut widest = WidestMicroBatch::default();
    let mut steps_left = settings.total_steps(examples.len());
    let mut epoch = 0;
    while steps_left > 0 && epoch < EPOCHS && !examples.is_empty() {
        let order = settings.epoch_order(examples.len(), epoch);
        for batch in order.chunks(settings.batch_size).take(steps_left as usize) {
            for micro_batch in settings.micro_batches(batch, tokens) {
                let some: Vec<&E> = micro_batch.iter().map(|&example| &examples[example]).collect();
                widest = widest.max(of(&some));
            }
        }
        steps_left = steps_left.saturating_sub(settings.steps_per_epoch(examples.len()));
        epoch += 1;
    }
    widest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_of_no_examples_are_zero() {
        assert_eq!(TokenCounts::of(std::iter::empty()), TokenCounts::default());
        let ids = [vec![1], vec![1, 2, 3, 4]];
        assert_eq!(TokenCounts::of(ids.iter()), TokenCounts { mean: 2.5, max: 4 });
    }
}
