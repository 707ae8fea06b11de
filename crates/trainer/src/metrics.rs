//! The metrics of an optimizer step, under the names of TRL's logs.

use serde::{Deserialize, Serialize};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The number of optimizer steps so far, counted from 1.
    pub step: u64,
    /// The number of epochs so far.
    pub epoch: f64,
    /// Mean loss of the batch (nats): over pairs for preferences, over scored tokens in supervised training.
    pub loss: f64,
    /// Euclidean norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate of this update.
    pub learning_rate: f64,
    /// Means over the batch's pairs; absent in supervised training.
    #[serde(flatten)]
    pub preference: Option<PreferenceMetrics>,
    /// Means over the batch's completions in training on unpaired preferences; otherwise absent.
    #[serde(flatten)]
    pub unpaired: Option<UnpairedMetrics>,
    /// KTO's baseline: the mean log-ratio of mismatched responses (nats). `None` for other losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// β-DPO's β of the batch. `None` for other losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// Non-padding tokens that this step put through the policy.
    pub tokens: u64,
    /// Duration of the step; the only field that differs between two runs of the same recipe.
    pub step_seconds: f64,
}

impl StepMetrics {
    /// Returns all measurements with their names, for writers of series.
    pub fn series(&self) -> Vec<(&'static str, f64)> {
        let mut series = vec![
            ("loss", self.loss),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("epoch", self.epoch),
        ];
        if let Some(p) = &self.preference {
            series.extend([
                ("rewards/chosen", p.chosen_reward),
                ("rewards/rejected", p.rejected_reward),
                ("rewards/accuracies", p.accuracy),
                ("rewards/margins", p.margin),
                ("logps/chosen", p.chosen_logps),
                ("logps/rejected", p.rejected_logps),
            ]);
        }
        if let Some(u) = &self.unpaired {
            let UnpairedMetrics { desirable, undesirable, .. } = *u;
            series.extend([("counts/chosen", desirable), ("counts/rejected", undesirable)]);
            let measured = [
                ("rewards/chosen", u.chosen_reward),
                ("rewards/rejected", u.rejected_reward),
                ("rewards/margins", u.margin),
                ("logps/chosen", u.chosen_logps),
                ("logps/rejected", u.rejected_logps),
            ];
            series.extend(measured.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        series.extend(self.kl.map(|kl| ("kl", kl)));
        series.extend(self.beta.map(|beta| ("beta", beta)));
        series.extend([("tokens", self.tokens as f64), ("step_seconds", self.step_seconds)]);
        series
    }
}

/// Metrics of preference training besides the loss: means over the pairs of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PreferenceMetrics {
    /// β · (policy − reference) log-probability of the chosen response (nats).
    #[serde(rename = "rewards/chosen")]
    pub chosen_reward: f64,
    /// β · (policy − reference) log-probability of the rejected response (nats).
    #[serde(rename = "rewards/rejected")]
    pub rejected_reward: f64,
    /// Share of pairs whose chosen reward is strictly greater.
    #[serde(rename = "rewards/accuracies")]
    pub accuracy: f64,
    /// Chosen minus rejected reward (nats).
    #[serde(rename = "rewards/margins")]
    pub margin: f64,
    /// Summed log-probability of the chosen response (nats).
    #[serde(rename = "logps/chosen")]
    pub chosen_logps: f64,
    /// Summed log-probability of the rejected response (nats).
    #[serde(rename = "logps/rejected")]
    pub rejected_logps: f64,
}

impl PreferenceMetrics {
    pub(crate) fn fields_mut(&mut self) -> [&mut f64; 6] {
        [
            &mut self.chosen_reward,
            &mut self.rejected_reward,
            &mut self.accuracy,
            &mut self.margin,
            &mut self.chosen_logps,
            &mut self.rejected_logps,
        ]
    }
}

/// Metrics of training on unpaired preferences: means over the completions of one label. They are absent in a batch
/// without such a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnpairedMetrics {
    /// The number of desirable completions.
    #[serde(rename = "counts/chosen")]
    pub desirable: f64,
    /// The number of undesirable completions.
    #[serde(rename = "counts/rejected")]
    pub undesirable: f64,
    /// β · (policy − reference) log-probability of the desirable completions (nats).
    #[serde(rename = "rewards/chosen", default, skip_serializing_if = "Option::is_none")]
    pub chosen_reward: Option<f64>,
    /// β · (policy − reference) log-probability of the undesirable completions (nats).
    #[serde(rename = "rewards/rejected", default, skip_serializing_if = "Option::is_none")]
    pub rejected_reward: Option<f64>,
    /// The difference of the two (nats).
    #[serde(rename = "rewards/margins", default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Summed log-probability of the desirable completions (nats).
    #[serde(rename = "logps/chosen", default, skip_serializing_if = "Option::is_none")]
    pub chosen_logps: Option<f64>,
    /// Summed log-probability of the undesirable completions (nats).
    #[serde(rename = "logps/rejected", default, skip_serializing_if = "Option::is_none")]
    pub rejected_logps: Option<f64>,
}

