//! Warnings that help: what a run's numbers say that its user should hear while it is under way.

use std::collections::VecDeque;

use pref_data::TokenizeReport;

use crate::metrics::StepMetrics;

/// Steps whose mean is looked at.
const WINDOW: usize = 20;
/// Chosen responses that are less likely than under the reference by so many nats are worth a word.
const FALL: f64 = 10.0;
/// From this margin on (β times nats) a pair's gradient under a logistic loss is below 1e-4 of what it was.
const SATURATED: f64 = 9.5;
/// The share of texts that may be cut without a word.
const CUT: f64 = 0.05;

/// Looks at steps as they come, and says each thing once.
#[derive(Debug)]
pub(crate) struct Watch {
    beta: f64,
    /// Whether the loss's gradient vanishes as margins grow.
    saturates: bool,
    recent: VecDeque<(f64, f64)>,
    fell: bool,
    saturated: bool,
}

impl Watch {
    pub(crate) fn new(beta: f64, saturates: bool) -> Self {
        Self { beta, saturates, recent: VecDeque::with_capacity(WINDOW), fell: false, saturated: false }
    }

    /// What there is to say after this step.
    pub(crate) fn after(&mut self, metrics: &StepMetrics) -> Option<String> {
        let measured = metrics.preference?;
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((measured.chosen_reward, measured.margin));
        if self.recent.len() < WINDOW {
            return None;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| self.recent.iter().map(of).sum::<f64>() / WINDOW as f64;
        let (chosen, margin) = (mean(|(chosen, _)| *chosen) / self.beta, mean(|(_, margin)| *margin));
        let step = metrics.step;
        if !self.fell && chosen < -FALL {
            self.fell = true;
            return Some(format!(
                "step {step}: chosen responses have become {:.0} nats less likely than under the reference; the margin grows \
                 by pushing both down. A higher loss.beta or a lower train.learning_rate holds the policy closer",
                -chosen
            ));
        }
        let least = self.recent.iter().map(|(_, margin)| *margin).fold(f64::INFINITY, f64::min);
        if self.saturates && !self.saturated && least > SATURATED {
            self.saturated = true;
            return Some(format!(
                "step {step}: margins are saturated (mean {margin:.1}): the loss hardly has a gradient left, and further steps \
                 change little but the distance from the reference. Fewer epochs would do"
            ));
        }
        None
    }
}

/// What there is to say of texts that were cut.
pub(crate) fn truncation(report: &TokenizeReport) -> Option<String> {
    let TokenizeReport { truncated_prompts, truncated_responses, pairs_in, max_length, .. } = report;
    let texts = 3 * (*pairs_in).max(1);
    let share = (truncated_prompts + truncated_responses) as f64 / texts as f64;
    (share > CUT).then(|| {
        format!(
            "{truncated_prompts} prompts and {truncated_responses} responses of {pairs_in} pairs were cut to data.max_length \
             = {max_length}: what is preferred may lie in what is missing"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::PreferenceMetrics;

    fn step(step: u64, chosen_reward: f64, margin: f64) -> StepMetrics {
        StepMetrics {
            step,
            epoch: 0.0,
            loss: 0.5,
            grad_norm: 1.0,
            learning_rate: 1e-6,
            preference: Some(PreferenceMetrics { chosen_reward, margin, ..Default::default() }),
            kl: None,
            tokens: 1,
            step_seconds: 0.0,
        }
    }

    fn heard(watch: &mut Watch, steps: impl Iterator<Item = (f64, f64)>) -> Vec<String> {
        let steps = (1..).zip(steps).map(|(at, (chosen, margin))| step(at, chosen, margin));
        steps.filter_map(|metrics| watch.after(&metrics)).collect()
    }

    #[test]
    fn a_fall_of_the_chosen_responses_is_said_once() {
        let falling = || (0..100).map(|k| (-0.02 * f64::from(k), 0.5));
        let said = heard(&mut Watch::new(0.1, true), falling());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("10 nats less likely"), "{}", said[0]);
        // β = 1: the same rewards are a tenth of the nats.
        assert!(heard(&mut Watch::new(1.0, true), falling()).is_empty());
    }

    #[test]
    fn margins_are_saturated_where_the_loss_has_a_plateau_and_all_of_them_are_on_it() {
        let grown = || (0..60).map(|_| (1.0, 12.0));
        assert!(heard(&mut Watch::new(0.1, true), grown())[0].contains("saturated"));
        assert!(heard(&mut Watch::new(0.1, false), grown()).is_empty(), "IPO's margins have a target");
        let mixed = (0..60).map(|k| (1.0, if k % 15 == 0 { 2.0 } else { 12.0 }));
        assert!(heard(&mut Watch::new(0.1, true), mixed).is_empty());
    }
}
