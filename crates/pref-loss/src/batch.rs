//! What a loss reads and writes: log-probabilities of a batch of pairs, losses and gradients.

use crate::{Float, Input, Model, PrefLossError, Side};

/// Sequence log-probabilities of a batch of pairs under one model, in nats: each the *sum* over the response's tokens.
#[derive(Clone, Copy, Debug)]
pub struct PairLogps<'a, F> {
    /// log π(chosen | prompt), one per pair.
    pub chosen: &'a [F],
    /// log π(rejected | prompt), one per pair.
    pub rejected: &'a [F],
}

/// How many tokens each response has: those that its log-probability sums over, the end-of-sequence token included.
#[derive(Clone, Copy, Debug)]
pub struct PairTokens<'a> {
    /// Of the chosen responses, one count per pair.
    pub chosen: &'a [u32],
    /// Of the rejected responses, one count per pair.
    pub rejected: &'a [u32],
}

/// A batch of pairs with all that a loss asks for, checked once.
///
/// Both models read the same tokens, so the counts stand beside the log-probabilities and not within them.
#[derive(Clone, Copy, Debug)]
pub struct PairBatch<'a, F> {
    pub(crate) policy: PairLogps<'a, F>,
    pub(crate) reference: Option<PairLogps<'a, F>>,
    pub(crate) tokens: PairTokens<'a>,
}

impl<'a, F: Float> PairBatch<'a, F> {
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

    /// A batch for a loss that reads no reference: SimPO, ORPO, CPO, the SFT term. Others refuse it.
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

    /// What one pair's chosen and rejected response are rewarded for, in nats: `log π − log π_ref`, or `log π` where
    /// there is no reference.
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

/// Losses and gradients of a batch. Reused from batch to batch it allocates only when a batch is larger than any before.
#[derive(Clone, Debug, Default)]
pub struct LossOutput<F> {
    losses: Vec<F>,
    chosen_grads: Vec<F>,
    rejected_grads: Vec<F>,
    pub(crate) order: [Vec<usize>; 2],
}

impl<F: Float> LossOutput<F> {
    /// Room for `pairs` pairs, holding none.
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

    /// Multiplies the losses and gradients of each pair by its own weight: WPO's, or any other.
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

    /// Each pair's share of the gradient: (|dL/dlog π(chosen)| + |dL/dlog π(rejected)|) over the batch's sum of these. It
    /// tells which pairs a step listens to. All 0 where no pair has a gradient.
    pub fn gradient_shares(&self) -> Vec<f64> {
        let sizes: Vec<f64> = (self.chosen_grads.iter().zip(&self.rejected_grads))
            .map(|(chosen, rejected)| chosen.widen().abs() + rejected.widen().abs())
            .collect();
        let sum: f64 = sizes.iter().sum();
        sizes.iter().map(|size| if sum > 0.0 { size / sum } else { 0.0 }).collect()
    }

    /// Room for exactly `pairs` pairs: losses, chosen gradients, rejected gradients, for a kernel to overwrite.
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
