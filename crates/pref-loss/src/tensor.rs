//! The same losses on tensors, for autograd.

use tch::{Kind, Tensor};

use crate::batch::check_tokens;
use crate::loss::ipo_target;
use crate::{LogpReduction, Model, PairTokens, PrefLossError, PreferenceLoss, Side};

/// Sequence log-probabilities of a batch of pairs under one model, in nats: each the *sum* over the response's tokens.
///
/// # Shapes
/// Both `[pairs]`, float32 or float64.
#[derive(Debug)]
pub struct PairLogpTensors {
    /// log π(chosen | prompt).
    pub chosen: Tensor,
    /// log π(rejected | prompt).
    pub rejected: Tensor,
}

/// The implicit rewards β·(log π − log π_ref), outside the graph.
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
    /// use pref_loss::{Beta, PairLogpTensors, PairTokens, PreferenceLoss};
    /// use tch::{Kind, Tensor};
    ///
    /// let policy = PairLogpTensors {
    ///     chosen: Tensor::from_slice(&[-20.0_f32, -31.0]).set_requires_grad(true),
    ///     rejected: Tensor::from_slice(&[-25.0_f32, -30.0]).set_requires_grad(true),
    /// };
    /// let reference = PairLogpTensors {
    ///     chosen: Tensor::from_slice(&[-20.0_f32, -31.0]),
    ///     rejected: Tensor::from_slice(&[-25.0_f32, -30.0]),
    /// };
    /// let tokens = PairTokens { chosen: &[9, 12], rejected: &[11, 10] };
    /// let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
    /// loss.forward(&policy, &reference, tokens)?.mean(Kind::Float).backward();
    /// assert_eq!(Vec::<f32>::try_from(policy.chosen.grad())?, [-0.025, -0.025]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PrefLossError::Shape`], [`PrefLossError::Kind`] and [`PrefLossError::Device`] if the four tensors don't fit,
    /// [`PrefLossError::Length`] and [`PrefLossError::EmptyResponse`] if the token counts don't. Values are not
    /// looked at, so NaN passes through: a look would wait for the device.
    pub fn forward(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        let pairs = check_tensors(policy, reference)?;
        check_tokens(tokens, pairs)?;
        let chosen = &policy.chosen - reference.chosen.detach();
        let rejected = &policy.rejected - reference.rejected.detach();
        Ok(match *self {
            Self::Dpo { beta } => -((chosen - rejected) * beta.get()).log_sigmoid(),
            Self::Cdpo {
                beta,
                label_smoothing,
            } => {
                let x = (chosen - rejected) * beta.get();
                let believed = x.log_sigmoid() * (label_smoothing.get() - 1.0);
                let doubted = x.neg().log_sigmoid() * label_smoothing.get();
                believed - doubted
            }
            Self::Ipo { beta, reduction } => {
                let margin = match reduction {
                    LogpReduction::Sum => chosen - rejected,
                    LogpReduction::Mean => {
                        let per_token = |ratios: Tensor, counts: &[u32]| {
                            let counts: Vec<f64> = counts.iter().copied().map(f64::from).collect();
                            let counts = Tensor::from_slice(&counts).to_device(ratios.device());
                            let kind = ratios.kind();
                            ratios / counts.to_kind(kind)
                        };
                        per_token(chosen, tokens.chosen) - per_token(rejected, tokens.rejected)
                    }
                };
                (margin - ipo_target(beta)).square()
            }
        })
    }

    /// The implicit rewards of every pair, from summed log-probabilities whatever the loss.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), but for the token counts.
    pub fn reward_tensors(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
    ) -> Result<RewardTensors, PrefLossError> {
        check_tensors(policy, reference)?;
        let beta = self.beta().get();
        Ok(RewardTensors {
            chosen: (policy.chosen.detach() - reference.chosen.detach()) * beta,
            rejected: (policy.rejected.detach() - reference.rejected.detach()) * beta,
        })
    }
}

/// Checks shapes, kinds and devices against the policy's chosen log-probs, and returns the number of pairs.
fn check_tensors(policy: &PairLogpTensors, reference: &PairLogpTensors) -> Result<usize, PrefLossError> {
    let first = &policy.chosen;
    let (shape, kind, device) = (first.size(), first.kind(), first.device());
    for (model, side, tensor) in [
        (Model::Policy, Side::Chosen, &policy.chosen),
        (Model::Policy, Side::Rejected, &policy.rejected),
        (Model::Reference, Side::Chosen, &reference.chosen),
        (Model::Reference, Side::Rejected, &reference.rejected),
    ] {
        if tensor.dim() != 1 || tensor.size() != shape {
            let expected = if shape.len() == 1 { shape } else { vec![-1] };
            return Err(PrefLossError::Shape {
                model,
                side,
                expected,
                found: tensor.size(),
            });
        }
        if !matches!(kind, Kind::Float | Kind::Double) || tensor.kind() != kind {
            let expected = match kind {
                Kind::Float | Kind::Double => format!("{kind:?}"),
                _ => "Float or Double".to_owned(),
            };
            return Err(PrefLossError::Kind {
                model,
                side,
                expected,
                found: format!("{:?}", tensor.kind()),
            });
        }
        if tensor.device() != device {
            return Err(PrefLossError::Device {
                model,
                side,
                expected: format!("{device:?}"),
                found: format!("{:?}", tensor.device()),
            });
        }
    }
    Ok(first.size1().map_or(0, |pairs| pairs.unsigned_abs() as usize))
}
