//! Log-probabilities of the reference, computed once per pair.

mod cache;

use policy_model::Policy;
use pref_data::{Layout, TokenBatch, TokenPair};
use pref_loss::PairLogpTensors;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::TrainError;
use crate::objective::sequence_logps;

pub(crate) use cache::ReferencePass;

/// Tokens put through the reference at a time.
const TOKENS_PER_PASS: usize = 8192;

/// What the reference says of a set of pairs: summed log-probabilities (nats), in the pairs' order.
///
/// A flipped label swaps two numbers; no β, loss or volume changes any of them, so one pass serves a whole sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReferenceLogps {
    /// Of the chosen responses.
    pub chosen: Vec<f32>,
    /// Of the rejected responses.
    pub rejected: Vec<f32>,
}

impl ReferenceLogps {
    /// Scores `pairs` with `reference`, longest first so that rows of one pass are of like length; `progress` hears
    /// how many pairs are done.
    ///
    /// # Errors
    ///
    /// Where a pair has an empty prompt or response, which tokenising rules out.
    pub fn compute(
        reference: &Policy,
        pairs: &[TokenPair],
        layout: Layout,
        pad_id: u32,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let length = |i: usize| pairs[i].unique_tokens();
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(length(i)));
        let mut logps = Self { chosen: vec![0.0; pairs.len()], rejected: vec![0.0; pairs.len()] };
        let mut done = 0;
        while done < order.len() {
            let rows = (TOKENS_PER_PASS / length(order[done]).max(1)).clamp(1, order.len() - done);
            let indices = &order[done..done + rows];
            let batch =
                TokenBatch::pairs(&indices.iter().map(|&i| &pairs[i]).collect::<Vec<_>>(), layout, pad_id)?;
            let sums = sequence_logps(reference, &batch).to_device(Device::Cpu);
            let mut on_cpu = vec![0f32; batch.sequences];
            sums.copy_data(&mut on_cpu, batch.sequences);
            for (k, &i) in indices.iter().enumerate() {
                logps.chosen[i] = on_cpu[k];
                logps.rejected[i] = on_cpu[rows + k];
            }
            done += rows;
            progress(done);
        }
        Ok(logps)
    }

    /// Of some of the pairs, as tensors of shape `[examples]` on `device`.
    pub fn tensors(&self, examples: &[usize], device: Device) -> PairLogpTensors {
        let gather = |logps: &[f32]| {
            let logps: Vec<f32> = examples.iter().map(|&i| logps[i]).collect();
            Tensor::from_slice(&logps).to_device(device)
        };
        PairLogpTensors { chosen: gather(&self.chosen), rejected: gather(&self.rejected) }
    }
}
