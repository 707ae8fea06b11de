//! Evaluation on held-out examples.

use std::fmt;
use std::ops::ControlFlow;

use distributed::ProcessGroup;
use policy_model::{Finish, GenerationOptions, GenerationRequest, Policy, Sampling};
use pref_data::{Dialogue, TokenBatch, TokenPair};
use pref_loss::{KlEstimate, LossOutput, PairLogps};
use seeds::Seeds;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::kl_pairs::KlPairs;
use crate::metrics::PreferenceMetrics;
use crate::objective::{Loss, measure, pair_batch};
use crate::reference::{SequenceLogps, logps_of_dialogues, passes_over};
use crate::scoring::{Activations, ForwardPass, Scoring};

/// The number of answers that are generated and scored at a time.
const ANSWERS_A_PASS: usize = 32;

/// Examples that are evaluated and not trained on.
pub trait HeldOutSet {
    /// Evaluates `policy`; each rank of `group` handles a shard of the examples. The caller sets step, epoch and duration.
    ///
    /// # Errors
    ///
    /// If an example does not fit the policy, which tokenization excludes.
    fn measure(&self, policy: &Policy, group: &ProcessGroup) -> Result<HeldOutMetrics, TrainError>;
}

/// Pairs that are evaluated and not trained on.
#[derive(Debug)]
pub struct HeldOut<'a> {
    /// The pairs.
    pub pairs: &'a [TokenPair],
    /// The reference's log-probabilities of the pairs, in their order; `None` for a loss without a reference.
    pub reference: Option<&'a SequenceLogps>,
    /// The training loss. Its pairs have equal weights here, and β-DPO its initial β.
    pub loss: Loss,
    /// The pairs of KTO's baseline, in the order of the pairs; `None` for other losses.
    pub kl_pairs: Option<&'a KlPairs>,
    /// How log-probabilities are computed.
    pub scoring: Scoring,
    /// The policy's own answers; `None` to generate none.
    pub answers: Option<OwnAnswers>,
}

/// The policy's own answers to the prompts of held-out pairs.
#[derive(Debug)]
pub struct OwnAnswers {
    /// The reference, in the kind in which the policy computes.
    pub reference: Policy,
    /// The number of prompts: the first ones that leave room in the policy's context.
    pub prompts: usize,
    /// The maximum length of an answer, in tokens.
    pub max_tokens: usize,
    /// The tokens that end an answer.
    pub stop_tokens: Vec<u32>,
    /// The source of the answers' RNG streams, the same at every evaluation.
    pub seeds: Seeds,
}

/// One line of `eval.jsonl`: means over the held-out examples, under TRL's names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutMetrics {
    /// The number of optimizer steps so far; 0 before the first.
    pub step: u64,
    /// The number of epochs so far.
    pub epoch: f64,
    /// The loss: the mean over pairs, or in supervised training over scored tokens, in nats.
    #[serde(rename = "eval_loss")]
    pub loss: f64,
    /// Means over pairs; `None` in supervised training.
    #[serde(flatten)]
    pub preference: Option<HeldOutPreference>,
    /// KL divergence from the reference, in nats per answer: the mean of log π − log `π_ref` over answers sampled from
    /// π at temperature 1. As an estimate, it may be slightly negative.
    #[serde(rename = "eval_kl", default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Mean length of these answers in tokens, including the end token.
    #[serde(rename = "eval_answer_tokens", default, skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<f64>,
    /// The duration of the evaluation, in seconds.
    pub eval_seconds: f64,
}

/// Means over held-out pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOutPreference {
    /// β · (policy − reference) log-probability of the chosen response (nats).
    #[serde(rename = "eval_rewards/chosen")]
    pub chosen_reward: f64,
    /// β · (policy − reference) log-probability of the rejected response (nats).
    #[serde(rename = "eval_rewards/rejected")]
    pub rejected_reward: f64,
    /// Share of pairs whose chosen reward is strictly greater.
    #[serde(rename = "eval_rewards/accuracies")]
    pub accuracy: f64,
    /// Chosen minus rejected reward (nats).
    #[serde(rename = "eval_rewards/margins")]
    pub margin: f64,
    /// Summed log-probability of the chosen response (nats).
    #[serde(rename = "eval_logps/chosen")]
    pub chosen_logps: f64,
    /// Summed log-probability of the rejected response (nats).
    #[serde(rename = "eval_logps/rejected")]
    pub rejected_logps: f64,
}

