//! Objectives: examples, their loss, and its statistics.

use policy_model::Policy;
use pref_data::{Dialogue, Layout, Padding, TokenBatch, TokenPair};
use pref_loss::{
    KlEstimate, KtoLoss, LossOutput, PairBatch, PairLogps, PairTokens, PrefLossError, PreferenceLoss,
};

use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::kl_pairs::KlPairs;
use crate::metrics::{MetricSums, PreferenceMetrics};
use crate::pair_deltas::PairDelta;
use crate::reference::SequenceLogps;
use crate::scoring::{Activations, ForwardPass, Head, Scoring};

/// A loss over a set of examples; several threads may evaluate it at once.
pub trait Objective: Sync {
    /// Returns the number of examples.
    fn examples(&self) -> usize;

    /// Returns the identifier of an example, for messages.
    fn name(&self, example: usize) -> String;

    /// Returns the number of tokens of an example that go through the policy.
    fn tokens(&self, example: usize) -> usize;

    /// Returns the weight of an example in the mean loss of a batch: 1 for a pair, or the number of scored tokens.
    fn weight(&self, example: usize) -> f64;

    /// Returns the contribution of these examples to the batch's baseline, in nats and summed over them; `None` for a
    /// loss without a baseline.
    ///
    /// # Errors
    ///
    /// If the examples do not fit the policy.
    fn baseline(&self, _policy: &Policy, _examples: &[usize]) -> Result<Option<f64>, TrainError> {
        Ok(None)
    }

    /// Adds the gradient of `scale` times the sum of the weighted losses of `examples`, and returns their statistics.
    ///
    /// If the loss is not a number, no gradient is added. `baseline` is that of the whole batch.
    ///
    /// # Errors
    ///
    /// If the examples do not fit the policy.
    fn differentiate(
        &self,
        policy: &Policy,
        examples: &[usize],
        scale: f64,
        baseline: KlEstimate,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError>;
}

/// The statistics of some examples.
#[derive(Clone, Debug, PartialEq)]
pub struct StepStats {
    /// The sum of the weighted losses.
    pub loss: f64,
    /// Sums of the other metrics over the examples; `None` in supervised training.
    pub preference: Option<MetricSums>,
    /// Δ of each pair; empty without pairs.
    pub deltas: Vec<PairDelta>,
    /// Tokens that went through the policy, without padding.
    pub tokens: u64,
}

impl StepStats {
    /// Adds the statistics of other examples.
    pub(crate) fn merge(mut self, mut others: Self) -> Self {
        self.loss += others.loss;
        self.tokens += others.tokens;
        self.deltas.append(&mut others.deltas);
        if let Some(sums) = others.preference {
            self.preference.get_or_insert(MetricSums::zero(sums.is_unpaired())).add(sums, |sum| sum);
        }
        self
    }
}

/// A preference loss, of pairs or of single responses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// DPO and similar losses, which compare the two responses of a pair.
    Pair(PreferenceLoss),
    /// KTO: the chosen response is desirable and the rejected one undesirable, each on its own.
    Kto(KtoLoss),
}

impl From<PreferenceLoss> for Loss {
    fn from(loss: PreferenceLoss) -> Self {
        Self::Pair(loss)
    }
}

impl Loss {
    /// Returns β, or 1 for a loss without it.
    fn beta(&self) -> f64 {
        match self {
            Self::Pair(loss) => loss.beta().map_or(1.0, |beta| beta.get()),
            Self::Kto(loss) => loss.beta.get(),
        }
    }

    /// Returns losses and gradients of all pairs.
    pub(crate) fn evaluate(
        &self,
        batch: &PairBatch<'_, f64>,
        baseline: KlEstimate,
        out: &mut LossOutput<f64>,
    ) -> Result<(), PrefLossError> {
        match self {
            Self::Pair(loss) => loss.evaluate(batch, out),
            Self::Kto(loss) => loss.evaluate_pairs(batch, baseline, out),
        }
    }
}

/// Preference training of a policy against fixed reference log-probabilities.
#[derive(Debug)]
pub struct PreferenceObjective<'a> {
    /// The pairs.
    pub pairs: &'a [TokenPair],
    /// The reference log-probabilities of the pairs, in their order.
    pub reference: &'a SequenceLogps,
    /// The loss.
    pub loss: Loss,
    /// The pairs of KTO's baseline, in the order of the pairs. `None` means a baseline of 0, and is right for other
    /// losses.
    pub kl_pairs: Option<&'a KlPairs>,
    /// How log-probabilities are computed.
    pub scoring: Scoring,
}

