//! Weighted sums on tensors.

use tch::Tensor;

use super::logps::{PairLogpTensors, check_tensors};
use crate::{LossSum, PairTokens, PrefLossError};

impl LossSum {
    /// Computes the weighted sum of every pair's losses, `[pairs]`, with a graph to the policy's log-probabilities.
    /// `reference` may be `None` if no term needs one.
    ///
    /// # Errors
    /// As [`PreferenceLoss::forward`](crate::PreferenceLoss::forward), and [`PrefLossError::MissingReference`].
    pub fn forward(
        &self,
        policy: &PairLogpTensors,
        reference: Option<&PairLogpTensors>,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        check_tensors(policy, reference)?;
        let mut sum = policy.chosen.zeros_like();
        for term in &self.terms {
            sum += term.loss.forward_to(policy, reference, tokens)? * term.weight.get();
        }
        Ok(sum)
    }
}
