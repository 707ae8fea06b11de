//! What a run would do, in numbers; nothing runs.

mod memory;

use pref_data::{Dialogue, TokenPair, TokenizeReport, ViewReport};

use crate::TrainError;
use crate::engine::TrainSettings;
use crate::input::Input;
use crate::parameters::Trained;
use crate::recipe::Recipe;
use crate::reference::ReferencePass;
use crate::run::{compute_kind, scoring, settings};
use crate::run_dir::{RunDir, Start};

pub use memory::{Memory, WidestMicroBatch};

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
    /// Sequences that are scored: two for each pair of the data, whatever share of them the recipe uses.
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

/// What [`run`](crate::run()) would do. Files are read as a run reads them, but for the weights: a plan of a 70B model needs no memory for it. Nothing is
/// written.
///
/// # Errors
///
/// As for a run, for everything that a run can tell of recipe, model, data and output folder before its first step.
pub fn plan(recipe: &Recipe, start: Start) -> Result<Plan, TrainError> {
    let loss = recipe.loss.build()?;
    let input = Input::read(recipe, None)?;
    let kind = compute_kind(recipe.model.dtype.kind(), recipe.model.device.resolve());
    let reference = match loss {
        Some(_) => {
            let pass =
                ReferencePass::new(recipe, kind, scoring(recipe, input.pad_id), &input.all_tokens, None)?;
            Some(PlannedReference { sequences: pass.sequences(), is_cached: pass.cached().is_some() })
        }
        None => None,
    };
    RunDir::at(&recipe.output.dir).holds_run(&recipe.to_toml(), start)?;
    let settings = settings(recipe, kind)?;
    let scoring = scoring(recipe, input.pad_id);
    let (examples, widest) = if loss.is_some() {
        let of = |pairs: &[&TokenPair]| WidestMicroBatch::of(pairs, scoring);
        (input.pairs.len(), widest(&input.pairs, &settings, of))
    } else {
        let dialogues = input.dialogues();
        let of = |some: &[&Dialogue]| WidestMicroBatch::of_dialogues(some, scoring.padding);
        (dialogues.len(), widest(&dialogues, &settings, of))
    };
    let steps_per_epoch = settings.steps_per_epoch(examples);
    let parameters = input.config.parameter_count();
    let trained = match &settings.trained {
        Trained::All => parameters,
        Trained::Adapters(lora) => lora.parameter_count(&input.config),
    };
    let tokens = |part: fn(&TokenPair) -> &Vec<u32>| TokenCounts::of(input.pairs.iter().map(part));
    Ok(Plan {
        examples,
        flipped: input.pairs.iter().filter(|pair| pair.flipped).count(),
        prompt: tokens(|pair| &pair.prompt),
        chosen: tokens(|pair| &pair.chosen),
        rejected: tokens(|pair| &pair.rejected),
        epochs: settings.epochs,
        steps_per_epoch,
        checkpoints: settings.checkpoint_steps(settings.epochs * steps_per_epoch),
        parameters,
        trained,
        widest,
        memory: Memory::of_training(&input.config, &settings.trained, kind, scoring, widest),
        reference,
        view: input.view,
        tokenized: input.tokenized,
    })
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
