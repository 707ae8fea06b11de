//! The losses of `pref-loss` in candle and in burn.
//!
//! A preference loss is a function of a few numbers: the log-probabilities of whole responses. `pref-loss` returns its value and its
//! slope in each of them. The sum of *slope × log-probability*, with constant slopes, has the gradient of the loss, so that a
//! framework's own backward pass does the rest.

#![forbid(unsafe_code)]

use pref_loss::{LossOutput, PairBatch, PairLogps, PairTokens, PrefLossError, PreferenceLoss};

/// What a loss needs besides the policy's log-probabilities.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a> {
    /// The reference's log-probabilities, in nats a response.
    pub reference: PairLogps<'a, f64>,
    /// The tokens of the responses.
    pub tokens: PairTokens<'a>,
}

/// Returns the mean loss, and the slopes of the mean in the log-probabilities of chosen and rejected responses.
fn mean(
    loss: &PreferenceLoss,
    policy: PairLogps<'_, f64>,
    pairs: Pairs<'_>,
) -> Result<(f64, LossOutput<f64>), PrefLossError> {
    let batch = PairBatch::new(policy, pairs.reference, pairs.tokens)?;
    let mut out = LossOutput::with_capacity(batch.len());
    loss.evaluate(&batch, &mut out)?;
    out.scale_grads(1.0 / batch.len() as f64);
    Ok((out.losses().iter().sum::<f64>() / batch.len() as f64, out))
}

/// candle: `Tensor::backward` on a sum.
pub mod candle {
    use candle_core::{DType, Tensor, backprop::GradStore};

    use super::{PairLogps, Pairs, PreferenceLoss, mean};

    /// Returns the mean loss and the gradients of all variables behind `chosen` and `rejected`, the policy's log-probabilities
    /// `[pairs]`.
    ///
    /// # Errors
    ///
    /// Those of the loss and of candle.
    pub fn backward(
        loss: &PreferenceLoss,
        chosen: &Tensor,
        rejected: &Tensor,
        pairs: Pairs<'_>,
    ) -> Result<(f64, GradStore), Box<dyn std::error::Error>> {
        let values = |logps: &Tensor| logps.to_dtype(DType::F64)?.to_vec1::<f64>();
        let policy = PairLogps { chosen: &values(chosen)?, rejected: &values(rejected)? };
        let (value, out) = mean(loss, policy, pairs)?;
        let times = |logps: &Tensor, slopes: &[f64]| {
            let slopes = Tensor::new(slopes, logps.device())?.to_dtype(logps.dtype())?;
            (logps * slopes)?.sum_all()
        };
        let surrogate = (times(chosen, out.chosen_grads())? + times(rejected, out.rejected_grads())?)?;
        Ok((value, surrogate.backward()?))
    }
}

/// burn: the same sum.
pub mod burn {
    use burn::tensor::{Gradients, Tensor};

    use super::{PairLogps, Pairs, PrefLossError, PreferenceLoss, mean};

    /// Returns the mean loss and the gradients behind `chosen` and `rejected`, the policy's log-probabilities `[pairs]` on a device
    /// with autodiff.
    ///
    /// # Errors
    ///
    /// Those of the loss.
    pub fn backward(
        loss: &PreferenceLoss,
        chosen: &Tensor<1>,
        rejected: &Tensor<1>,
        pairs: Pairs<'_>,
    ) -> Result<(f64, Gradients), PrefLossError> {
        let values = |logps: &Tensor<1>| logps.to_data().iter::<f64>().collect::<Vec<f64>>();
        let policy = PairLogps { chosen: &values(chosen), rejected: &values(rejected) };
        let (value, out) = mean(loss, policy, pairs)?;
        let times = |logps: &Tensor<1>, slopes: &[f64]| {
            let slopes: Vec<f32> = slopes.iter().map(|slope| *slope as f32).collect();
            (logps.clone() * Tensor::<1>::from_floats(slopes.as_slice(), &logps.device())).sum()
        };
        let surrogate = times(chosen, out.chosen_grads()) + times(rejected, out.rejected_grads());
        Ok((value, surrogate.backward()))
    }
}

#[cfg(test)]
mod tests {
    use pref_loss::{Beta, LabelSmoothing};

    use super::*;

    const CHOSEN: [f32; 3] = [-12.5, -9.0, -20.25];
    const REJECTED: [f32; 3] = [-11.0, -14.5, -20.0];
    const PAIRS: Pairs<'_> = Pairs {
        reference: PairLogps { chosen: &[-13.0, -9.5, -19.0], rejected: &[-11.5, -13.0, -21.0] },
        tokens: PairTokens { chosen: &[5, 4, 9], rejected: &[6, 7, 8] },
    };
    /// Absolute; fp32 against f64.
    const TOLERANCE: f64 = 1e-6;

    /// cDPO, which has slopes of both signs.
    fn loss() -> PreferenceLoss {
        PreferenceLoss::Cdpo {
            beta: Beta::new(0.5).unwrap(),
            label_smoothing: LabelSmoothing::new(0.1).unwrap(),
        }
    }

    /// The mean loss by its definition, and its derivatives in the weight of the tests: a factor of all log-probabilities.
    fn expected() -> (f64, f64) {
        let value = |weight: f64| {
            let of_pair = |at: usize| {
                let margin = |policy: [f32; 3], reference: &[f64]| weight * f64::from(policy[at]) - reference[at];
                let h = margin(CHOSEN, PAIRS.reference.chosen) - margin(REJECTED, PAIRS.reference.rejected);
                let log_sigmoid = |x: f64| -(-x).exp().ln_1p();
                -0.9 * log_sigmoid(0.5 * h) - 0.1 * log_sigmoid(-0.5 * h)
            };
            (0..3).map(of_pair).sum::<f64>() / 3.0
        };
        const STEP: f64 = 1e-5;
        (value(1.0), (value(1.0 + STEP) - value(1.0 - STEP)) / (2.0 * STEP))
    }

    #[test]
    fn candle_has_the_gradient_of_the_loss() {
        use candle_core::{Device, Tensor, Var};
        let weight = Var::new(&[1f32], &Device::Cpu).unwrap();
        let logps = |values: [f32; 3]| Tensor::new(&values, &Device::Cpu).unwrap().broadcast_mul(&weight).unwrap();
        let (value, gradients) = candle::backward(&loss(), &logps(CHOSEN), &logps(REJECTED), PAIRS).unwrap();
        let slope = gradients.get(&weight).unwrap().to_vec1::<f32>().unwrap()[0];
        let (expected_value, expected_slope) = expected();
        assert!((value - expected_value).abs() < TOLERANCE, "{value} and {expected_value}");
        assert!((f64::from(slope) - expected_slope).abs() < 10.0 * TOLERANCE, "{slope} and {expected_slope}");
    }

    #[test]
    fn burn_has_the_gradient_of_the_loss() {
        use ::burn::tensor::{Device, Tensor};
        let device = Device::flex().autodiff();
        let weight = Tensor::<1>::from_floats([1.0], &device).require_grad();
        let logps = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device) * weight.clone();
        let (value, gradients) = burn::backward(&loss(), &logps(CHOSEN), &logps(REJECTED), PAIRS).unwrap();
        let slope = weight.grad(&gradients).unwrap().into_data().iter::<f32>().next().unwrap();
        let (expected_value, expected_slope) = expected();
        assert!((value - expected_value).abs() < TOLERANCE, "{value} and {expected_value}");
        assert!((f64::from(slope) - expected_slope).abs() < 10.0 * TOLERANCE, "{slope} and {expected_slope}");
    }
}