impl HeldOutMetrics {
    /// Returns an evaluation that measured the loss alone.
    fn of_loss(loss: f64) -> Self {
        let (preference, kl, answer_tokens) = (None, None, None);
        Self { step: 0, epoch: 0.0, loss, preference, kl, answer_tokens, eval_seconds: 0.0 }
    }

    /// Returns the share of pairs whose chosen reward is strictly greater; `None` without pairs.
    pub fn accuracy(&self) -> Option<f64> {
        self.preference.map(|of_pairs| of_pairs.accuracy)
    }

    /// Returns the mean of chosen minus rejected reward, in nats; `None` without pairs.
    pub fn margin(&self) -> Option<f64> {
        self.preference.map(|of_pairs| of_pairs.margin)
    }

    /// Returns all measurements with their names, for writers of series.
    pub fn series(&self) -> Vec<(&'static str, f64)> {
        let mut series = vec![("eval_loss", self.loss)];
        if let Some(of_pairs) = self.preference {
            series.extend([
                ("eval_rewards/chosen", of_pairs.chosen_reward),
                ("eval_rewards/rejected", of_pairs.rejected_reward),
                ("eval_rewards/accuracies", of_pairs.accuracy),
                ("eval_rewards/margins", of_pairs.margin),
                ("eval_logps/chosen", of_pairs.chosen_logps),
                ("eval_logps/rejected", of_pairs.rejected_logps),
            ]);
        }
        series.extend(self.kl.map(|kl| ("eval_kl", kl)));
        series.extend(self.answer_tokens.map(|tokens| ("eval_answer_tokens", tokens)));
        series
    }
}

impl fmt::Display for HeldOutMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, loss, preference, .. } = self;
        write!(f, "held out, step {step}: loss {loss:.4}")?;
        if let Some(HeldOutPreference { margin, accuracy, .. }) = preference {
            write!(f, ", margin {margin:.3}, accuracy {accuracy:.2}")?;
        }
        match (self.kl, self.answer_tokens) {
            (Some(kl), Some(tokens)) => write!(f, ", KL {kl:.2} nats, answers of {tokens:.0} tokens"),
            _ => Ok(()),
        }
    }
}

impl HeldOutSet for HeldOut<'_> {
    fn measure(&self, policy: &Policy, group: &ProcessGroup) -> Result<HeldOutMetrics, TrainError> {
        let go_on = ControlFlow::Continue(());
        let scoring = (self.scoring, self.loss.pairwise().and_then(|loss| loss.ld_alpha));
        let logps = SequenceLogps::compute_weighted(group, policy, self.pairs, scoring, |_| go_on)?;
        let lengths = |of: fn(&TokenPair) -> &Vec<u32>| -> Vec<u32> {
            self.pairs.iter().map(|pair| of(pair).len() as u32).collect()
        };
        let counts = [lengths(|pair| &pair.chosen), lengths(|pair| &pair.rejected)];
        let reference = self.reference.map(of_pairs);
        let batch = pair_batch(of_pairs(&logps), reference, &counts)?;
        let mut out = LossOutput::default();
        let baseline = match self.kl_pairs {
            Some(kl_pairs) => {
                let pairs = kl_pairs.pairs();
                let logps = SequenceLogps::compute_together(group, policy, pairs, self.scoring, |_| go_on)?;
                kl_pairs.baseline(&logps)?
            }
            None => KlEstimate::ZERO,
        };
        self.loss.evaluate(&batch, baseline, &mut out)?;
        let pairs = self.pairs.len() as f64;
        let mut means = measure(&self.loss, of_pairs(&logps), reference);
        means.fields_mut().into_iter().for_each(|sum| *sum /= pairs);
        let own = match &self.answers {
            Some(answers) => answers.measure(policy, self, group)?,
            None => None,
        };
        let PreferenceMetrics {
            chosen_reward,
            rejected_reward,
            accuracy,
            margin,
            chosen_logps,
            rejected_logps,
        } = means;
        Ok(HeldOutMetrics {
            preference: Some(HeldOutPreference {
                chosen_reward,
                rejected_reward,
                accuracy,
                margin,
                chosen_logps,
                rejected_logps,
            }),
            kl: own.map(|own| own.kl),
            answer_tokens: own.map(|own| own.tokens),
            ..HeldOutMetrics::of_loss(out.losses().iter().sum::<f64>() / pairs)
        })
    }
}

/// Examples of supervised training that are evaluated and not trained on.
#[derive(Debug)]
pub struct HeldOutDialogues<'a> {
    /// The examples.
    pub dialogues: &'a [Dialogue],
    /// How log-probabilities are computed.
    pub scoring: Scoring,
}

