//! The same losses on tensors, for autograd.

use tch::{Kind, Tensor};

use crate::loss::ipo_target;
use crate::{Input, LogpReduction, LossError, Model, PreferenceLoss, Side};

/// What one model says of a batch of pairs.
///
/// # Shapes
/// All four `[pairs]` on one device; the log-probabilities float32 or float64, the counts of an integer kind.
#[derive(Debug)]
pub struct PairLogpTensors {
    /// log π(chosen | prompt) in nats: the *sum* over the response's tokens.
    pub chosen: Tensor,
    /// log π(rejected | prompt) in nats: the *sum* over the response's tokens.
    pub rejected: Tensor,
    /// How many tokens each chosen sum runs over, the end-of-sequence token included.
    pub chosen_tokens: Tensor,
    /// How many tokens each rejected sum runs over, the end-of-sequence token included.
    pub rejected_tokens: Tensor,
}

/// The implicit rewards `β·(log π − log π_ref)`, outside the graph.
#[derive(Debug)]
pub struct RewardTensors {
    /// Of the chosen responses, `[pairs]`.
    pub chosen: Tensor,
    /// Of the rejected responses, `[pairs]`.
    pub rejected: Tensor,
}

impl RewardTensors {
    /// The reward margins, `[pairs]`.
    pub fn margins(&self) -> Tensor {
        &self.chosen - &self.rejected
    }

    /// 1 where the policy agrees with the label and 0 elsewhere, ties included; `[pairs]`, float32.
    pub fn accuracies(&self) -> Tensor {
        self.chosen.gt_tensor(&self.rejected).to_kind(Kind::Float)
    }
}

impl PreferenceLoss {
    /// The loss of every pair, `[pairs]`, with a graph to the policy's log-probabilities and none to the reference's.
    ///
    /// Take `.mean(None)` or whatever the step calls for.
    ///
    /// ```
    /// use pref_loss::{Beta, PairLogpTensors, PreferenceLoss};
    /// use tch::{Kind, Tensor};
    ///
    /// let logps = |chosen: [f32; 2], rejected: [f32; 2]| PairLogpTensors {
    ///     chosen: Tensor::from_slice(&chosen).set_requires_grad(true),
    ///     rejected: Tensor::from_slice(&rejected).set_requires_grad(true),
    ///     chosen_tokens: Tensor::from_slice(&[9_i64, 12]),
    ///     rejected_tokens: Tensor::from_slice(&[11_i64, 10]),
    /// };
    /// let policy = logps([-20.0, -31.0], [-25.0, -30.0]);
    /// let reference = logps([-20.0, -31.0], [-25.0, -30.0]);
    /// let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
    /// loss.forward(&policy, &reference)?.mean(Kind::Float).backward();
    /// assert_eq!(Vec::<f32>::try_from(policy.chosen.grad())?, [-0.025, -0.025]);
    /// assert!(!reference.chosen.grad().defined());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LossError::Shape`], [`LossError::Kind`] and [`LossError::Device`] if the tensors don't fit. Values are not
    /// looked at, so NaN and counts that differ between the models pass through: a look would wait for the device.
    pub fn forward(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
    ) -> Result<Tensor, LossError> {
        check_tensors(policy, reference)?;
        let chosen = &policy.chosen - reference.chosen.detach();
        let rejected = &policy.rejected - reference.rejected.detach();
        Ok(match *self {
            Self::Dpo { beta } => -((chosen - rejected) * beta.get()).log_sigmoid(),
            Self::Cdpo { beta, label_smoothing } => {
                let x = (chosen - rejected) * beta.get();
                let believed = x.log_sigmoid() * (label_smoothing.get() - 1.0);
                let doubted = x.neg().log_sigmoid() * label_smoothing.get();
                believed - doubted
            }
            Self::Ipo { beta, reduction } => {
                let margin = match reduction {
                    LogpReduction::Sum => chosen - rejected,
                    LogpReduction::Mean => {
                        chosen / &policy.chosen_tokens - rejected / &policy.rejected_tokens
                    }
                };
                (margin - ipo_target(beta)).square()
            }
        })
    }

    /// The implicit rewards of every pair, from summed log-probabilities whatever the loss.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn reward_tensors(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
    ) -> Result<RewardTensors, LossError> {
        check_tensors(policy, reference)?;
        let beta = self.beta().get();
        Ok(RewardTensors {
            chosen: (policy.chosen.detach() - reference.chosen.detach()) * beta,
            rejected: (policy.rejected.detach() - reference.rejected.detach()) * beta,
        })
    }
}

/// Checks shapes, kinds and devices against the policy's chosen log-probs.
fn check_tensors(policy: &PairLogpTensors, reference: &PairLogpTensors) -> Result<(), LossError> {
    let first = &policy.chosen;
    for (model, logps) in [(Model::Policy, policy), (Model::Reference, reference)] {
        for (side, sums, counts) in [
            (Side::Chosen, &logps.chosen, &logps.chosen_tokens),
            (Side::Rejected, &logps.rejected, &logps.rejected_tokens),
        ] {
            check_tensor(Input::Logps, model, side, sums, first)?;
            check_tensor(Input::Tokens, model, side, counts, first)?;
        }
    }
    Ok(())
}

fn check_tensor(
    input: Input,
    model: Model,
    side: Side,
    tensor: &Tensor,
    first: &Tensor,
) -> Result<(), LossError> {
    if tensor.dim() != 1 || tensor.size() != first.size() {
        let expected = match first.dim() {
            1 => format!("{:?}", first.size()),
            _ => "[pairs]".to_owned(),
        };
        return Err(LossError::Shape { input, model, side, expected, found: tensor.size() });
    }
    let expected = match (input, first.kind()) {
        (Input::Tokens, _) => "Int64 or Int",
        (Input::Logps, Kind::Float) => "Float",
        (Input::Logps, Kind::Double) => "Double",
        (Input::Logps, _) => "Float or Double",
    };
    let kind = tensor.kind();
    let fits = match input {
        Input::Tokens => matches!(kind, Kind::Int64 | Kind::Int),
        Input::Logps => matches!(kind, Kind::Float | Kind::Double) && kind == first.kind(),
    };
    if !fits {
        return Err(LossError::Kind { input, model, side, expected, found: format!("{kind:?}") });
    }
    if tensor.device() != first.device() {
        let (expected, found) = (format!("{:?}", first.device()), format!("{:?}", tensor.device()));
        return Err(LossError::Device { input, model, side, expected, found });
    }
    Ok(())
}
