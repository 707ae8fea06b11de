//! KTO: a loss of single responses, each labeled desirable or undesirable.

use serde::{Deserialize, Serialize};

use crate::{Beta, Float, LossOutput, Model, PairBatch, PrefLossError, Side, Weight};

/// Kahneman–Tversky optimization, for responses without a partner (Ethayarajh et al. 2024, arXiv:2402.01306, eqs. 7
/// and 8).
///
/// With x = `log π − log π_ref` of a response and the baseline z of [`KlEstimate`]: `λ_D σ(β(z − x))` for a desirable
/// response, `λ_U σ(β(x − z))` for an undesirable one. No gradient flows through z.
///
/// The loss is bounded, so its gradient vanishes for responses far on the wrong side. The authors recommend `λ_D n_D
/// : λ_U n_U` between 1 : 1 and 4 : 3, where n counts the responses of each label.
///
/// ```
/// use pref_loss::{Beta, KlEstimate, KtoBatch, KtoLoss, KtoOutput, Weight};
///
/// let loss = KtoLoss { beta: Beta::new(0.1)?, desirable: Weight::ONE, undesirable: Weight::ONE };
/// let batch = KtoBatch::new(&[-20.0, -31.0], &[-20.0, -31.0], &[true, false])?;
/// let baseline = KlEstimate::new(&[-40.0, -38.0], &[-41.0, -38.0])?;
/// assert_eq!(baseline.nats(), 0.5);
/// let mut out = KtoOutput::default();
/// loss.evaluate(&batch, baseline, &mut out);
/// assert!(out.losses()[0] > 0.5 && out.losses()[1] < 0.5);
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KtoLoss {
    /// β.
    pub beta: Beta,
    /// `λ_D`, the weight of desirable responses.
    pub desirable: Weight,
    /// `λ_U`, the weight of undesirable responses.
    pub undesirable: Weight,
}

/// A validated batch of single responses with their summed log-probabilities in nats.
#[derive(Clone, Copy, Debug)]
pub struct KtoBatch<'a, F> {
    policy: &'a [F],
    reference: &'a [F],
    desirable: &'a [bool],
}

/// The baseline z: an estimate of `KL(π ‖ π_ref)` in nats, at least 0.
///
/// It is the mean log-ratio over *KL pairs*, as in TRL: the batch's prompts with its responses shifted by one. On the
/// matched responses it would be the reward itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlEstimate(f64);

/// Losses and gradients of a batch of single responses.
#[derive(Clone, Debug, Default)]
pub struct KtoOutput<F> {
    losses: Vec<F>,
    grads: Vec<F>,
}

impl KtoLoss {
    /// Computes losses and gradients of every response in one pass and overwrites `out` with them.
    pub fn evaluate<F: Float>(&self, batch: &KtoBatch<'_, F>, baseline: KlEstimate, out: &mut KtoOutput<F>) {
        let of_response = self.kernel(baseline);
        out.losses.clear();
        out.grads.clear();
        let responses = batch.policy.iter().zip(batch.reference).zip(batch.desirable);
        for ((&policy, &reference), &is_desirable) in responses {
            let (loss, grad) = of_response(policy - reference, is_desirable);
            out.losses.push(loss);
            out.grads.push(grad);
        }
    }

