//! Closed forms from tensors to tensors, without a graph.

use tch::{Device, Kind, Tensor};

use super::logps::{PairLogpTensors, check_tensors};
use crate::{Float, LossOutput, PairBatch, PairLogps, PairTokens, PrefLossError, PreferenceLoss};

/// Losses and their gradients with respect to the policy's summed log-probabilities, all `[pairs]`, in the inputs'
/// kind and on their device, without a graph.
///
/// A trainer without autograd (as with a chunked head) uses the gradients in its own backward pass. With autograd,
/// `(&policy.chosen * &fused.chosen_grads + &policy.rejected * &fused.rejected_grads).sum(kind).backward()` adds the
/// same gradients as the loss itself.
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
    /// Computes losses and gradients in one pass by closed forms. The values equal those of
    /// [`forward`](Self::forward) and its backward pass; for training batches it is several times faster.
    ///
    /// Tensors of other devices are copied to main memory and the results back. `reference` may be `None` for a loss
    /// without a reference.
    ///
    /// ```
    /// use pref_loss::{Beta, PairLogpTensors, PairTokens, PreferenceLoss};
    /// use tch::Tensor;
    ///
    /// let logps = || PairLogpTensors {
    ///     chosen: Tensor::from_slice(&[-20.0_f32]),
    ///     rejected: Tensor::from_slice(&[-25.0_f32]),
    /// };
    /// let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
    /// let tokens = PairTokens { chosen: &[9], rejected: &[11] };
    /// let fused = loss.fused(&logps(), Some(&logps()), tokens)?;
    /// assert_eq!(fused.losses.double_value(&[0]) as f32, std::f32::consts::LN_2);
    /// assert_eq!(fused.chosen_grads.double_value(&[0]) as f32, -0.05);
    /// # Ok::<(), pref_loss::PrefLossError>(())
    /// ```
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

/// Copies the log-probabilities of both sides into `room`.
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