impl Objective for PreferenceObjective<'_> {
    fn examples(&self) -> usize {
        self.pairs.len()
    }

    fn name(&self, example: usize) -> String {
        self.pairs[example].id.clone()
    }

    fn tokens(&self, example: usize) -> usize {
        let pair = &self.pairs[example];
        match self.scoring.layout {
            Layout::SharedPrompt => pair.unique_tokens(),
            Layout::Separate => pair.unique_tokens() + pair.prompt.len(),
        }
    }

    fn weight(&self, _: usize) -> f64 {
        1.0
    }

    fn baseline(&self, policy: &Policy, examples: &[usize]) -> Result<Option<f64>, TrainError> {
        self.kl_pairs.map(|kl_pairs| kl_pairs.log_ratios(policy, examples, self.scoring)).transpose()
    }

    fn differentiate(
        &self,
        policy: &Policy,
        examples: &[usize],
        scale: f64,
        baseline: KlEstimate,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError> {
        let pairs: Vec<&TokenPair> = examples.iter().map(|&i| &self.pairs[i]).collect();
        let batch = TokenBatch::pairs(&pairs, self.scoring.layout, self.scoring.padding)?;
        let Scoring { head, activations, .. } = self.scoring;
        let scored = ForwardPass::forward(policy, &batch, head, activations)?;
        let tokens = batch.tokens as u64;

        let logps = scored.sequence_logps();
        let (chosen, rejected) = logps.split_at(pairs.len());
        let policy_logps = PairLogps { chosen, rejected };
        let of_examples = |logps: &[f64]| -> Vec<f64> { examples.iter().map(|&i| logps[i]).collect() };
        let (chosen, rejected) = (of_examples(&self.reference.chosen), of_examples(&self.reference.rejected));
        let ref_logps = PairLogps { chosen: &chosen, rejected: &rejected };
        if !logps.iter().chain(&chosen).chain(&rejected).all(|logp| logp.is_finite()) {
            return Ok(StepStats { loss: f64::NAN, preference: None, deltas: Vec::new(), tokens });
        }

        let lengths: Vec<u32> = batch.lengths.iter().map(|&length| length as u32).collect();
        let (chosen, rejected) = lengths.split_at(pairs.len());
        let pair_batch = PairBatch::new(policy_logps, ref_logps, PairTokens { chosen, rejected })?;
        let mut out = LossOutput::default();
        self.loss.evaluate(&pair_batch, baseline, &mut out)?;
        let loss = out.losses().iter().sum();
        let preference = Some(MetricSums::Pairs(measure(&self.loss, policy_logps, ref_logps)));
        let delta = |k: usize| {
            let ratio = |policy: &[f64], reference: &[f64]| policy[k] - reference[k];
            ratio(policy_logps.chosen, ref_logps.chosen) - ratio(policy_logps.rejected, ref_logps.rejected)
        };
        let deltas =
            examples.iter().enumerate().map(|(k, &pair)| PairDelta { pair, delta: delta(k) }).collect();
        let slopes = out.chosen_grads().iter().chain(out.rejected_grads());
        scored.backward(&slopes.map(|slope| slope * scale).collect::<Vec<_>>(), gradients)?;
        Ok(StepStats { loss, preference, deltas, tokens })
    }
}

/// Sums of the metrics that TRL logs over the pairs.
pub(crate) fn measure(
    loss: &Loss,
    policy: PairLogps<'_, f64>,
    reference: PairLogps<'_, f64>,
) -> PreferenceMetrics {
    let beta = loss.beta();
    let mut sums = PreferenceMetrics::default();
    for i in 0..policy.chosen.len() {
        let chosen = beta * (policy.chosen[i] - reference.chosen[i]);
        let rejected = beta * (policy.rejected[i] - reference.rejected[i]);
        sums.chosen_reward += chosen;
        sums.rejected_reward += rejected;
        sums.accuracy += f64::from(u8::from(chosen > rejected));
        sums.margin += chosen - rejected;
        sums.chosen_logps += policy.chosen[i];
        sums.rejected_logps += policy.rejected[i];
    }
    sums
}

/// Supervised training: cross entropy of the scored tokens of dialogues.
#[derive(Debug)]
pub struct SupervisedObjective<'a> {
    /// The dialogues.
    pub dialogues: &'a [Dialogue],
    /// Whether rows are padded.
    pub padding: Padding,
    /// How logits become log-probabilities.
    pub head: Head,
    /// The activations that are kept for the backward pass.
    pub activations: Activations,
}

impl Objective for SupervisedObjective<'_> {
    fn examples(&self) -> usize {
        self.dialogues.len()
    }

    fn name(&self, example: usize) -> String {
        format!("dialogue {example}")
    }

    fn tokens(&self, example: usize) -> usize {
        self.dialogues[example].ids().len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.dialogues[example].scored().iter().filter(|&&scored| scored).count() as f64
    }

    fn differentiate(
        &self,
        policy: &Policy,
        examples: &[usize],
        scale: f64,
        _: KlEstimate,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError> {
        let dialogues: Vec<&Dialogue> = examples.iter().map(|&i| &self.dialogues[i]).collect();
        let batch = TokenBatch::dialogues(&dialogues, self.padding)?;
        let scored = ForwardPass::forward(policy, &batch, self.head, self.activations)?;
        let loss = -scored.logps().iter().map(|&logp| f64::from(logp)).sum::<f64>();
        if loss.is_finite() {
            scored.backward(&vec![-scale; batch.sequences], gradients)?;
        }
        Ok(StepStats { loss, preference: None, deltas: Vec::new(), tokens: batch.tokens as u64 })
    }
}
