//! KTO's KL pairs: prompts with responses to other prompts, which estimate its baseline.

use policy_model::Policy;
use pref_data::{TokenBatch, TokenPair};
use pref_loss::{KlEstimate, PrefLossError};

use crate::error::TrainError;
use crate::reference::SequenceLogps;
use crate::scoring::{Activations, ForwardPass, Scoring};

/// Each pair's prompt with both responses of another pair, and their reference log-probabilities.
///
/// On responses to unrelated prompts, the log-ratio of policy and reference measures how far the policy has moved as a
/// whole. This is KTO's baseline of a response's own log-ratio ([`pref_loss::KlEstimate`]). TRL shifts the completions
/// of each batch by one. Here the whole set is shifted before shuffling: a pair has the same partner in every epoch,
/// and reference log-probabilities are computed once.
#[derive(Debug)]
pub struct KlPairs {
    pairs: Vec<TokenPair>,
    reference: SequenceLogps,
}

impl KlPairs {
    /// Creates KL pairs from the [`shifted`](Self::shifted) pairs and their reference log-probabilities, in the same
    /// order.
    pub fn new(pairs: Vec<TokenPair>, reference: SequenceLogps) -> Self {
        Self { pairs, reference }
    }

    /// Returns each prompt of `pairs` with the responses of the previous pair, and the first prompt with those of the
    /// last pair. A response is truncated at the end to fit in `max_length` tokens after its new prompt, but keeps at
    /// least one token.
    pub fn shifted(pairs: &[TokenPair], max_length: usize) -> Vec<TokenPair> {
        let last = pairs.last().into_iter();
        let before = last.chain(pairs);
        let shift = |(pair, before): (&TokenPair, &TokenPair)| {
            let room = max_length.saturating_sub(pair.prompt.len()).max(1);
            let within = |response: &[u32]| response[..response.len().min(room)].to_vec();
            TokenPair {
                id: pair.id.clone(),
                prompt: pair.prompt.clone(),
                chosen: within(&before.chosen),
                rejected: within(&before.rejected),
                flipped: false,
            }
        };
        pairs.iter().zip(before).map(shift).collect()
    }

    /// Returns the log-ratios of policy and reference in nats: the mean over a pair's two responses, summed over
    /// `examples`.
    pub(crate) fn log_ratios(
        &self,
        policy: &Policy,
        examples: &[usize],
        scoring: Scoring,
    ) -> Result<f64, TrainError> {
        if examples.is_empty() {
            return Ok(0.0);
        }
        let _guard = tch::no_grad_guard();
        let pairs: Vec<&TokenPair> = examples.iter().map(|&i| &self.pairs[i]).collect();
        let batch = TokenBatch::pairs(&pairs, scoring.layout, scoring.padding)?;
        let scored = ForwardPass::forward(policy, &batch, scoring.head, Activations::Kept)?;
        let logps: f64 = scored.sequence_logps().iter().sum();
        let of_reference = |&i: &usize| self.reference.chosen[i] + self.reference.rejected[i];
        Ok((logps - examples.iter().map(of_reference).sum::<f64>()) / 2.0)
    }

    /// Returns the baseline over all pairs for the policy's log-probabilities `policy`.
    pub(crate) fn baseline(&self, policy: &SequenceLogps) -> Result<KlEstimate, PrefLossError> {
        let both = |logps: &SequenceLogps| [&*logps.chosen, &*logps.rejected].concat();
        KlEstimate::new(&both(policy), &both(&self.reference))
    }

    pub(crate) fn pairs(&self) -> &[TokenPair] {
        &self.pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(id: &str, prompt: &[u32], chosen: &[u32], rejected: &[u32]) -> TokenPair {
        let [prompt, chosen, rejected] = [prompt, chosen, rejected].map(<[u32]>::to_vec);
        TokenPair { id: id.to_owned(), prompt, chosen, rejected, flipped: true }
    }

    #[test]
    fn every_prompt_has_the_truncated_responses_of_the_previous_pair() {
        let pairs = [pair("a", &[1, 2], &[3], &[4, 5]), pair("b", &[6, 7, 8, 9], &[1], &[2, 3, 4])];
        let shifted = KlPairs::shifted(&pairs, 4);
        let parts: Vec<_> = shifted.iter().map(|p| (&*p.prompt, &*p.chosen, &*p.rejected)).collect();
        assert_eq!(parts, [(&[1, 2][..], &[1][..], &[2, 3][..]), (&[6, 7, 8, 9], &[3], &[4])]);
        assert_eq!((shifted[1].id.as_str(), shifted[1].flipped), ("b", false));
        assert!(KlPairs::shifted(&[], 4).is_empty());
    }
}
