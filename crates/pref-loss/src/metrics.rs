//! Reward metrics of a batch.

use crate::{Float, Reward};

/// Means over the pairs of a batch, with TRL's names, and an estimate of the KL divergence.
///
/// ```
/// use pref_loss::{Beta, PairBatch, PairLogps, PairTokens, PreferenceLoss, RewardMetrics};
///
/// let policy = PairLogps { chosen: &[-20.0, -31.0], rejected: &[-26.0, -30.0] };
/// let reference = PairLogps { chosen: &[-22.0, -31.0], rejected: &[-24.0, -30.0] };
/// let batch = PairBatch::new(policy, reference, PairTokens { chosen: &[9, 12], rejected: &[11, 10] })?;
/// let loss = PreferenceLoss::Dpo { beta: Beta::new(0.5)? };
/// let metrics = RewardMetrics::of(loss.rewards(&batch));
/// assert_eq!((metrics.chosen, metrics.rejected, metrics.margins), (0.5, -0.5, 1.0));
/// assert_eq!(metrics.accuracies, 0.5);
/// # Ok::<(), pref_loss::PrefLossError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardMetrics {
    /// `rewards/chosen`.
    pub chosen: f64,
    /// `rewards/rejected`.
    pub rejected: f64,
    /// `rewards/margins`: the mean of chosen − rejected.
    pub margins: f64,
    /// `rewards/accuracies`: the fraction of pairs whose chosen reward is strictly larger.
    pub accuracies: f64,
    /// The mean reward over all responses, an estimate of `β·KL(π ‖ π_ref)`.
    ///
    /// It is unbiased only for responses sampled from the policy. On a preference set's responses it can be negative:
    /// the policy then assigns less probability to both.
    pub kl: f64,
}

impl RewardMetrics {
    /// Computes the means in f64; all are 0 without pairs.
    pub fn of<F: Float>(rewards: impl IntoIterator<Item = Reward<F>>) -> Self {
        let mut sum = Self::default();
        let mut pairs = 0.0;
        for reward in rewards {
            pairs += 1.0;
            sum.chosen += reward.chosen.widen();
            sum.rejected += reward.rejected.widen();
            sum.margins += reward.margin().widen();
            sum.accuracies += f64::from(u8::from(reward.is_accurate()));
        }
        if pairs == 0.0 {
            return sum;
        }
        let [chosen, rejected] = [sum.chosen / pairs, sum.rejected / pairs];
        Self {
            chosen,
            rejected,
            margins: sum.margins / pairs,
            accuracies: sum.accuracies / pairs,
            kl: (chosen + rejected) / 2.0,
        }
    }
}
