//! Diagnostics: warnings about a run's data and metrics.

use std::collections::VecDeque;

use pref_data::{TokenCompletion, TokenPair, TokenizeReport};
use pref_loss::{Beta, KtoLoss};

use crate::metrics::StepMetrics;
use crate::recipe::LossKind;
use crate::unpaired::partners;

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
pub(crate) fn context_length(
    (lengths, name): (impl Iterator<Item = usize>, &str),
    max_position_embeddings: usize,
) -> Option<String> {
    let (mut longer, mut all, mut longest) = (0, 0, 0);
    for length in lengths {
        all += 1;
        longer += usize::from(length > max_position_embeddings);
        longest = longest.max(length);
    }
    (longer > 0).then(|| {
        format!(
            "{longer} of {all} {name} are longer than the model's context of {max_position_embeddings} tokens \
             (max_position_embeddings; the longest has {longest}): the model was not trained at these positions; lower \
             data.max_length"
        )
    })
}

/// The smallest β that is usual for losses of means over tokens.
const LEAST_BETA_OF_MEANS: f64 = 1.0;

/// Returns a warning if a loss of means over tokens has a β that is usual for sums.
pub(crate) fn beta_of_means(kind: LossKind, beta: Beta) -> Option<String> {
    let compares_means = matches!(kind, LossKind::Simpo | LossKind::SigmoidNorm);
    (compares_means && beta.get() < LEAST_BETA_OF_MEANS).then(|| {
        format!(
            "loss.beta = {}: loss.kind = \"{}\" compares means over tokens, and published values are 2 to 10; with a small \
             value the gradient hardly depends on the margin",
            beta.get(),
            kind.name()
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

/// The share of mismatched completions to the same prompt up to which nothing is reported.
const SAME_PROMPT: f64 = 0.1;

/// Returns a warning if many mismatched completions of KTO's baseline answer the prompt that they are put behind.
pub(crate) fn unpaired_baseline(completions: &[TokenCompletion], batch_size: usize) -> Option<String> {
    let partners = partners(completions.len(), batch_size);
    let is_same = |(one, partner): (&TokenCompletion, usize)| one.prompt == completions[partner].prompt;
    let same = completions.iter().zip(partners).filter(|&pair| is_same(pair)).count();
    (same as f64 > SAME_PROMPT * completions.len() as f64).then(|| {
        format!(
            "loss.kind = \"kto\": its baseline is its own in {same} of {} examples: the neighboring completion in the file \
             answers the same prompt, and cancels part of the gradient. Shuffle the file, or use a larger \
             train.batch_size",
            completions.len()
        )
    })
}

/// Returns a warning if the two labels have unequal total weights. The authors of KTO recommend a ratio of desirable to
/// undesirable between 1 and 4/3.
pub(crate) fn balance(completions: &[TokenCompletion], loss: &KtoLoss) -> Option<String> {
    const HIGHEST: f64 = 4.0 / 3.0;
    let desirable = completions.iter().filter(|one| one.is_desirable).count();
    let undesirable = completions.len() - desirable;
    if completions.is_empty() {
        return None;
    }
    if desirable == 0 || undesirable == 0 {
        let which = if desirable == 0 { "undesirable" } else { "desirable" };
        return Some(format!("loss.kind = \"kto\": all {} completions are {which}", completions.len()));
    }
    let [better, worse] = [loss.desirable.get(), loss.undesirable.get()];
    let ratio = better * desirable as f64 / (worse * undesirable as f64);
    // Equal numbers with equal weights are 1; a little more keeps rounding from warning.
    let is_balanced = (0.999..=HIGHEST * 1.001).contains(&ratio);
    (!is_balanced).then(|| {
        let least = worse * undesirable as f64 / desirable as f64;
        format!(
            "loss.kind = \"kto\": {desirable} desirable and {undesirable} undesirable completions have total weights of \
             {ratio:.2} to 1; loss.desirable_weight between {least:.2} and {:.2} gives the recommended 1 to 1.33",
            least * HIGHEST
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
            unpaired: None,
            kl: None,
            beta: None,
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
        assert_eq!(context_length(([5, 6].into_iter(), "pairs"), 6), None);
        let warning = context_length(([5, 6].into_iter(), "pairs"), 5).unwrap();
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

    fn completions(labels: &[bool], prompts: &[u32]) -> Vec<TokenCompletion> {
        let of = |(&is_desirable, &prompt): (&bool, &u32)| TokenCompletion {
            id: String::new(),
            prompt: vec![prompt],
            completion: vec![1],
            removed: Vec::new(),
            is_desirable,
        };
        labels.iter().zip(prompts).map(of).collect()
    }

    #[test]
    fn unpaired_completions_next_to_others_of_their_prompt_are_reported() {
        let neighbors = completions(&[true, false, true, false], &[1, 1, 2, 2]);
        assert!(unpaired_baseline(&neighbors, 4).unwrap().contains("its own in 2 of 4 examples"));
        let apart = completions(&[true, true, false, false], &[1, 2, 1, 2]);
        assert_eq!(unpaired_baseline(&apart, 4), None);
        assert!(unpaired_baseline(&apart[..1], 4).unwrap().contains("in 1 of 1 examples"));
    }

    #[test]
    fn unequal_weights_of_the_labels_are_reported_with_a_range() {
        let weight = |value| pref_loss::Weight::new(value).unwrap();
        let loss = |desirable, undesirable| KtoLoss {
            beta: pref_loss::Beta::DEFAULT,
            desirable: weight(desirable),
            undesirable: weight(undesirable),
        };
        let three_to_one = completions(&[true, true, true, false], &[1, 2, 3, 4]);
        let warning = balance(&three_to_one, &loss(1.0, 1.0)).unwrap();
        assert!(warning.contains("3.00 to 1") && warning.contains("between 0.33 and 0.44"), "{warning}");
        assert_eq!(balance(&three_to_one, &loss(0.4, 1.0)), None);
        assert_eq!(balance(&three_to_one[2..], &loss(1.0, 1.0)), None);
        let all = balance(&three_to_one[..3], &loss(1.0, 1.0)).unwrap();
        assert!(all.ends_with("all 3 completions are desirable"), "{all}");
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
