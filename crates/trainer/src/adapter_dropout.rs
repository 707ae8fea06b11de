//! Dropout of adapters in a step.

use policy_model::AdapterDropout;
use pref_data::{Layout, Padding, TokenBatch};
use rand::RngExt;
use seeds::Seeds;

/// The dropout of one optimizer step. All micro-batches and ranks of the step share its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepDropout {
    seed: u64,
}

impl StepDropout {
    /// Draws the seed of step `step` from the RNG stream `lora-dropout`.
    pub(crate) fn new(seeds: &Seeds, step: u64) -> Self {
        Self { seed: seeds.indexed("lora-dropout", step).random() }
    }

    /// Returns the dropout of a batch of these examples. `prompt` is the number of an example's tokens that its sequences share.
    ///
    /// A token's key consists of its example, its branch and its position, so that it is the same in any batch and layout.
    pub(crate) fn of_batch(
        self,
        batch: &TokenBatch,
        examples: &[usize],
        prompt: impl Fn(usize) -> usize,
    ) -> AdapterDropout {
        let mut keys = vec![0; batch.ids.len()];
        let mut start = 0;
        for (number, row) in batch.rows.iter().enumerate() {
            let example = examples[number % examples.len()];
            for (at, key) in keys.iter_mut().enumerate().skip(start).take(row.tokens()) {
                let branch = match batch.layout {
                    Layout::SharedPrompt => batch.branches[at] as usize,
                    Layout::Separate if (batch.positions[at] as usize) < prompt(example) => 0,
                    Layout::Separate => 1 + number / examples.len(),
                };
                *key = (example as u64) << 32 | (branch as u64) << 30 | batch.positions[at] as u64;
            }
            start += match batch.padding {
                Padding::None => row.tokens(),
                Padding::Right(_) => batch.width,
            };
        }
        AdapterDropout::new(self.seed, keys)
    }
}
