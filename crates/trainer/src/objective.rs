//! Objectives: examples, their loss, and its statistics.

use std::collections::BTreeMap;

use policy_model::{AdapterDropout, Policy};
use pref_data::{Dialogue, Layout, Padding, TokenBatch, TokenPair};
use pref_loss::{
    Beta, DynamicBeta, KlEstimate, KtoLoss, LossOutput, PairBatch, PairLogps, PairLoss, PairTokens,
    PrefLossError, PreferenceLoss,
};

use crate::adapter_dropout::StepDropout;
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::kl_pairs::KlPairs;
use crate::metrics::{MetricSums, PreferenceMetrics};
use crate::pair_deltas::PairDelta;
use crate::pairwise::PairwiseLoss;
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

    /// Returns the log-probabilities of the chosen and the rejected response of `examples`, in nats, for a loss that
    /// compares the pairs of a batch; `None` for other losses.
    ///
    /// # Errors
    ///
    /// If the examples do not fit the policy.
    fn compared_logps(
        &self,
        _policy: &Policy,
        _examples: &[usize],
        _dropout: Option<StepDropout>,
    ) -> Result<Option<Vec<[f64; 2]>>, TrainError> {
        Ok(None)
    }

    /// Returns the loss of each pair of a batch, given [`compared_logps`](Self::compared_logps), or none if one of these is
    /// not finite. β-DPO updates its running mean in `dynamic_beta`.
    ///
    /// # Errors
    ///
    /// If a response has no tokens, which tokenization excludes.
    fn compare(
        &self,
        _batch: &[usize],
        _logps: &[[f64; 2]],
        _dynamic_beta: &mut Option<DynamicBeta>,
    ) -> Result<ComparedPairs, TrainError> {
        Ok(ComparedPairs::default())
    }

    /// Returns the state of β-DPO before the first batch; `None` for other losses.
    fn dynamic_beta(&self) -> Option<DynamicBeta> {
        None
    }

    /// Adds the gradient of `scale` times the sum of the weighted losses of `examples`, and returns their statistics.
    ///
    /// If the loss is not a number, no gradient is added. `context` is that of the whole batch.
    ///
    /// # Errors
    ///
    /// If the examples do not fit the policy.
    fn differentiate(
        &self,
        policy: &Policy,
        examples: &[usize],
        scale: f64,
        context: &BatchContext,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError>;
}

/// What the loss of an example requires of its whole batch.
#[derive(Clone, Debug, Default)]
pub struct BatchContext {
    /// KTO's baseline; `None` for other losses.
    pub baseline: Option<KlEstimate>,
    /// The losses of a batch whose pairs are compared; empty for other losses.
    pub compared: ComparedPairs,
    /// The dropout of adapters; `None` without it.
    pub dropout: Option<StepDropout>,
}

/// The losses of the pairs of a batch.
#[derive(Clone, Debug, Default)]
pub struct ComparedPairs {
    /// The loss of each pair and its slopes, by example.
    pub losses: BTreeMap<usize, PairLoss<f64>>,
    /// β-DPO's β of the batch; `None` for other losses.
    pub beta: Option<Beta>,
}

impl BatchContext {
    /// Returns the baseline, or 0.
    pub(crate) fn baseline(&self) -> KlEstimate {
        self.baseline.unwrap_or(KlEstimate::ZERO)
    }
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
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// Losses that compare the two responses of a pair.
    Pair(PairwiseLoss),
    /// KTO: the chosen response is desirable and the rejected one undesirable, each on its own.
    Kto(KtoLoss),
}

impl From<PreferenceLoss> for Loss {
    fn from(loss: PreferenceLoss) -> Self {
        Self::Pair(loss.into())
    }
}

impl Loss {
    /// Returns the loss if it compares the responses of a pair.
    pub(crate) fn pairwise(&self) -> Option<&PairwiseLoss> {
        match self {
            Self::Pair(loss) => Some(loss),
            Self::Kto(_) => None,
        }
    }

