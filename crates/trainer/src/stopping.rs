//! Early stopping, by a metric of held-out preferences.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::held_out::HeldOutMetrics;
use crate::seen::Seen;

/// A metric of held-out preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOutMetric {
    /// The mean loss; smaller is better.
    #[default]
    #[serde(rename = "eval/loss", alias = "eval_loss")]
    Loss,
    /// The share of pairs whose chosen reward is greater; larger is better.
    #[serde(rename = "eval/accuracy", alias = "eval_rewards/accuracies")]
    Accuracy,
    /// The mean difference of the rewards; larger is better.
    #[serde(rename = "eval/margin", alias = "eval_rewards/margins")]
    Margin,
}

impl HeldOutMetric {
    /// Returns a number that is larger for a better evaluation.
    pub(crate) fn gain(self, metrics: &HeldOutMetrics) -> f64 {
        match self {
            Self::Loss => -metrics.loss,
            Self::Accuracy => metrics.accuracy().unwrap_or(f64::NAN),
            Self::Margin => metrics.margin().unwrap_or(f64::NAN),
        }
    }

    /// Returns the value of the metric.
    pub fn of(self, metrics: &HeldOutMetrics) -> f64 {
        if self == Self::Loss { metrics.loss } else { self.gain(metrics) }
    }
}

impl fmt::Display for HeldOutMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "eval/loss",
            Self::Accuracy => "eval/accuracy",
            Self::Margin => "eval/margin",
        })
    }
}

/// The rule of early stopping: that of transformers' `EarlyStoppingCallback`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// The metric.
    pub metric: HeldOutMetric,
    /// The number of evaluations in a row without improvement after which training ends.
    pub patience: u64,
    /// The difference from the best value so far that an improvement exceeds, at least 0.
    pub threshold: f64,
}

/// The evaluations so far, under a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patience {
    rule: EarlyStopping,
    seen: Seen,
}

impl Patience {
    pub(crate) fn new(rule: EarlyStopping) -> Self {
        Self { rule, seen: Seen::default() }
    }

    /// Returns the same rule after other evaluations.
    pub(crate) fn after(self, seen: Seen) -> Self {
        Self { seen, ..self }
    }

    pub(crate) fn seen(self) -> Seen {
        self.seen
    }

    /// Adds an evaluation.
    pub(crate) fn see(&mut self, metrics: &HeldOutMetrics) {
        let gain = self.rule.metric.gain(metrics);
        if self.seen.best.is_none_or(|best| gain > best + self.rule.threshold) {
            self.seen = Seen { best: Some(gain), stale: 0 };
        } else {
            self.seen.stale += 1;
        }
    }

    /// Returns whether training ends.
    pub(crate) fn is_over(&self) -> bool {
        self.seen.stale >= self.rule.patience
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has not improved in {} evaluations", self.rule.metric, self.seen.stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of evaluations after which training ends; `None` if it does not.
    fn ends(rule: EarlyStopping, values: &[f64]) -> Option<usize> {
        let mut patience = Patience::new(rule);
        values.iter().position(|&value| {
            let mut metrics: HeldOutMetrics = serde_json::from_str(ZERO).unwrap();
            metrics.loss = value;
            metrics.preference.as_mut().unwrap().accuracy = value;
            patience.see(&metrics);
            // As a resumed run restores it.
            patience = Patience::new(rule).after(patience.seen());
            patience.is_over()
        })
    }

    const ZERO: &str = r#"{"step": 1, "epoch": 1.0, "eval_loss": 0.0, "eval_rewards/chosen": 0.0,
        "eval_rewards/rejected": 0.0, "eval_rewards/accuracies": 0.0, "eval_rewards/margins": 0.0,
        "eval_logps/chosen": 0.0, "eval_logps/rejected": 0.0, "eval_seconds": 0.0}"#;

    #[test]
    fn training_ends_when_patience_is_over() {
        let rule = EarlyStopping { metric: HeldOutMetric::Loss, patience: 2, threshold: 0.0 };
        assert_eq!(ends(rule, &[0.7, 0.6, 0.65, 0.5, 0.5, 0.6]), Some(5), "equal is no improvement");
        assert_eq!(ends(rule, &[0.7, 0.6, 0.65, 0.5, 0.55, 0.4]), None);
        let wide = EarlyStopping { threshold: 0.15, ..rule };
        assert_eq!(ends(wide, &[0.7, 0.6, 0.56, 0.3]), Some(2));
        assert_eq!(ends(wide, &[0.7, 0.6, 0.5, 0.3]), None, "differences add up to an improvement");
        let accuracy = EarlyStopping { metric: HeldOutMetric::Accuracy, patience: 1, threshold: 0.0 };
        assert_eq!(ends(accuracy, &[0.5, 0.6, 0.55]), Some(2));
        assert_eq!(ends(accuracy, &[0.5, f64::NAN]), Some(1));
    }
}
