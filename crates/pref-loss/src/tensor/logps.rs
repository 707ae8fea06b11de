//! Log-probabilities and rewards as tensors, and the checks of their shapes, kinds and devices.

use tch::{Kind, Tensor};

use crate::{Model, PrefLossError, Side};

/// Sequence log-probabilities of a batch of pairs under one model, in nats: each the *sum* over the response's tokens.
///
/// # Shapes
/// Both `[pairs]`, float32 or float64, on one device.
#[derive(Debug)]
pub struct PairLogpTensors {
    /// log π(chosen | prompt).
    pub chosen: Tensor,
    /// log π(rejected | prompt).
    pub rejected: Tensor,
}

/// The implicit rewards `β·(log π − log π_ref)`, without a graph.
#[derive(Debug)]
pub struct RewardTensors {
    /// Of the chosen responses, `[pairs]`.
    pub chosen: Tensor,
    /// Of the rejected responses, `[pairs]`.
    pub rejected: Tensor,
}

impl RewardTensors {
    /// Returns the reward margins, `[pairs]`.
    pub fn margins(&self) -> Tensor {
        &self.chosen - &self.rejected
    }

    /// Returns 1 where the policy agrees with the label and 0 elsewhere, including ties; `[pairs]`, float32.
    pub fn accuracies(&self) -> Tensor {
        self.chosen.gt_tensor(&self.rejected).to_kind(Kind::Float)
    }
}

/// Checks shapes, kinds and devices against the policy's chosen log-probs, and returns the number of pairs.
pub(super) fn check_tensors(
    policy: &PairLogpTensors,
    reference: Option<&PairLogpTensors>,
) -> Result<usize, PrefLossError> {
    let first = &policy.chosen;
    check_tensor(Model::Policy, Side::Chosen, &policy.chosen, first)?;
    check_tensor(Model::Policy, Side::Rejected, &policy.rejected, first)?;
    if let Some(reference) = reference {
        check_tensor(Model::Reference, Side::Chosen, &reference.chosen, first)?;
        check_tensor(Model::Reference, Side::Rejected, &reference.rejected, first)?;
    }
    Ok(first.numel())
}

pub(super) fn check_tensor(
    model: Model,
    side: Side,
    tensor: &Tensor,
    first: &Tensor,
) -> Result<(), PrefLossError> {
    if tensor.dim() != 1 || tensor.size() != first.size() {
        let expected = match (first.dim(), side) {
            (1, _) => format!("{:?}", first.size()),
            (_, Side::Unpaired) => "[responses]".to_owned(),
            _ => "[pairs]".to_owned(),
        };
        return Err(PrefLossError::Shape { model, side, expected, found: tensor.size() });
    }
    let kind = tensor.kind();
    if !matches!(kind, Kind::Float | Kind::Double) || kind != first.kind() {
        let expected = match first.kind() {
            Kind::Float => "Float",
            Kind::Double => "Double",
            _ => "Float or Double",
        };
        return Err(PrefLossError::Kind { model, side, expected, found: format!("{kind:?}") });
    }
    if tensor.device() != first.device() {
        let (expected, found) = (format!("{:?}", first.device()), format!("{:?}", tensor.device()));
        return Err(PrefLossError::Device { model, side, expected, found });
    }
    Ok(())
}
