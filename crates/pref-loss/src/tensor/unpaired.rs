//! KTO on tensors.

use tch::{Kind, Tensor};

use super::logps::check_tensor;
use crate::{KlEstimate, KtoLoss, Model, PrefLossError, Side};

impl KtoLoss {
    /// Computes the loss of every response, `[responses]`, with a graph to the policy's log-probabilities and none to
    /// the reference's or the baseline.
    ///
    /// ```
    /// use pref_loss::{Beta, KlEstimate, KtoLoss, Weight};
    /// use tch::{Kind, Tensor};
    ///
    /// let loss = KtoLoss { beta: Beta::new(0.1)?, desirable: Weight::ONE, undesirable: Weight::ONE };
    /// let policy = Tensor::from_slice(&[-20.0_f32, -31.0]).set_requires_grad(true);
    /// let reference = Tensor::from_slice(&[-20.0_f32, -31.0]);
    /// loss.forward(&policy, &reference, &[true, false], KlEstimate::ZERO)?.sum(Kind::Float).backward();
    /// assert_eq!(Vec::<f32>::try_from(policy.grad())?, [-0.025, 0.025]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Shapes
    /// `policy` and `reference` `[responses]`, float32 or float64, each the *sum* over a response's tokens in nats.
    ///
    /// # Errors
    /// [`PrefLossError::Shape`], [`PrefLossError::Kind`] and [`PrefLossError::Device`] if the tensors don't fit,
    /// [`PrefLossError::Responses`] if `desirable` has another length. NaN propagates.
    pub fn forward(
        &self,
        policy: &Tensor,
        reference: &Tensor,
        desirable: &[bool],
        baseline: KlEstimate,
    ) -> Result<Tensor, PrefLossError> {
        check_unpaired(policy, reference)?;
        if desirable.len() != policy.numel() {
            return Err(PrefLossError::Responses { expected: policy.numel(), found: desirable.len() });
        }
        let column = |of: &dyn Fn(bool) -> f64| {
            let values: Vec<f64> = desirable.iter().map(|&is_desirable| of(is_desirable)).collect();
            Tensor::from_slice(&values).to_kind(policy.kind()).to_device(policy.device())
        };
        let sign = column(&|is_desirable| if is_desirable { -1.0 } else { 1.0 });
        let weight =
            column(&|is_desirable| if is_desirable { self.desirable } else { self.undesirable }.get());
        let reward = (policy - reference.detach() - baseline.nats()) * self.beta.get();
        Ok(weight * (sign * reward).sigmoid())
    }
}

impl KlEstimate {
    /// Computes the estimate from tensors `[responses]`. The mean is in f64 and synchronizes with the device.
    ///
    /// # Errors
    /// As [`KtoLoss::forward`]; [`PrefLossError::Responses`] if there are none; [`PrefLossError::NotFinite`] for a NaN or
    /// infinite log-probability.
    pub fn from_tensors(policy: &Tensor, reference: &Tensor) -> Result<Self, PrefLossError> {
        check_unpaired(policy, reference)?;
        let host = |logps: &Tensor| {
            let logps = logps.detach().to_kind(Kind::Double).to_device(tch::Device::Cpu);
            Vec::<f64>::try_from(logps.contiguous()).expect("a tensor of one dimension converts")
        };
        Self::new(&host(policy), &host(reference))
    }
}

fn check_unpaired(policy: &Tensor, reference: &Tensor) -> Result<(), PrefLossError> {
    check_tensor(Model::Policy, Side::Unpaired, policy, policy)?;
    check_tensor(Model::Reference, Side::Unpaired, reference, policy)
}
