//! Tensors in, tensors out, without a graph: the closed forms where the numbers lie in main memory.

use tch::{Device, Kind, Tensor};

use super::{PairLogpTensors, check_tensors};
use crate::{Float, LossOutput, PairBatch, PairLogps, PairTokens, PrefLossError, PreferenceLoss};

/// Losses and their gradients to the policy's summed log-probabilities, all `[pairs]`, in the inputs' kind and on their
/// device, outside any graph.
///
/// A trainer that computes log-probabilities without autograd (as a chunked head does) sends the gradients into its own
/// backward pass. One with autograd may as well: `(&policy.chosen * &fused.chosen_grads + &policy.rejected *
/// &fused.rejected_grads).sum(kind).backward()` adds the same gradients as the loss itself.
#[derive(Debug)]
pub struct FusedLoss {
    /// The loss of each pair.
    pub losses: Tensor,
    /// dL/d(policy's chosen log-prob), of each pair's own loss.
    pub chosen_grads: Tensor,
    /// dL/d(policy's rejected log-prob), of each pair's own loss.
    pub rejected_grads: Tensor,
}

impl PreferenceLoss {
    /// Losses and gradients in one pass by closed forms: the values of [`forward`](Self::forward) and its backward pass,
    /// at a fraction of the time for the batches that training has.
    ///
    /// `B` numbers a side are little, so tensors of other devices are copied to main memory and the results back.
    /// `reference` may be `None` for a loss that reads none.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and [`PrefLossError::NotFinite`] for a NaN or infinite log-probability.
    pub fn fused(
        &self,
        policy: &PairLogpTensors,
        reference: Option<&PairLogpTensors>,
        tokens: PairTokens<'_>,
    ) -> Result<FusedLoss, PrefLossError> {
        let pairs = check_tensors(policy, reference)?;
        match policy.chosen.kind() {
            Kind::Double => self.fused_in::<f64>(policy, reference, tokens, pairs),
            _ => self.fused_in::<f32>(policy, reference, tokens, pairs),
        }
    }

    fn fused_in<F: Float + tch::kind::Element>(
        &self,
        policy: &PairLogpTensors,
        reference: Option<&PairLogpTensors>,
        tokens: PairTokens<'_>,
        pairs: usize,
    ) -> Result<FusedLoss, PrefLossError> {
        let mut numbers = vec![F::of(0.0); 4 * pairs];
        let (ours, theirs) = numbers.split_at_mut(2 * pairs);
        let ours = copied(policy, ours);
        let theirs = reference.map(|reference| copied(reference, theirs));
        let batch = match theirs {
            Some(theirs) => PairBatch::new(ours, theirs, tokens)?,
            None => PairBatch::reference_free(ours, tokens)?,
        };
        let mut out = LossOutput::with_capacity(pairs);
        self.evaluate(&batch, &mut out)?;
        let device = policy.chosen.device();
        let [losses, chosen_grads, rejected_grads] = [out.losses(), out.chosen_grads(), out.rejected_grads()]
            .map(|values| {
                let tensor = Tensor::from_slice(values);
                if device == Device::Cpu { tensor } else { tensor.to_device(device) }
            });
        Ok(FusedLoss { losses, chosen_grads, rejected_grads })
    }
}

/// The log-probabilities of both sides, copied into `room`.
fn copied<'a, F: Float + tch::kind::Element>(logps: &PairLogpTensors, room: &'a mut [F]) -> PairLogps<'a, F> {
    let pairs = room.len() / 2;
    let (chosen, rejected) = room.split_at_mut(pairs);
    for (tensor, room) in [(&logps.chosen, &mut *chosen), (&logps.rejected, &mut *rejected)] {
        match tensor.device() {
            Device::Cpu if tensor.is_contiguous() => tensor.copy_data(room, pairs),
            _ => tensor.to_device(Device::Cpu).contiguous().copy_data(room, pairs),
        }
    }
    PairLogps { chosen, rejected }
}