    /// Computes losses and gradients of pairs: the chosen response of each is desirable, the rejected one
    /// undesirable. A pair's loss is the mean of the two, so that the mean over pairs equals the mean over responses.
    ///
    /// ```
    /// use pref_loss::{Beta, KlEstimate, KtoLoss, LossOutput, PairBatch, PairLogps, PairTokens, Weight};
    ///
    /// let logps = PairLogps { chosen: &[-20.0], rejected: &[-31.0] };
    /// let batch = PairBatch::new(logps, logps, PairTokens { chosen: &[7], rejected: &[9] })?;
    /// let loss = KtoLoss { beta: Beta::new(0.1)?, desirable: Weight::ONE, undesirable: Weight::ONE };
    /// let mut out = LossOutput::default();
    /// loss.evaluate_pairs(&batch, KlEstimate::ZERO, &mut out)?;
    /// assert_eq!(out.losses(), [0.5]);
    /// assert_eq!((out.chosen_grads()[0], out.rejected_grads()[0]), (-0.0125, 0.0125));
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    ///
    /// # Errors
    /// [`PrefLossError::MissingReference`] if the batch has none.
    pub fn evaluate_pairs<F: Float>(
        &self,
        batch: &PairBatch<'_, F>,
        baseline: KlEstimate,
        out: &mut LossOutput<F>,
    ) -> Result<(), PrefLossError> {
        if batch.reference.is_none() {
            return Err(PrefLossError::MissingReference { loss: "kto" });
        }
        let (of_response, half) = (self.kernel(baseline), F::of(0.5));
        let [losses, chosen_grads, rejected_grads] = out.resized(batch.len());
        for pair in 0..batch.len() {
            let (chosen, rejected) = batch.log_ratios(pair);
            let (chosen, rejected) = (of_response(chosen, true), of_response(rejected, false));
            losses[pair] = half * (chosen.0 + rejected.0);
            chosen_grads[pair] = half * chosen.1;
            rejected_grads[pair] = half * rejected.1;
        }
        Ok(())
    }

    /// Returns the loss and gradient of one response as a function of its log-ratio and its label.
    fn kernel<F: Float>(&self, baseline: KlEstimate) -> impl Fn(F, bool) -> (F, F) + use<F> {
        let (beta, z) = (F::of(self.beta.get()), F::of(baseline.0));
        let weights = [self.undesirable, self.desirable].map(|weight| F::of(weight.get()));
        move |log_ratio, is_desirable| {
            let s = (beta * (log_ratio - z)).logistic();
            let weight = weights[usize::from(is_desirable)];
            let slope = weight * beta * s.p * s.q;
            if is_desirable { (weight * s.q, -slope) } else { (weight * s.p, slope) }
        }
    }
}

impl<'a, F: Float> KtoBatch<'a, F> {
    /// Creates a batch from the policy's and the reference's log-probabilities and a label per response.
    ///
    /// # Errors
    /// [`PrefLossError::Responses`] if the slices differ in length, [`PrefLossError::NotFinite`] for a NaN or infinite
    /// log-probability.
    pub fn new(policy: &'a [F], reference: &'a [F], desirable: &'a [bool]) -> Result<Self, PrefLossError> {
        check_responses(policy, reference)?;
        if desirable.len() != policy.len() {
            return Err(PrefLossError::Responses { expected: policy.len(), found: desirable.len() });
        }
        Ok(Self { policy, reference, desirable })
    }
}

impl KlEstimate {
    /// No baseline. The loss is then APO-zero of single responses.
    pub const ZERO: Self = Self(0.0);

    /// Computes the mean log-ratio of the KL pairs, clamped to at least 0.
    ///
    /// # Errors
    /// [`PrefLossError::Responses`] if the slices differ in length or are empty, [`PrefLossError::NotFinite`] for a NaN or
    /// infinite log-probability.
    pub fn new<F: Float>(policy: &[F], reference: &[F]) -> Result<Self, PrefLossError> {
        check_responses(policy, reference)?;
        if policy.is_empty() {
            return Err(PrefLossError::Responses { expected: 1, found: 0 });
        }
        let sum: f64 = policy.iter().zip(reference).map(|(&p, &r)| (p - r).widen()).sum();
        Ok(Self((sum / policy.len() as f64).max(0.0)))
    }

    /// z, in nats.
    pub fn nats(self) -> f64 {
        self.0
    }
}

impl<F> KtoOutput<F> {
    /// The loss of each response.
    pub fn losses(&self) -> &[F] {
        &self.losses
    }

    /// dL/d(policy's log-prob) of each response's own loss.
    pub fn grads(&self) -> &[F] {
        &self.grads
    }
}

fn check_responses<F: Float>(policy: &[F], reference: &[F]) -> Result<(), PrefLossError> {
    if policy.len() != reference.len() {
        return Err(PrefLossError::Responses { expected: policy.len(), found: reference.len() });
    }
    for (model, logps) in [(Model::Policy, policy), (Model::Reference, reference)] {
        if let Some(pair) = logps.iter().position(|logp| !logp.is_finite()) {
            let value = logps[pair].widen();
            return Err(PrefLossError::NotFinite { model, side: Side::Unpaired, pair, value });
        }
    }
    Ok(())
}
