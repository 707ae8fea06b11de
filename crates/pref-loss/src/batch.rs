//! Inputs and outputs of a loss: log-probabilities of a batch of pairs, losses and gradients.

use crate::{Float, Input, Model, PrefLossError, Side};

/// Sequence log-probabilities of a batch of pairs under one model, in nats: each the *sum* over the response's tokens.
#[derive(Clone, Copy, Debug)]
pub struct PairLogps<'a, F> {
    /// log π(chosen | prompt), one per pair.
    pub chosen: &'a [F],
    /// log π(rejected | prompt), one per pair.
    pub rejected: &'a [F],
}

/// Token counts of the responses: the tokens that each log-probability sums over, including the end-of-sequence
/// token.
#[derive(Clone, Copy, Debug)]
pub struct PairTokens<'a> {
    /// Of the chosen responses, one count per pair.
    pub chosen: &'a [u32],
    /// Of the rejected responses, one count per pair.
    pub rejected: &'a [u32],
}

/// A validated batch of pairs: all inputs of a loss.
///
/// Both models score the same tokens, so the token counts are separate from the log-probabilities.
#[derive(Clone, Copy, Debug)]
pub struct PairBatch<'a, F> {
    pub(crate) policy: PairLogps<'a, F>,
    pub(crate) reference: Option<PairLogps<'a, F>>,
    pub(crate) tokens: PairTokens<'a>,
}

impl<'a, F: Float> PairBatch<'a, F> {
    /// Validates the inputs and creates a batch.
    ///
    /// # Errors
    /// [`PrefLossError::Length`] if the six slices differ in length, [`PrefLossError::NotFinite`] for a NaN or infinite
    /// log-probability, [`PrefLossError::EmptyResponse`] for a token count of 0.
    pub fn new(
        policy: PairLogps<'a, F>,
        reference: PairLogps<'a, F>,
        tokens: PairTokens<'a>,
    ) -> Result<Self, PrefLossError> {
        let batch = Self::reference_free(policy, tokens)?;
        check_logps(Model::Reference, reference, batch.len())?;
        Ok(Self { reference: Some(reference), ..batch })
    }

    /// Creates a batch for a loss without a reference: SimPO, ORPO, CPO or the SFT term. Other losses return an
    /// error.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reference_free(policy: PairLogps<'a, F>, tokens: PairTokens<'a>) -> Result<Self, PrefLossError> {
        let pairs = policy.chosen.len();
        check_logps(Model::Policy, policy, pairs)?;
        check_tokens(tokens, pairs)?;
        Ok(Self { policy, reference: None, tokens })
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.policy.chosen.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.policy.chosen.is_empty()
    }

    /// Returns the log-ratios of one pair's responses in nats: `log π − log π_ref`, or `log π` without a reference.
    #[inline]
    pub(crate) fn log_ratios(&self, pair: usize) -> (F, F) {
        let (chosen, rejected) = (self.policy.chosen[pair], self.policy.rejected[pair]);
        match self.reference {
            Some(reference) => (chosen - reference.chosen[pair], rejected - reference.rejected[pair]),
            None => (chosen, rejected),
        }
    }
}

fn check_logps<F: Float>(model: Model, logps: PairLogps<'_, F>, pairs: usize) -> Result<(), PrefLossError> {
    for (side, sums) in [(Side::Chosen, logps.chosen), (Side::Rejected, logps.rejected)] {
        check_length(Input::Logps(model), side, pairs, sums.len())?;
        check_finite(model, side, sums)?;
    }
    Ok(())
}

/// Checks that there is a count, and not 0, for each response of `pairs` pairs.
pub(crate) fn check_tokens(tokens: PairTokens<'_>, pairs: usize) -> Result<(), PrefLossError> {
    for (side, counts) in [(Side::Chosen, tokens.chosen), (Side::Rejected, tokens.rejected)] {
        check_length(Input::Tokens, side, pairs, counts.len())?;
        if let Some(pair) = counts.iter().position(|&count| count == 0) {
            return Err(PrefLossError::EmptyResponse { side, pair });
        }
    }
    Ok(())
}

