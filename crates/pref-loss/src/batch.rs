//! What a loss reads and writes: log-probabilities of a batch of pairs, losses and gradients.

use crate::{Float, Input, LossError, Model, Side};

/// What one model says of a batch of pairs, all four slices one entry per pair.
#[derive(Clone, Copy, Debug)]
pub struct PairLogps<'a, F> {
    /// log π(chosen | prompt) in nats: the *sum* over the response's tokens.
    pub chosen: &'a [F],
    /// log π(rejected | prompt) in nats: the *sum* over the response's tokens.
    pub rejected: &'a [F],
    /// How many tokens each chosen sum runs over, the end-of-sequence token included.
    pub chosen_tokens: &'a [u32],
    /// How many tokens each rejected sum runs over, the end-of-sequence token included.
    pub rejected_tokens: &'a [u32],
}

/// A batch of pairs as the policy and as the reference see it, checked once.
#[derive(Clone, Copy, Debug)]
pub struct PairBatch<'a, F> {
    pub(crate) policy: PairLogps<'a, F>,
    pub(crate) reference: PairLogps<'a, F>,
}

impl<'a, F: Float> PairBatch<'a, F> {
    /// Both models must have scored the same tokens, which their counts bear out as far as counts can.
    ///
    /// # Errors
    /// [`LossError::Length`] if the eight slices differ in length, [`LossError::NotFinite`] for a NaN or infinite
    /// log-probability, [`LossError::EmptyResponse`] for a token count of 0, [`LossError::OtherTokens`] if the models'
    /// counts differ.
    pub fn new(policy: PairLogps<'a, F>, reference: PairLogps<'a, F>) -> Result<Self, LossError> {
        let pairs = policy.chosen.len();
        for (model, logps) in [(Model::Policy, policy), (Model::Reference, reference)] {
            for (side, sums, counts) in [
                (Side::Chosen, logps.chosen, logps.chosen_tokens),
                (Side::Rejected, logps.rejected, logps.rejected_tokens),
            ] {
                check_length(Input::Logps, model, side, pairs, sums.len())?;
                check_length(Input::Tokens, model, side, pairs, counts.len())?;
                check_finite(model, side, sums)?;
                check_not_empty(side, counts)?;
            }
        }
        check_same_tokens(Side::Chosen, policy.chosen_tokens, reference.chosen_tokens)?;
        check_same_tokens(Side::Rejected, policy.rejected_tokens, reference.rejected_tokens)?;
        Ok(Self { policy, reference })
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.policy.chosen.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.policy.chosen.is_empty()
    }

    /// The log-ratios `log π − log π_ref` of one pair's chosen and rejected response, in nats.
    ///
    /// Each response's difference is taken first: the two sums are close to each other, so little is rounded away.
    #[inline]
    pub(crate) fn log_ratios(&self, pair: usize) -> (F, F) {
        (
            self.policy.chosen[pair] - self.reference.chosen[pair],
            self.policy.rejected[pair] - self.reference.rejected[pair],
        )
    }
}

fn check_length(
    input: Input,
    model: Model,
    side: Side,
    expected: usize,
    found: usize,
) -> Result<(), LossError> {
    if found == expected { Ok(()) } else { Err(LossError::Length { input, model, side, expected, found }) }
}

fn check_not_empty(side: Side, counts: &[u32]) -> Result<(), LossError> {
    match counts.iter().position(|&count| count == 0) {
        None => Ok(()),
        Some(pair) => Err(LossError::EmptyResponse { side, pair }),
    }
}

fn check_same_tokens(side: Side, policy: &[u32], reference: &[u32]) -> Result<(), LossError> {
    match policy.iter().zip(reference).position(|(policy, reference)| policy != reference) {
        None => Ok(()),
        Some(pair) => {
            Err(LossError::OtherTokens { side, pair, policy: policy[pair], reference: reference[pair] })
        }
    }
}

fn check_finite<F: Float>(model: Model, side: Side, values: &[F]) -> Result<(), LossError> {
    match values.iter().position(|value| !value.widen().is_finite()) {
        None => Ok(()),
        Some(pair) => Err(LossError::NotFinite { model, side, pair, value: values[pair].widen() }),
    }
}

/// Losses and gradients of a batch. Reused from batch to batch it allocates only when a batch is larger than any before.
#[derive(Clone, Debug, Default)]
pub struct LossOutput<F> {
    losses: Vec<F>,
    chosen_grads: Vec<F>,
    rejected_grads: Vec<F>,
}

impl<F: Float> LossOutput<F> {
    /// Room for `pairs` pairs, holding none.
    pub fn with_capacity(pairs: usize) -> Self {
        Self {
            losses: Vec::with_capacity(pairs),
            chosen_grads: Vec::with_capacity(pairs),
            rejected_grads: Vec::with_capacity(pairs),
        }
    }

    /// The loss of each pair.
    pub fn losses(&self) -> &[F] {
        &self.losses
    }

    /// dL/d(policy's chosen log-prob) of each pair's own loss, until [`scale_grads`](Self::scale_grads) is called.
    pub fn chosen_grads(&self) -> &[F] {
        &self.chosen_grads
    }

    /// dL/d(policy's rejected log-prob) of each pair's own loss, until [`scale_grads`](Self::scale_grads) is called.
    pub fn rejected_grads(&self) -> &[F] {
        &self.rejected_grads
    }

    /// The mean loss, summed in f64; NaN without pairs.
    pub fn mean_loss(&self) -> f64 {
        self.losses.iter().map(|loss| loss.widen()).sum::<f64>() / self.losses.len() as f64
    }

    /// Multiplies the gradients, and leaves the losses as they are.
    ///
    /// For the gradient of the mean over an optimiser step give 1/(pairs in the whole step), also where the step is
    /// accumulated over several batches.
    pub fn scale_grads(&mut self, factor: F) {
        for grad in self.chosen_grads.iter_mut().chain(&mut self.rejected_grads) {
            *grad = *grad * factor;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.losses.clear();
        self.chosen_grads.clear();
        self.rejected_grads.clear();
    }

    pub(crate) fn push(&mut self, loss: F, chosen_grad: F, rejected_grad: F) {
        self.losses.push(loss);
        self.chosen_grads.push(chosen_grad);
        self.rejected_grads.push(rejected_grad);
    }
}

/// The implicit rewards `β·(log π − log π_ref)` of one pair, from summed log-probabilities whatever the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reward<F> {
    /// Of the chosen response.
    pub chosen: F,
    /// Of the rejected response.
    pub rejected: F,
}

impl<F: Float> Reward<F> {
    /// The reward margin: chosen − rejected.
    pub fn margin(self) -> F {
        self.chosen - self.rejected
    }

    /// Whether the policy agrees with the label. A tie does not count, so an untrained policy agrees with none.
    pub fn is_accurate(self) -> bool {
        self.chosen > self.rejected
    }
}
