//! KTO on unpaired preferences: single responses, each labeled desirable or undesirable.

use policy_model::Policy;
use pref_data::{Dialogue, TokenBatch, TokenCompletion};
use pref_loss::{KtoBatch, KtoLoss, KtoOutput};

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::metrics::{MetricSums, UnpairedSums};
use crate::objective::{BatchContext, Objective, StepStats};
use crate::reference::logps_of_dialogues;
use crate::scoring::{ForwardPass, Scoring};

/// Each prompt with the completion of another example, and the reference's log-probabilities of these completions.
///
/// They estimate KTO's baseline ([`KlEstimate`](pref_loss::KlEstimate)), as in TRL's `KTOTrainer`: within each batch of the file's order,
/// completions move on by one prompt. TRL trains in that order. If the examples are shuffled, an example keeps its
/// partner in every epoch, so that the reference scores it once.
#[derive(Debug)]
pub struct Mismatched {
    dialogues: Vec<Dialogue>,
    reference: Vec<f64>,
}

impl Mismatched {
    /// Creates the mismatched examples from [`rotated`](Self::rotated) and the reference's log-probabilities in nats, in
    /// the order of the examples.
    pub fn new(dialogues: Vec<Dialogue>, reference: Vec<f64>) -> Self {
        Self { dialogues, reference }
    }

    /// Returns each prompt with the completion of the previous example of its batch, and the first prompt of a batch
    /// with the batch's last completion. A completion is truncated at the end to fit in `max_length` tokens behind its
    /// new prompt, but keeps at least one token.
    ///
    /// A last batch of one example has the completion of the example before, and not its own as in TRL.
    pub fn rotated(completions: &[TokenCompletion], batch_size: usize, max_length: usize) -> Vec<Dialogue> {
        let partner = partners(completions.len(), batch_size);
        let mismatch = |(example, partner): (&TokenCompletion, usize)| {
            let TokenCompletion { completion, removed, .. } = &completions[partner];
            let room = max_length.saturating_sub(example.prompt.len()).max(1);
            let fits: Vec<u32> = completion.iter().chain(removed).take(room).copied().collect();
            Dialogue::completion(&example.prompt, &fits)
        };
        // Tokenization excludes empty prompts and completions, so that no example is left out.
        completions.iter().zip(partner).filter_map(mismatch).collect()
    }

    fn log_ratios(&self, policy: &Policy, examples: &[usize], scoring: Scoring) -> Result<f64, TrainError> {
        if examples.is_empty() {
            return Ok(0.0);
        }
        let dialogues: Vec<&Dialogue> = examples.iter().map(|&i| &self.dialogues[i]).collect();
        let logps: f64 = logps_of_dialogues(policy, &dialogues, scoring)?.iter().sum();
        Ok(logps - examples.iter().map(|&i| self.reference[i]).sum::<f64>())
    }
}

/// Returns the index of the example that gives each example's mismatched completion.
pub(crate) fn partners(count: usize, batch_size: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| {
        let first = index - index % batch_size;
        let end = count.min(first + batch_size);
        match index {
            _ if index > first => index - 1,
            _ if end - first > 1 => end - 1,
            _ => index.saturating_sub(1),
        }
    })
}

/// Returns examples as dialogues whose completion is scored.
pub(crate) fn dialogues<'a>(completions: impl IntoIterator<Item = &'a TokenCompletion>) -> Vec<Dialogue> {
    completions.into_iter().filter_map(|one| Dialogue::completion(&one.prompt, &one.completion)).collect()
}

/// KTO on unpaired preferences, against fixed reference log-probabilities.
#[derive(Debug)]
pub struct UnpairedObjective<'a> {
    /// The examples.
    pub completions: &'a [TokenCompletion],
    /// The reference log-probabilities of the completions, in their order.
    pub reference: &'a [f64],
    /// The loss.
    pub loss: KtoLoss,
    /// The examples of the baseline, in the order of the completions.
    pub mismatched: &'a Mismatched,
    /// How log-probabilities are computed. An example has one sequence, so that the layout has no effect.
    pub scoring: Scoring,
}