    /// Returns whether the loss compares the policy with a reference.
    pub fn reads_reference(&self) -> bool {
        self.pairwise().is_none_or(PairwiseLoss::reads_reference)
    }

    /// Returns β, or 1 for a loss without it.
    fn beta(&self) -> f64 {
        match self {
            Self::Pair(loss) => loss.beta(),
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

/// Preference training of a policy, with or without a reference.
#[derive(Debug)]
pub struct PreferenceObjective<'a> {
    /// The pairs.
    pub pairs: &'a [TokenPair],
    /// The reference log-probabilities of the pairs, in their order; `None` for a loss without a reference.
    pub reference: Option<&'a SequenceLogps>,
    /// The loss.
    pub loss: Loss,
    /// The pairs of KTO's baseline, in the order of the pairs. `None` means a baseline of 0, and is right for other
    /// losses.
    pub kl_pairs: Option<&'a KlPairs>,
    /// How log-probabilities are computed.
    pub scoring: Scoring,
}

impl PreferenceObjective<'_> {
    /// Returns the weight of each scored token in its response's log-probability; `None` for plain sums.
    fn token_weights(&self, batch: &TokenBatch) -> Option<Vec<f64>> {
        self.loss.pairwise().and_then(|loss| loss.token_weights(batch))
    }

    /// Returns the loss of each of `examples`, weighted if there are weights.
    fn losses(
        &self,
        examples: &[usize],
        policy: PairLogps<'_, f64>,
        reference: Option<PairLogps<'_, f64>>,
        baseline: KlEstimate,
        weights: Option<Vec<f64>>,
    ) -> Result<Vec<PairLoss<f64>>, TrainError> {
        let counts = self.token_counts(examples);
        let mut out = LossOutput::default();
        self.loss.evaluate(&pair_batch(policy, reference, &counts)?, baseline, &mut out)?;
        if let Some(weights) = weights {
            out.weigh(&weights)?;
        }
        Ok(pair_losses(&out).collect())
    }

    /// Returns the reference's log-probabilities of `examples`, chosen and rejected.
    fn reference_of(&self, examples: &[usize]) -> Option<[Vec<f64>; 2]> {
        let reference = self.reference?;
        let of_examples = |logps: &[f64]| examples.iter().map(|&example| logps[example]).collect();
        Some([of_examples(&reference.chosen), of_examples(&reference.rejected)])
    }

    fn dropout_of(&self, dropout: StepDropout, batch: &TokenBatch, examples: &[usize]) -> AdapterDropout {
        dropout.of_batch(batch, examples, |example| self.pairs[example].prompt.len())
    }

    /// Returns the number of response tokens of `examples`, chosen and rejected.
    fn token_counts(&self, examples: &[usize]) -> [Vec<u32>; 2] {
        let of = |part: fn(&TokenPair) -> &Vec<u32>| {
            examples.iter().map(|&example| part(&self.pairs[example]).len() as u32).collect()
        };
        [of(|pair| &pair.chosen), of(|pair| &pair.rejected)]
    }
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

    fn compared_logps(
        &self,
        policy: &Policy,
        examples: &[usize],
        dropout: Option<StepDropout>,
    ) -> Result<Option<Vec<[f64; 2]>>, TrainError> {
        if !self.loss.pairwise().is_some_and(PairwiseLoss::compares_pairs) {
            return Ok(None);
        }
        if examples.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let _guard = tch::no_grad_guard();
        let pairs: Vec<&TokenPair> = examples.iter().map(|&i| &self.pairs[i]).collect();
        let batch = TokenBatch::pairs(&pairs, self.scoring.layout, self.scoring.padding)?;
        let dropout = dropout.map(|dropout| self.dropout_of(dropout, &batch, examples));
        let head = self.scoring.head;
        let forward = ForwardPass::with_dropout(policy, &batch, head, Activations::Kept, dropout)?;
        let logps = forward.weighted_logps(self.token_weights(&batch).as_deref());
        let (chosen, rejected) = logps.split_at(pairs.len());
        Ok(Some(chosen.iter().zip(rejected).map(|(&chosen, &rejected)| [chosen, rejected]).collect()))
    }

    fn compare(
        &self,
        batch: &[usize],
        logps: &[[f64; 2]],
        dynamic_beta: &mut Option<DynamicBeta>,
    ) -> Result<ComparedPairs, TrainError> {
        let [chosen, rejected] = [0, 1].map(|side| logps.iter().map(|pair| pair[side]).collect::<Vec<f64>>());
        let policy = PairLogps { chosen: &chosen, rejected: &rejected };
        let (reference, counts) = (self.reference_of(batch), self.token_counts(batch));
        if !logps
            .as_flattened()
            .iter()
            .chain(reference.iter().flatten().flatten())
            .all(|logp| logp.is_finite())
        {
            // The loss of some pair will not be finite, and that error names the batch.
            return Ok(ComparedPairs::default());
        }
        let reference = reference.as_ref().map(logps_of);
        let pair_batch = pair_batch(policy, reference, &counts)?;
        let mut out = LossOutput::default();
        let beta = match dynamic_beta {
            Some(state) => {
                let sums = measured_sums(policy, reference);
                let margins: Vec<f64> = sums.map(|[a, b]| state.beta().get() * (a - b)).collect();
                let beta = state.next(&margins);
                PreferenceLoss::Dpo { beta }.evaluate(&pair_batch, &mut out)?;
                Some(beta)
            }
            None => {
                self.loss.evaluate(&pair_batch, KlEstimate::ZERO, &mut out)?;
                None
            }
        };
        Ok(ComparedPairs { losses: batch.iter().copied().zip(pair_losses(&out)).collect(), beta })
    }

    fn dynamic_beta(&self) -> Option<DynamicBeta> {
        self.loss.pairwise().and_then(|loss| loss.dynamic_beta)
    }

    fn differentiate(
        &self,
        policy: &Policy,
        examples: &[usize],
        scale: f64,
        context: &BatchContext,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError> {
        let pairs: Vec<&TokenPair> = examples.iter().map(|&i| &self.pairs[i]).collect();
        let batch = TokenBatch::pairs(&pairs, self.scoring.layout, self.scoring.padding)?;
        let Scoring { head, activations, .. } = self.scoring;
        let dropout = context.dropout.map(|dropout| self.dropout_of(dropout, &batch, examples));
        let mut forward = ForwardPass::training(policy, &batch, head, activations, dropout)?;
        let (tokens, weights) = (batch.tokens as u64, self.token_weights(&batch));

        let logps = forward.weighted_logps(weights.as_deref());
        let (chosen, rejected) = logps.split_at(pairs.len());
        let policy_logps = PairLogps { chosen, rejected };
        let reference = self.reference_of(examples);
        if !logps.iter().chain(reference.iter().flatten().flatten()).all(|logp| logp.is_finite()) {
            return Ok(StepStats { loss: f64::NAN, preference: None, deltas: Vec::new(), tokens });
        }
        let reference = reference.as_ref().map(logps_of);
        let compared = &context.compared.losses;
        let losses = if compared.is_empty() {
            let weights = self.loss.pairwise().map(|loss| loss.pair_weights(policy, &forward)).transpose()?;
            self.losses(examples, policy_logps, reference, context.baseline(), weights.flatten())?
        } else {
            examples.iter().map(|example| compared[example]).collect()
        };
        let pairs = examples.len() as f64;
        let loss =
            losses.iter().map(|pair| pair.loss).sum::<f64>() + pairs * forward.router_loss(pairs * scale);
        let preference = Some(MetricSums::Pairs(measure(&self.loss, policy_logps, reference)));
        let deltas = measured_sums(policy_logps, reference)
            .zip(examples)
            .map(|([chosen, rejected], &pair)| PairDelta { pair, delta: chosen - rejected })
            .collect();
        let slopes = losses.iter().map(|pair| pair.chosen_grad);
        let slopes = slopes.chain(losses.iter().map(|pair| pair.rejected_grad));
        let coefficients: Vec<f64> = slopes.map(|slope| slope * scale).collect();
        forward.backward_weighted(&coefficients, weights.as_deref(), gradients)?;
        Ok(StepStats { loss, preference, deltas, tokens })
    }
}

fn logps_of([chosen, rejected]: &[Vec<f64>; 2]) -> PairLogps<'_, f64> {
    PairLogps { chosen, rejected }
}

/// Returns the batch of a loss with or without a reference.
pub(crate) fn pair_batch<'a>(
    policy: PairLogps<'a, f64>,
    reference: Option<PairLogps<'a, f64>>,
    [chosen, rejected]: &'a [Vec<u32>; 2],
) -> Result<PairBatch<'a, f64>, PrefLossError> {
    let tokens = PairTokens { chosen, rejected };
    match reference {
        Some(reference) => PairBatch::new(policy, reference, tokens),
        None => PairBatch::reference_free(policy, tokens),
    }
}

