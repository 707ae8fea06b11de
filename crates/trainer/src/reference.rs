//! Sequence log-probabilities of pairs, and the reference's on disk.

mod cache;
mod completions;
mod passes;
mod source;

use std::borrow::Borrow;
use std::ops::ControlFlow;

use distributed::ProcessGroup;
use policy_model::Policy;
use pref_data::{Dialogue, TokenBatch, TokenPair};
use pref_loss::LdAlpha;

use crate::error::TrainError;
use crate::pairwise::token_weights;
use crate::scoring::{Activations, ForwardPass, Scoring};

pub(crate) use cache::ReferenceModel;
pub(crate) use completions::CompletionPass;
pub(crate) use passes::ReferencePasses;
pub(crate) use source::ReferenceSource;

/// The number of tokens per forward pass of the reference.
const TOKENS_PER_PASS: usize = 8192;

/// Summed log-probabilities of pairs under one model, in nats and in the pairs' order.
///
/// They do not depend on β, loss or data volume, and a flipped label swaps two of them. One pass therefore serves a
/// whole sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceLogps {
    /// Log-probabilities of the chosen responses.
    pub chosen: Vec<f64>,
    /// Log-probabilities of the rejected responses.
    pub rejected: Vec<f64>,
}

impl SequenceLogps {
    /// Scores `pairs` with `reference`, longest first so that the rows of a batch have similar lengths. `progress`
    /// receives the number of scored pairs.
    ///
    /// # Errors
    ///
    /// If a pair has an empty prompt or response, which tokenization excludes.
    pub fn compute(
        reference: &Policy,
        pairs: &[TokenPair],
        scoring: Scoring,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, TrainError> {
        let go_on = |done| {
            progress(done);
            ControlFlow::Continue(())
        };
        Self::compute_together(&ProcessGroup::single(), reference, pairs, scoring, go_on)
    }

    /// Like [`compute`](Self::compute), with the pairs divided among the ranks of `group`. The result is bitwise
    /// independent of their number, since the batches do not depend on it. If `progress` breaks, this rank stops.
    ///
    /// # Errors
    ///
    /// As for [`compute`](Self::compute); [`TrainError::Stopped`]; if another rank fails or does not respond.
    pub fn compute_together(
        group: &ProcessGroup,
        reference: &Policy,
        pairs: &[TokenPair],
        scoring: Scoring,
        progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        Self::compute_weighted(group, reference, pairs, (scoring, None), progress)
    }

    /// Like [`compute_together`](Self::compute_together), length-desensitized if there is an α.
    pub(crate) fn compute_weighted(
        group: &ProcessGroup,
        reference: &Policy,
        pairs: &[TokenPair],
        (scoring, ld_alpha): (Scoring, Option<LdAlpha>),
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let lengths: Vec<usize> = pairs.iter().map(TokenPair::unique_tokens).collect();
        let mut logps = Self { chosen: vec![0.0; pairs.len()], rejected: vec![0.0; pairs.len()] };
        let mut done = 0;
        for (number, indices) in passes_over(&lengths).iter().enumerate() {
            done += indices.len();
            if !group.owns(number) {
                continue;
            }
            let batch: Vec<&TokenPair> = indices.iter().map(|&i| &pairs[i]).collect();
            let batch = TokenBatch::pairs(&batch, scoring.layout, scoring.padding)?;
            let scored = ForwardPass::forward(reference, &batch, scoring.head, Activations::Kept)?;
            let weights = ld_alpha.map(|alpha| token_weights(&batch, alpha));
            let logps_of_pass = scored.weighted_logps(weights.as_deref());
            for (k, &i) in indices.iter().enumerate() {
                logps.chosen[i] = logps_of_pass[k];
                logps.rejected[i] = logps_of_pass[indices.len() + k];
            }
            if progress(done).is_break() {
                return Err(TrainError::Stopped);
            }
        }
        reference.finish_passes()?;
        // Pairs of other ranks are 0 here.
        group.all_reduce_sum(&mut logps.chosen)?;
        group.all_reduce_sum(&mut logps.rejected)?;
        Ok(logps)
    }
}

/// Returns the log-probability of each dialogue's scored tokens, in nats.
pub(crate) fn logps_of_dialogues<D: Borrow<Dialogue>>(
    model: &Policy,
    dialogues: &[D],
    scoring: Scoring,
) -> Result<Vec<f64>, TrainError> {
    let _guard = tch::no_grad_guard();
    let dialogues: Vec<&Dialogue> = dialogues.iter().map(Borrow::borrow).collect();
    let batch = TokenBatch::dialogues(&dialogues, scoring.padding)?;
    Ok(ForwardPass::forward(model, &batch, scoring.head, Activations::Kept)?.sequence_logps())
}

/// Divides sequences of these lengths into forward passes, longest first so that the rows of a pass have similar
/// lengths. Returns the indices of each pass.
pub(crate) fn passes_over(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut passes = Vec::new();
    let mut rest = &order[..];
    while let Some(&longest) = rest.first() {
        let rows = (TOKENS_PER_PASS / lengths[longest].max(1)).clamp(1, rest.len());
        let (pass, others) = rest.split_at(rows);
        passes.push(pass.to_vec());
        rest = others;
    }
    passes
}