impl HeldOutSet for HeldOutDialogues<'_> {
    fn measure(&self, policy: &Policy, group: &ProcessGroup) -> Result<HeldOutMetrics, TrainError> {
        let owned = self.dialogues.iter().enumerate().filter(|(at, _)| group.owns(*at));
        let owned: Vec<&Dialogue> = owned.map(|(_, dialogue)| dialogue).collect();
        let lengths: Vec<usize> = owned.iter().map(|dialogue| dialogue.ids().len()).collect();
        let mut sums = [0.0, 0.0];
        for pass in passes_over(&lengths) {
            let some: Vec<&Dialogue> = pass.iter().map(|&at| owned[at]).collect();
            sums[0] += logps_of_dialogues(policy, &some, self.scoring)?.iter().sum::<f64>();
            let scored = some.iter().flat_map(|dialogue| dialogue.scored()).filter(|&&scored| scored).count();
            sums[1] += scored as f64;
        }
        // Ranks that share layers take part in the passes of others.
        policy.finish_passes()?;
        group.all_reduce_sum(&mut sums)?;
        let [logps, tokens] = sums;
        Ok(HeldOutMetrics::of_loss(-logps / tokens))
    }
}

fn of_pairs(logps: &SequenceLogps) -> PairLogps<'_, f64> {
    PairLogps { chosen: &logps.chosen, rejected: &logps.rejected }
}

/// Means over answers.
#[derive(Clone, Copy)]
struct Own {
    kl: f64,
    tokens: f64,
}

impl OwnAnswers {
    /// `None` if no prompt leaves room for an answer.
    fn measure(
        &self,
        policy: &Policy,
        held_out: &HeldOut<'_>,
        group: &ProcessGroup,
    ) -> Result<Option<Own>, TrainError> {
        let _guard = tch::no_grad_guard();
        let sampling = Sampling {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            max_new_tokens: self.max_tokens,
            stop_tokens: self.stop_tokens.clone(),
        };
        let longest = policy.config().max_position_embeddings.saturating_sub(self.max_tokens);
        let prompts = held_out.pairs.iter().take(self.prompts).map(|pair| &pair.prompt).enumerate();
        let requests: Vec<GenerationRequest> = prompts
            .filter(|(at, prompt)| prompt.len() <= longest && group.owns(*at))
            .map(|(at, prompt)| GenerationRequest {
                prompt: prompt.clone(),
                sampling: sampling.clone(),
                stream: self.seeds.indexed("held-out-answer", at as u64),
            })
            .collect();
        let answers = policy.generate(&requests, &GenerationOptions { max_batch: ANSWERS_A_PASS })?;
        let dialogues: Vec<Dialogue> = requests
            .iter()
            .zip(answers)
            .filter_map(|(request, answer)| {
                let mut tokens = answer.tokens;
                if let Finish::Stop(stop) = answer.finish {
                    tokens.push(stop);
                }
                Dialogue::completion(&request.prompt, &tokens)
            })
            .collect();
        let batches: Vec<TokenBatch> = dialogues
            .chunks(ANSWERS_A_PASS)
            .map(|some| TokenBatch::dialogues(&some.iter().collect::<Vec<_>>(), held_out.scoring.padding))
            .collect::<Result<_, _>>()?;
        // One model after the other: a rank with fewer answers takes part in the passes of others.
        let logps = |of: &Policy| {
            let logps = batches.iter().map(|batch| {
                let scored = ForwardPass::forward(of, batch, held_out.scoring.head, Activations::Kept)?;
                Ok::<f64, TrainError>(scored.sequence_logps().iter().sum())
            });
            let logps: Vec<f64> = logps.collect::<Result<_, _>>()?;
            of.finish_passes()?;
            Ok::<_, TrainError>(logps)
        };
        let (of_policy, of_reference) = (logps(policy)?, logps(&self.reference)?);
        let mut own = Own { kl: 0.0, tokens: 0.0 };
        for ((policy, reference), batch) in of_policy.iter().zip(of_reference).zip(&batches) {
            own.kl += policy - reference;
            own.tokens += batch.scored.len() as f64;
        }
        let mut sums = [own.kl, own.tokens, dialogues.len() as f64];
        group.all_reduce_sum(&mut sums)?;
        let [kl, tokens, count] = sums;
        Ok((count > 0.0).then(|| Own { kl: kl / count, tokens: tokens / count }))
    }
}
