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
    /// KTO's baseline: the mean log-ratio of mismatched responses (nats). `None` for other losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
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
        series.extend(self.kl.map(|kl| ("kl", kl)));
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
            kl: None,
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
