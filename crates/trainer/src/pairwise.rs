//! Losses of pairs: weighted sums, with the adjustments that any of them may have.

use policy_model::Policy;
use pref_data::TokenBatch;
use pref_loss::{
    DynamicBeta, LdAlpha, LossOutput, LossSum, LossTerm, PairBatch, PrefLossError, PreferenceLoss, Weight,
    WpoTokens, wpo_weight,
};

use crate::error::TrainError;
use crate::scoring::ForwardPass;

/// A loss over the two responses of a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct PairwiseLoss {
    /// The terms; a single loss is one term of weight 1.
    pub sum: LossSum,
    /// Length-desensitized log-probabilities, of policy and reference.
    pub ld_alpha: Option<LdAlpha>,
    /// Whether pairs are weighted by the probability of their responses under the policy.
    pub wpo: bool,
    /// One β per batch, for DPO alone. It is the state before the first batch.
    pub dynamic_beta: Option<DynamicBeta>,
}

impl From<PreferenceLoss> for PairwiseLoss {
    fn from(loss: PreferenceLoss) -> Self {
        let sum = LossSum { terms: vec![LossTerm { weight: Weight::ONE, loss }] };
        Self { sum, ld_alpha: None, wpo: false, dynamic_beta: None }
    }
}

impl PairwiseLoss {
    /// Returns whether the loss compares the policy with a reference.
    pub fn reads_reference(&self) -> bool {
        self.sum.terms.iter().any(|term| term.loss.reads().reference)
    }

    /// Returns whether a pair's loss depends on the other pairs of its batch.
    pub(crate) fn compares_pairs(&self) -> bool {
        let compares = |term: &LossTerm| {
            matches!(term.loss, PreferenceLoss::Aot { .. } | PreferenceLoss::AotUnpaired { .. })
        };
        self.dynamic_beta.is_some() || self.sum.terms.iter().any(compares)
    }

    /// Returns the β of the first term that has one, or 1.
    pub(crate) fn beta(&self) -> f64 {
        let betas = self.sum.terms.iter().filter_map(|term| term.loss.beta());
        betas.map(|beta| beta.get()).next().unwrap_or(1.0)
    }

    /// Computes losses and gradients of all pairs.
    pub(crate) fn evaluate(
        &self,
        batch: &PairBatch<'_, f64>,
        out: &mut LossOutput<f64>,
    ) -> Result<(), PrefLossError> {
        match &*self.sum.terms {
            [LossTerm { weight, loss }] if *weight == Weight::ONE => loss.evaluate(batch, out),
            _ => self.sum.evaluate(batch, out, &mut LossOutput::default()),
        }
    }

    /// Returns the weight of each scored token in its sequence's log-probability; `None` for plain sums.
    pub(crate) fn token_weights(&self, batch: &TokenBatch) -> Option<Vec<f64>> {
        self.ld_alpha.map(|alpha| token_weights(batch, alpha))
    }

    /// Returns the weight of each pair of a batch under `policy`; `None` for equal weights.
    pub(crate) fn pair_weights(
        &self,
        policy: &Policy,
        forward: &ForwardPass<'_>,
    ) -> Result<Option<Vec<f64>>, TrainError> {
        if !self.wpo {
            return Ok(None);
        }
        let logps = forward.by_sequence(forward.logps());
        let log_collisions = forward.by_sequence(&forward.log_collisions(policy)?);
        let of_sequence = |at: usize| WpoTokens { logps: &logps[at], log_collisions: &log_collisions[at] };
        let pairs = logps.len() / 2;
        let weight = |pair| wpo_weight(of_sequence(pair), of_sequence(pairs + pair));
        Ok(Some((0..pairs).map(weight).collect::<Result<_, PrefLossError>>()?))
    }
}

/// Returns the weight of each scored token of pairs in length-desensitized log-probabilities.
pub(crate) fn token_weights(batch: &TokenBatch, alpha: LdAlpha) -> Vec<f64> {
    let pairs = batch.sequences / 2;
    let mut weights: Vec<_> = (0..batch.sequences)
        .map(|sequence| {
            let partner = (sequence + pairs) % batch.sequences;
            alpha.token_weights(batch.lengths[sequence] as usize, batch.lengths[partner] as usize)
        })
        .collect();
    // The tokens of a sequence are in order.
    batch.sequence.iter().filter_map(|&sequence| weights[sequence as usize].next()).collect()
}
