//! What a batch's rewards say in few numbers.

use crate::{Float, Reward};

/// Means over the pairs of a batch, under TRL's names, and an estimate of how far the policy has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardMetrics {
    /// `rewards/chosen`.
    pub chosen: f64,
    /// `rewards/rejected`.
    pub rejected: f64,
    /// `rewards/margins`: the mean of chosen − rejected.
    pub margins: f64,
    /// `rewards/accuracies`: the share of pairs whose chosen reward is strictly the larger.
    pub accuracies: f64,
    /// The implicit reward's own estimate of `β·KL(π ‖ π_ref)`: the mean reward over all responses.
    ///
    /// It is the KL divergence, times β, only as far as the responses are the policy's own; on a preference set's
    /// responses it can be negative, and tells that the policy left them both.
    pub kl: f64,
}

impl RewardMetrics {
    /// Summed in f64; all 0 without pairs.
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