fn check_length(input: Input, side: Side, expected: usize, found: usize) -> Result<(), PrefLossError> {
    if found == expected { Ok(()) } else { Err(PrefLossError::Length { input, side, expected, found }) }
}

fn check_finite<F: Float>(model: Model, side: Side, values: &[F]) -> Result<(), PrefLossError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(pair) => Err(PrefLossError::NotFinite { model, side, pair, value: values[pair].widen() }),
    }
}

/// Losses and gradients of a batch. Reuse it: it allocates only when a batch is larger than every earlier one.
#[derive(Clone, Debug, Default)]
pub struct LossOutput<F> {
    losses: Vec<F>,
    chosen_grads: Vec<F>,
    rejected_grads: Vec<F>,
    pub(crate) order: [Vec<usize>; 2],
}

impl<F: Float> LossOutput<F> {
    /// Creates an empty output with capacity for `pairs` pairs.
    pub fn with_capacity(pairs: usize) -> Self {
        Self {
            losses: Vec::with_capacity(pairs),
            chosen_grads: Vec::with_capacity(pairs),
            rejected_grads: Vec::with_capacity(pairs),
            order: Default::default(),
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

    /// Computes the mean loss in f64; NaN without pairs.
    pub fn mean_loss(&self) -> f64 {
        self.losses.iter().map(|loss| loss.widen()).sum::<f64>() / self.losses.len() as f64
    }

    /// Multiplies the gradients by `factor`. The losses do not change.
    ///
    /// For the gradient of the mean over an optimizer step pass 1/(pairs in the step), also with gradient
    /// accumulation.
    pub fn scale_grads(&mut self, factor: F) {
        for grad in self.chosen_grads.iter_mut().chain(&mut self.rejected_grads) {
            *grad = *grad * factor;
        }
    }

    /// Multiplies the losses and gradients of each pair by its weight, such as WPO's.
    ///
    /// # Errors
    /// [`PrefLossError::Length`] if there is not one weight per pair.
    pub fn weigh(&mut self, weights: &[F]) -> Result<(), PrefLossError> {
        check_length(Input::Weights, Side::Chosen, self.losses.len(), weights.len())?;
        for numbers in [&mut self.losses, &mut self.chosen_grads, &mut self.rejected_grads] {
            for (number, &weight) in numbers.iter_mut().zip(weights) {
                *number = *number * weight;
            }
        }
        Ok(())
    }

    /// Resizes the losses, chosen gradients and rejected gradients to `pairs` and returns them, for a kernel to
    /// overwrite.
    pub(crate) fn resized(&mut self, pairs: usize) -> [&mut [F]; 3] {
        let Self { losses, chosen_grads, rejected_grads, .. } = self;
        [losses, chosen_grads, rejected_grads].map(|numbers| {
            numbers.resize(pairs, F::of(0.0));
            numbers.as_mut_slice()
        })
    }

    /// Adds `weight` times another output of the same batch.
    pub(crate) fn add(&mut self, weight: F, other: &Self) {
        let theirs = [&other.losses, &other.chosen_grads, &other.rejected_grads];
        for (ours, theirs) in
            [&mut self.losses, &mut self.chosen_grads, &mut self.rejected_grads].into_iter().zip(theirs)
        {
            for (number, &more) in ours.iter_mut().zip(theirs) {
                *number = *number + weight * more;
            }
        }
    }
}

/// The implicit rewards `β·(log π − log π_ref)` of one pair, from summed log-probabilities for every loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reward<F> {
    /// Of the chosen response.
    pub chosen: F,
    /// Of the rejected response.
    pub rejected: F,
}

impl<F: Float> Reward<F> {
    /// Returns the reward margin: chosen − rejected.
    pub fn margin(self) -> F {
        self.chosen - self.rejected
    }

    /// Returns whether the policy agrees with the label. A tie counts as disagreement, so the accuracy of an
    /// untrained policy is 0.
    pub fn is_accurate(self) -> bool {
        self.chosen > self.rejected
    }
}