impl Objective for UnpairedObjective<'_> {
    fn examples(&self) -> usize {
        self.completions.len()
    }

    fn name(&self, example: usize) -> String {
        self.completions[example].id.clone()
    }

    fn tokens(&self, example: usize) -> usize {
        let TokenCompletion { prompt, completion, .. } = &self.completions[example];
        prompt.len() + completion.len()
    }

    fn weight(&self, _: usize) -> f64 {
        1.0
    }

    fn baseline(&self, policy: &Policy, examples: &[usize]) -> Result<Option<f64>, TrainError> {
        self.mismatched.log_ratios(policy, examples, self.scoring).map(Some)
    }

    fn differentiate(
        &self,
        policy: &Policy,
        examples: &[usize],
        scale: f64,
        context: &BatchContext,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError> {
        let dialogues = dialogues(examples.iter().map(|&i| &self.completions[i]));
        let batch = TokenBatch::dialogues(&dialogues.iter().collect::<Vec<_>>(), self.scoring.padding)?;
        let Scoring { head, activations, .. } = self.scoring;
        let dropout = context.dropout.map(|dropout| dropout.of_batch(&batch, examples, |_| 0));
        let mut scored = ForwardPass::training(policy, &batch, head, activations, dropout)?;
        let tokens = batch.tokens as u64;

        let logps = scored.sequence_logps();
        let reference: Vec<f64> = examples.iter().map(|&i| self.reference[i]).collect();
        if !logps.iter().chain(&reference).all(|logp| logp.is_finite()) {
            return Ok(StepStats { loss: f64::NAN, preference: None, deltas: Vec::new(), tokens });
        }
        let labels: Vec<bool> = examples.iter().map(|&i| self.completions[i].is_desirable).collect();
        let mut out = KtoOutput::default();
        self.loss.evaluate(&KtoBatch::new(&logps, &reference, &labels)?, context.baseline(), &mut out);
        let mut sums = UnpairedSums::default();
        for ((logp, reference), &is_desirable) in logps.iter().zip(&reference).zip(&labels) {
            sums.add(is_desirable, self.loss.beta.get() * (logp - reference), *logp);
        }
        let count = examples.len() as f64;
        let loss = out.losses().iter().sum::<f64>() + count * scored.router_loss(count * scale);
        scored.backward(&out.grads().iter().map(|slope| slope * scale).collect::<Vec<_>>(), gradients)?;
        let preference = Some(MetricSums::Unpaired(sums));
        Ok(StepStats { loss, preference, deltas: Vec::new(), tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_move_on_by_one_prompt_within_a_batch() {
        let partners = |count, batch| partners(count, batch).collect::<Vec<_>>();
        assert_eq!(partners(6, 3), [2, 0, 1, 5, 3, 4]);
        assert_eq!(partners(5, 3), [2, 0, 1, 4, 3]);
        assert_eq!(partners(4, 3), [2, 0, 1, 2], "a batch of one");
        assert_eq!(partners(3, 1), [0, 0, 1]);
        assert_eq!(partners(1, 4), [0]);
        assert_eq!(partners(0, 4), [0_usize; 0]);
    }

    #[test]
    fn a_mismatched_completion_is_truncated_behind_its_new_prompt() {
        let example = |prompt: &[u32], completion: &[u32]| TokenCompletion {
            id: String::new(),
            prompt: prompt.to_vec(),
            completion: completion.to_vec(),
            removed: vec![10],
            is_desirable: true,
        };
        let examples = [example(&[1, 2], &[3, 4, 5]), example(&[6, 7, 8], &[9])];
        let rotated = Mismatched::rotated(&examples, 2, 4);
        let ids: Vec<_> = rotated.iter().map(Dialogue::ids).collect();
        assert_eq!(ids, [&[1, 2, 9, 10][..], &[6, 7, 8, 3]]);
        let longest = Mismatched::rotated(&examples, 2, 3);
        assert_eq!(longest[1].ids(), [6, 7, 8, 3], "one token stays");
    }
}
