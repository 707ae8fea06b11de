//! Losses of tensors with a graph to the policy.

use tch::Tensor;

use super::formula;
use super::logps::{PairLogpTensors, RewardTensors, check_tensors};
use crate::batch::check_tokens;
use crate::{Beta, LogpReduction, PairTokens, PrefLossError, PreferenceLoss};

impl PreferenceLoss {
    /// Computes the loss of every pair, `[pairs]`, with a graph to the policy's log-probabilities and none to the
    /// reference's.
    ///
    /// Reduce it with `.mean(None)` or as the step requires.
    ///
    /// ```
    /// use pref_loss::{Beta, PairLogpTensors, PairTokens, PreferenceLoss};
    /// use tch::{Kind, Tensor};
    ///
    /// let logps = |chosen: [f32; 2], rejected: [f32; 2]| PairLogpTensors {
    ///     chosen: Tensor::from_slice(&chosen).set_requires_grad(true),
    ///     rejected: Tensor::from_slice(&rejected).set_requires_grad(true),
    /// };
    /// let policy = logps([-20.0, -31.0], [-25.0, -30.0]);
    /// let reference = logps([-20.0, -31.0], [-25.0, -30.0]);
    /// let tokens = PairTokens { chosen: &[9, 12], rejected: &[11, 10] };
    /// let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
    /// loss.forward(&policy, &reference, tokens)?.mean(Kind::Float).backward();
    /// assert_eq!(Vec::<f32>::try_from(policy.chosen.grad())?, [-0.025, -0.025]);
    /// assert!(!reference.chosen.grad().defined());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PrefLossError::Shape`], [`PrefLossError::Kind`] and [`PrefLossError::Device`] if the tensors don't fit,
    /// [`PrefLossError::Length`] and [`PrefLossError::EmptyResponse`] if the counts don't. The values are not
    /// checked, so NaN propagates: a check would synchronize with the device.
    pub fn forward(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        self.forward_to(policy, Some(reference), tokens)
    }

    /// Computes the loss of every pair for a loss without a reference: SimPO, ORPO, CPO or the SFT term.
    ///
    /// ```
    /// use pref_loss::{Beta, PairLogpTensors, PairTokens, PreferenceLoss, TargetMargin};
    /// use tch::Tensor;
    ///
    /// let policy = PairLogpTensors {
    ///     chosen: Tensor::from_slice(&[-20.0_f32]),
    ///     rejected: Tensor::from_slice(&[-30.0_f32]),
    /// };
    /// let simpo = PreferenceLoss::Simpo { beta: Beta::new(2.0)?, gamma: TargetMargin::new(2.0)? };
    /// // Means over tokens are −2 and −3, so the margin 2·(−2 + 3) equals γ.
    /// let tokens = PairTokens { chosen: &[10], rejected: &[10] };
    /// let losses = simpo.forward_reference_free(&policy, tokens)?;
    /// assert_eq!(losses.double_value(&[0]) as f32, std::f32::consts::LN_2);
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`PrefLossError::MissingReference`] for any other loss.
    pub fn forward_reference_free(
        &self,
        policy: &PairLogpTensors,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        self.forward_to(policy, None, tokens)
    }

    pub(super) fn forward_to(
        &self,
        policy: &PairLogpTensors,
        reference: Option<&PairLogpTensors>,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        let reads = self.reads();
        let pairs = check_tensors(policy, reference)?;
        check_tokens(tokens, pairs)?;
        let [mut a, mut b] = match reference {
            _ if !reads.reference => [policy.chosen.shallow_clone(), policy.rejected.shallow_clone()],
            Some(reference) => {
                [&policy.chosen - reference.chosen.detach(), &policy.rejected - reference.rejected.detach()]
            }
            None => return Err(PrefLossError::MissingReference { loss: self.name() }),
        };
        if reads.reduction == LogpReduction::Mean {
            a = per_token(a, tokens.chosen);
            b = per_token(b, tokens.rejected);
        }
        if let (Self::Aot { .. }, Some(reference)) = (self, reference) {
            a = &policy.chosen - &policy.rejected;
            b = (&reference.chosen - &reference.rejected).detach();
        }
        Ok(formula::loss(self, &a, &b))
    }

    /// Computes the implicit rewards of every pair from summed log-probabilities, for every loss.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), except those of the counts.
    pub fn reward_tensors(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
    ) -> Result<RewardTensors, PrefLossError> {
        check_tensors(policy, Some(reference))?;
        let beta = self.beta().map_or(1.0, Beta::get);
        Ok(RewardTensors {
            chosen: (policy.chosen.detach() - reference.chosen.detach()) * beta,
            rejected: (policy.rejected.detach() - reference.rejected.detach()) * beta,
        })
    }
}

/// Divides sums over tokens by the token counts.
fn per_token(sums: Tensor, counts: &[u32]) -> Tensor {
    // libtorch has no u32, and f64 represents every count exactly.
    let counts: Vec<f64> = counts.iter().copied().map(f64::from).collect();
    let counts = Tensor::from_slice(&counts).to_kind(sums.kind()).to_device(sums.device());
    sums / counts
}
