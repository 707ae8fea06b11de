//! Diagnostics: warnings about a run's data and metrics.

use std::collections::VecDeque;

use pref_data::{TokenPair, TokenizeReport};

use crate::metrics::StepMetrics;

/// The number of steps in a mean.
const WINDOW: usize = 20;
/// The drop of the chosen responses' log-probability, in nats, that is reported.
const FALL: f64 = 10.0;
/// The margin (β times nats) beyond which a logistic loss has less than 1e-4 of its initial gradient.
const SATURATED: f64 = 9.5;
/// The share of truncated texts up to which nothing is reported.
const CUT: f64 = 0.05;

/// Checks the metrics of each step, and reports each finding once.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    beta: f64,
    /// Whether the loss's gradient vanishes as margins grow.
    saturates: bool,
    recent: VecDeque<(f64, f64)>,
    fell: bool,
    saturated: bool,
}

impl Diagnostics {
    pub(crate) fn new(beta: f64, saturates: bool) -> Self {
        Self { beta, saturates, recent: VecDeque::with_capacity(WINDOW), fell: false, saturated: false }
    }

    /// Returns a warning after this step, if there is one.
    pub(crate) fn check(&mut self, metrics: &StepMetrics) -> Option<String> {
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

/// Returns a warning if many texts were truncated.
pub(crate) fn truncation(report: &TokenizeReport) -> Option<String> {
    let TokenizeReport { truncated_prompts, truncated_responses, pairs_in, max_length, .. } = report;
    let texts = 3 * (*pairs_in).max(1);
    let share = (truncated_prompts + truncated_responses) as f64 / texts as f64;
    (share > CUT).then(|| {
        format!(
            "{truncated_prompts} prompts and {truncated_responses} responses of {pairs_in} pairs were truncated to data.max_length \
             = {max_length}: the preferred part may be missing"
        )
    })
}

/// Returns a warning if sequences are longer than the model's context.
pub(crate) fn context_length<'a>(
    pairs: impl Iterator<Item = &'a TokenPair>,
    max_position_embeddings: usize,
) -> Option<String> {
    let length = |pair: &TokenPair| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len());
    let (mut longer, mut all, mut longest) = (0, 0, 0);
    for length in pairs.map(length) {
        all += 1;
        longer += usize::from(length > max_position_embeddings);
        longest = longest.max(length);
    }
    (longer > 0).then(|| {
        format!(
            "{longer} of {all} pairs are longer than the model's context of {max_position_embeddings} tokens \
             (max_position_embeddings; the longest has {longest}): the model was not trained at these positions; lower \
             data.max_length"
        )
    })
}

/// Returns a warning if KTO's KL pairs are made of the responses to the same prompt.
pub(crate) fn kto_baseline(pairs: &[TokenPair]) -> Option<String> {
    let first = pairs.first()?;
    let what = match pairs.len() {
        1 => "there is one pair only".to_owned(),
        count if pairs.iter().all(|pair| pair.prompt == first.prompt) => {
            format!("all {count} pairs have the same prompt")
        }
        _ => return None,
    };
    Some(format!(
        "loss.kind = \"kto\": {what}, so that its baseline is its own: it is measured on responses to the prompt that is \
         trained on, and cancels part of the gradient. Use data with several prompts, or a loss of pairs such as \"dpo\""
    ))
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

    fn warnings(diagnostics: &mut Diagnostics, steps: impl Iterator<Item = (f64, f64)>) -> Vec<String> {
        let steps = (1..).zip(steps).map(|(at, (chosen, margin))| step(at, chosen, margin));
        steps.filter_map(|metrics| diagnostics.check(&metrics)).collect()
    }

    #[test]
    fn a_drop_of_the_chosen_responses_is_reported_once() {
        let falling = || (0..100).map(|k| (-0.02 * f64::from(k), 0.5));
        let said = warnings(&mut Diagnostics::new(0.1, true), falling());
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("10 nats less likely"), "{}", said[0]);
        // With β = 1, the same rewards are a tenth of the nats.
        assert!(warnings(&mut Diagnostics::new(1.0, true), falling()).is_empty());
    }

    fn pair(prompt: &[u32], chosen: usize, rejected: usize) -> TokenPair {
        let prompt = prompt.to_vec();
        let (id, chosen, rejected) = (String::new(), vec![1; chosen], vec![2; rejected]);
        TokenPair { id, prompt, chosen, rejected, flipped: false }
    }

    #[test]
    fn sequences_beyond_the_context_are_counted() {
        let pairs = [pair(&[1, 2], 2, 3), pair(&[1, 2, 3], 2, 3)];
        assert_eq!(context_length(pairs.iter(), 6), None);
        let warning = context_length(pairs.iter(), 5).unwrap();
        assert!(warning.starts_with("1 of 2 pairs") && warning.contains("the longest has 6"), "{warning}");
    }

    #[test]
    fn a_baseline_over_one_prompt_is_reported() {
        assert_eq!(kto_baseline(&[]), None);
        assert_eq!(kto_baseline(&[pair(&[1], 1, 1), pair(&[2], 1, 1)]), None);
        assert!(kto_baseline(&[pair(&[1], 1, 1)]).unwrap().contains("one pair only"));
        let same = [pair(&[1], 1, 1), pair(&[1], 2, 2)];
        assert!(kto_baseline(&same).unwrap().contains("all 2 pairs have the same prompt"));
    }

    #[test]
    fn saturated_margins_are_reported_for_losses_with_a_plateau() {
        let grown = || (0..60).map(|_| (1.0, 12.0));
        assert!(warnings(&mut Diagnostics::new(0.1, true), grown())[0].contains("saturated"));
        assert!(
            warnings(&mut Diagnostics::new(0.1, false), grown()).is_empty(),
            "IPO's margins have a target"
        );
        let mixed = (0..60).map(|k| (1.0, if k % 15 == 0 { 2.0 } else { 12.0 }));
        assert!(warnings(&mut Diagnostics::new(0.1, true), mixed).is_empty());
    }
}