/// Returns the loss of each pair with its slopes.
fn pair_losses(out: &LossOutput<f64>) -> impl Iterator<Item = PairLoss<f64>> {
    let slopes = out.chosen_grads().iter().zip(out.rejected_grads());
    out.losses().iter().zip(slopes).map(|(&loss, (&chosen_grad, &rejected_grad))| PairLoss {
        loss,
        chosen_grad,
        rejected_grad,
    })
}

/// Returns both responses' log-ratios of each pair, or their log-probabilities without a reference.
fn measured_sums<'a>(
    policy: PairLogps<'a, f64>,
    reference: Option<PairLogps<'a, f64>>,
) -> impl Iterator<Item = [f64; 2]> {
    let reference_of =
        move |pair: usize| reference.map_or([0.0; 2], |logps| [logps.chosen[pair], logps.rejected[pair]]);
    policy.chosen.iter().zip(policy.rejected).enumerate().map(move |(pair, (chosen, rejected))| {
        let [ref_chosen, ref_rejected] = reference_of(pair);
        [chosen - ref_chosen, rejected - ref_rejected]
    })
}

/// Sums of the metrics that TRL logs over the pairs. Without a reference, rewards are β times log-probabilities.
pub(crate) fn measure(
    loss: &Loss,
    policy: PairLogps<'_, f64>,
    reference: Option<PairLogps<'_, f64>>,
) -> PreferenceMetrics {
    let beta = loss.beta();
    let mut sums = PreferenceMetrics::default();
    for (i, [chosen, rejected]) in measured_sums(policy, reference).enumerate() {
        let (chosen, rejected) = (beta * chosen, beta * rejected);
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
        context: &BatchContext,
        gradients: &mut Gradients<'_>,
    ) -> Result<StepStats, TrainError> {
        let dialogues: Vec<&Dialogue> = examples.iter().map(|&i| &self.dialogues[i]).collect();
        let batch = TokenBatch::dialogues(&dialogues, self.padding)?;
        let dropout = context.dropout.map(|dropout| dropout.of_batch(&batch, examples, |_| 0));
        let mut scored = ForwardPass::training(policy, &batch, self.head, self.activations, dropout)?;
        let weight: f64 = examples.iter().map(|&example| self.weight(example)).sum();
        let router = weight * scored.router_loss(weight * scale);
        let loss = router - scored.logps().iter().map(|&logp| f64::from(logp)).sum::<f64>();
        if loss.is_finite() {
            scored.backward(&vec![-scale; batch.sequences], gradients)?;
        }
        Ok(StepStats { loss, preference: None, deltas: Vec::new(), tokens: batch.tokens as u64 })
    }
}