/// Sums behind the [`UnpairedMetrics`] of a batch: number, rewards and log-probabilities of the completions of each
/// label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnpairedSums {
    desirable: [f64; 3],
    undesirable: [f64; 3],
}

impl UnpairedSums {
    /// Adds one completion.
    pub(crate) fn add(&mut self, is_desirable: bool, reward: f64, logp: f64) {
        let sums = if is_desirable { &mut self.desirable } else { &mut self.undesirable };
        for (sum, value) in sums.iter_mut().zip([1.0, reward, logp]) {
            *sum += value;
        }
    }

    /// Returns the means, for sums that were divided by the number of `examples`.
    fn means(self, examples: usize) -> UnpairedMetrics {
        let mean = |[count, rewards, logps]: [f64; 3]| {
            if count > 0.0 { (Some(rewards / count), Some(logps / count)) } else { (None, None) }
        };
        let (chosen_reward, chosen_logps) = mean(self.desirable);
        let (rejected_reward, rejected_logps) = mean(self.undesirable);
        let count = |[share, ..]: [f64; 3]| (share * examples as f64).round();
        UnpairedMetrics {
            desirable: count(self.desirable),
            undesirable: count(self.undesirable),
            chosen_reward,
            rejected_reward,
            margin: chosen_reward.zip(rejected_reward).map(|(chosen, rejected)| chosen - rejected),
            chosen_logps,
            rejected_logps,
        }
    }
}

/// Sums of a batch's metrics besides the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricSums {
    /// Of pairs.
    Pairs(PreferenceMetrics),
    /// Of single completions.
    Unpaired(UnpairedSums),
}

impl MetricSums {
    /// Returns sums over no example, of the kind that `is_unpaired` selects.
    pub(crate) fn zero(is_unpaired: bool) -> Self {
        if is_unpaired {
            Self::Unpaired(UnpairedSums::default())
        } else {
            Self::Pairs(PreferenceMetrics::default())
        }
    }

    pub(crate) fn is_unpaired(&self) -> bool {
        matches!(self, Self::Unpaired(_))
    }

    pub(crate) fn fields_mut(&mut self) -> [&mut f64; 6] {
        match self {
            Self::Pairs(sums) => sums.fields_mut(),
            Self::Unpaired(UnpairedSums { desirable: [a, b, c], undesirable: [d, e, f] }) => {
                [a, b, c, d, e, f]
            }
        }
    }

    /// Adds `factor` times other sums of the same kind.
    pub(crate) fn add(&mut self, mut other: Self, factor: impl Fn(f64) -> f64) {
        for (total, sum) in self.fields_mut().into_iter().zip(other.fields_mut()) {
            *total += factor(*sum);
        }
    }

    /// Returns the metrics of a batch of `examples`, over which the sums were averaged.
    pub(crate) fn metrics(self, examples: usize) -> (Option<PreferenceMetrics>, Option<UnpairedMetrics>) {
        match self {
            Self::Pairs(means) => (Some(means), None),
            Self::Unpaired(sums) => (None, Some(sums.means(examples))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_trl_names_in_a_fixed_order() {
        let preference = PreferenceMetrics { chosen_reward: 1.0, margin: 0.5, ..Default::default() };
        let metrics = StepMetrics {
            step: 3,
            epoch: 0.5,
            loss: 0.6,
            grad_norm: 2.0,
            learning_rate: 5e-7,
            preference: Some(preference),
            unpaired: None,
            kl: None,
            beta: None,
            tokens: 12,
            step_seconds: 0.25,
        };
        let line = serde_json::to_string(&metrics).unwrap();
        assert_eq!(
            line,
            r#"{"step":3,"epoch":0.5,"loss":0.6,"grad_norm":2.0,"learning_rate":5e-7,"rewards/chosen":1.0,"rewards/rejected":0.0,"rewards/accuracies":0.0,"rewards/margins":0.5,"logps/chosen":0.0,"logps/rejected":0.0,"tokens":12,"step_seconds":0.25}"#
        );
        assert_eq!(serde_json::from_str::<StepMetrics>(&line).unwrap(), metrics);
        let kto = serde_json::to_string(&StepMetrics { kl: Some(0.5), ..metrics.clone() }).unwrap();
        assert!(kto.contains(r#""logps/rejected":0.0,"kl":0.5,"tokens""#), "{kto}");
        let supervised = StepMetrics { preference: None, ..metrics };
        assert!(!serde_json::to_string(&supervised).unwrap().contains("rewards"));
    }
}
