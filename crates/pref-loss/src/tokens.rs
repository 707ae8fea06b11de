//! Functions of token log-probabilities: LD log-probabilities and WPO weights.

use serde::{Deserialize, Serialize};

use crate::{Float, PrefLossError};

/// The weight, in \[0, 1\], of tokens beyond the shorter response's length in length-desensitized log-probabilities.
/// 1 is the plain sum.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct LdAlpha(f64);

impl LdAlpha {
    /// Validates `value`.
    ///
    /// # Errors
    /// [`PrefLossError::Parameter`] if `value` is outside \[0, 1\].
    pub fn new(value: f64) -> Result<Self, PrefLossError> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(PrefLossError::Parameter { name: "ld_alpha", value, range: "at least 0 and at most 1" })
        }
    }

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns the weight of each token, dlog π(response)/dlog π(token), for the backward pass.
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

/// Computes a response's length-desensitized log-probability in nats (LD-DPO: Liu et al. 2024, arXiv:2409.06411).
/// Tokens up to the shorter response's length have weight 1, the others α. `other_tokens` is the partner's length.
///
/// Use the same α for policy and reference, with any loss. The sum is in f64.
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

/// WPO's inputs of one response: two numbers per token, in nats, under the policy.
#[derive(Clone, Copy, Debug)]
pub struct WpoTokens<'a, F> {
    /// log π(token).
    pub logps: &'a [F],
    /// log Σ π(v)² over the vocabulary at the same position: the log-probability that two samples agree.
    pub log_collisions: &'a [F],
}

impl<F: Float> WpoTokens<'_, F> {
    /// Computes the weight of one response: e to the mean of log π − log Σ π² over its tokens.
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

/// Computes WPO's weight of a pair, for [`LossOutput::weigh`](crate::LossOutput::weigh) (Zhou et al. 2024,
/// arXiv:2406.11827, eq. 2, with the sampled alignment of section 3.2). It is the product of both responses' weights,
/// without gradient.
///
/// Pairs that are unlikely under the policy have small weights. The weight exceeds 1 for responses more likely than
/// sampled ones; as in TRL, it is not clamped.
///
/// ```
/// use pref_loss::{WpoTokens, wpo_weight};
///
/// // Each chosen token is as likely as two samples agreeing; the rejected token is half as likely.
/// let chosen = WpoTokens { logps: &[-1.0, -2.0], log_collisions: &[-1.0, -2.0] };
/// let rejected = WpoTokens { logps: &[0.25_f64.ln()], log_collisions: &[0.5_f64.ln()] };
/// assert_eq!(wpo_weight(chosen, rejected)?, 0.5);
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
///
/// # Errors
/// As [`WpoTokens::weight`].
pub fn wpo_weight<F: Float>(
    chosen: WpoTokens<'_, F>,
    rejected: WpoTokens<'_, F>,
) -> Result<F, PrefLossError> {
    Ok(F::of(chosen.weight()? * rejected.weight()?))
}
