//! What is made of single tokens' log-probabilities before a pair's loss: LD's sums and WPO's weights.

use serde::{Deserialize, Serialize};

use crate::{Float, PrefLossError};

/// How much the tokens beyond the shorter response's length count in length-desensitised log-probabilities: in \[0, 1\].
/// 1 is the plain sum.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LdAlpha(f64);

impl LdAlpha {
    /// # Errors
    /// [`PrefLossError::Parameter`] if `value` is outside \[0, 1\].
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(PrefLossError::Parameter { name: "ld_alpha", value, range: "at least 0 and at most 1" })
        }
    }

    /// The number itself.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The weight of each of a response's tokens: dlog π(response)/dlog π(token), to pass a gradient on.
    pub fn token_weights(self, tokens: usize, other_tokens: usize) -> impl ExactSizeIterator<Item = f64> {
        let shared = tokens.min(other_tokens);
        (0..tokens).map(move |token| if token < shared { 1.0 } else { self.0 })
    }
}

impl TryFrom<f64> for LdAlpha {
    type Error = PrefLossError;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value)
    }
}

impl From<LdAlpha> for f64 {
    fn from(alpha: LdAlpha) -> Self {
        alpha.0
    }
}

/// A response's length-desensitised log-probability, in nats (LD-DPO: Liu et al. 2024, arXiv:2409.06411): the tokens up
/// to the shorter response's length count fully, those beyond it α times. `other_tokens` is the partner's length.
///
/// Give the same to policy and reference, and any loss may follow; summed in f64.
///
/// ```
/// use pref_loss::{LdAlpha, ld_logp};
///
/// let half = LdAlpha::new(0.5)?;
/// assert_eq!(ld_logp(&[-1.0, -2.0, -4.0], 2, half), -5.0);
/// assert_eq!(ld_logp(&[-1.0, -2.0, -4.0], 7, half), -7.0);
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
pub fn ld_logp<F: Float>(token_logps: &[F], other_tokens: usize, alpha: LdAlpha) -> F {
    let weights = alpha.token_weights(token_logps.len(), other_tokens);
    F::of(token_logps.iter().zip(weights).map(|(logp, weight)| logp.widen() * weight).sum())
}

/// What WPO reads of one response: two numbers for each of its tokens, in nats, under the policy.
#[derive(Clone, Copy, Debug)]
pub struct WpoTokens<'a, F> {
    /// log π(token).
    pub logps: &'a [F],
    /// log Σ π(v)² over the vocabulary at the same position: the log-probability that two draws agree.
    pub log_collisions: &'a [F],
}

impl<F: Float> WpoTokens<'_, F> {
    /// The weight of one response: e to the mean of log π − log Σ π² over its tokens.
    ///
    /// # Errors
    /// [`PrefLossError::Responses`] if the slices differ in length or are empty.
    pub fn weight(&self) -> Result<f64, PrefLossError> {
        let (expected, found) = (self.logps.len(), self.log_collisions.len());
        if expected != found || expected == 0 {
            return Err(PrefLossError::Responses { expected: expected.max(1), found });
        }
        let tokens = self.logps.iter().zip(self.log_collisions);
        let sum: f64 = tokens.map(|(&logp, &collision)| (logp - collision).widen()).sum();
        Ok((sum / expected as f64).exp())
    }
}

/// By how much WPO multiplies a pair's loss, for [`LossOutput::weigh`](crate::LossOutput::weigh) (Zhou et al. 2024,
/// arXiv:2406.11827, eq. 2, with the sampled alignment of its section 3.2): the product of both responses' weights, a
/// constant without gradient.
///
/// Pairs that the policy itself would hardly write count little. Above 1 for responses more likely than what it would
/// sample; like TRL's, it is not cut off there.
///
/// # Errors
/// As [`WpoTokens::weight`].
pub fn wpo_weight<F: Float>(
    chosen: WpoTokens<'_, F>,
    rejected: WpoTokens<'_, F>,
) -> Result<F, PrefLossError> {
    Ok(F::of(chosen.weight()? * rejected.weight()?))
}
