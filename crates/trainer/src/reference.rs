//! Summed log-probabilities of pairs, and the reference's on disk.

mod cache;
mod passes;

use std::ops::ControlFlow;

use distributed::ProcessGroup;
use policy_model::Policy;
use pref_data::{TokenBatch, TokenPair};

use crate::error::TrainError;
use crate::scoring::{Activations, ForwardPass, Scoring};

pub(crate) use cache::ReferenceModel;
pub(crate) use passes::ReferencePasses;

/// Tokens put through the reference at a time.
const TOKENS_PER_PASS: usize = 8192;

/// What the reference says of a set of pairs: summed log-probabilities (nats), in the pairs' order.
///
/// A flipped label swaps two numbers; no β, loss or volume changes any of them, so one pass serves a whole sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceLogps {
    /// Of the chosen responses.
    pub chosen: Vec<f64>,
    /// Of the rejected responses.
    pub rejected: Vec<f64>,
}

impl SequenceLogps {
    /// Scores `pairs` with `reference`, longest first so that rows of one pass are of like length; `progress` hears
    /// how many pairs are done.
    ///
    /// # Errors
    ///
    /// Where a pair has an empty prompt or response, which tokenising rules out.
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

    /// As [`compute`](Self::compute), where each rank of `group` scores its part: the same numbers to the last bit however many
    /// there are, since what goes through the policy together does not depend on that. Where `progress` breaks, this rank stops.
    ///
    /// # Errors
    ///
    /// As [`compute`](Self::compute); [`TrainError::Stopped`]; where another rank fails or does not come.
    pub fn compute_together(
        group: &ProcessGroup,
        reference: &Policy,
        pairs: &[TokenPair],
        scoring: Scoring,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let length = |i: usize| pairs[i].unique_tokens();
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(length(i)));
        let mut logps = Self { chosen: vec![0.0; pairs.len()], rejected: vec![0.0; pairs.len()] };
        let (mut done, mut pass) = (0, 0);
        while done < order.len() {
            let rows = (TOKENS_PER_PASS / length(order[done]).max(1)).clamp(1, order.len() - done);
            let indices = &order[done..done + rows];
            done += rows;
            pass += 1;
            if !group.owns(pass - 1) {
                continue;
            }
            let batch: Vec<&TokenPair> = indices.iter().map(|&i| &pairs[i]).collect();
            let batch = TokenBatch::pairs(&batch, scoring.layout, scoring.padding)?;
            let scored = ForwardPass::forward(reference, &batch, scoring.head, Activations::Kept)?;
            let logps_of_pass = scored.sequence_logps();
            for (k, &i) in indices.iter().enumerate() {
                logps.chosen[i] = logps_of_pass[k];
                logps.rejected[i] = logps_of_pass[rows + k];
            }
            if progress(done).is_break() {
                return Err(TrainError::Stopped);
            }
        }
        // What other ranks scored is 0 here.
        group.all_reduce_sum(&mut logps.chosen)?;
        group.all_reduce_sum(&mut logps.rejected)?;
        Ok(logps)
    }
}
