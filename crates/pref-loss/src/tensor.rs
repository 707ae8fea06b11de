//! The same losses on tensors, for autograd.

mod formula;
mod fused;
mod sum;
mod unpaired;

use tch::{Kind, Tensor};

use crate::batch::check_tokens;
use crate::{Beta, LogpReduction, Model, PairTokens, PrefLossError, PreferenceLoss, Side};

pub use fused::FusedLoss;

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
    /// use pref_loss::{Beta, PairLogpTensors, PairTokens, PreferenceLoss};
    /// use tch::{Kind, Tensor};
    ///
    /// let logps = |chosen: [f32; 2], rejected: [f32; 2]| PairLogpTensors {
    ///     chosen: Tensor::from_slice(&chosen).set_requires_grad(true),
    ///     rejected: Tensor::from_slice(&rejected).set_requires_grad(true),
    /// };
    /// let policy = logps([-20.0, -31.0], [-25.0, -30.0]);
    /// let reference = logps([-20.0, -31.0], [-25.0, -30.0]);
    /// let tokens = PairTokens { chosen: &[9, 12], rejected: &[11, 10] };
    /// let loss = PreferenceLoss::Dpo { beta: Beta::new(0.1)? };
    /// loss.forward(&policy, &reference, tokens)?.mean(Kind::Float).backward();
    /// assert_eq!(Vec::<f32>::try_from(policy.chosen.grad())?, [-0.025, -0.025]);
    /// assert!(!reference.chosen.grad().defined());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PrefLossError::Shape`], [`PrefLossError::Kind`] and [`PrefLossError::Device`] if the tensors don't fit,
    /// [`PrefLossError::Length`] and [`PrefLossError::EmptyResponse`] if the counts don't. The log-probabilities' values
    /// are not looked at, so NaN passes through: a look would wait for the device.
    pub fn forward(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        self.forward_to(policy, Some(reference), tokens)
    }

    /// As [`forward`](Self::forward), for a loss that reads no reference: SimPO, ORPO, CPO, the SFT term.
    ///
    /// # Errors
    /// Also [`PrefLossError::MissingReference`] for any other loss.
    pub fn forward_reference_free(
        &self,
        policy: &PairLogpTensors,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        self.forward_to(policy, None, tokens)
    }

    fn forward_to(
        &self,
        policy: &PairLogpTensors,
        reference: Option<&PairLogpTensors>,
        tokens: PairTokens<'_>,
    ) -> Result<Tensor, PrefLossError> {
        let reads = self.reads();
        let pairs = check_tensors(policy, reference)?;
        check_tokens(tokens, pairs)?;
        let [mut a, mut b] = match reference {
            _ if !reads.reference => [policy.chosen.shallow_clone(), policy.rejected.shallow_clone()],
            Some(reference) => {
                [&policy.chosen - reference.chosen.detach(), &policy.rejected - reference.rejected.detach()]
            }
            None => return Err(PrefLossError::MissingReference { loss: self.name() }),
        };
        if reads.reduction == LogpReduction::Mean {
            a = per_token(a, tokens.chosen);
            b = per_token(b, tokens.rejected);
        }
        if let (Self::Aot { .. }, Some(reference)) = (self, reference) {
            a = &policy.chosen - &policy.rejected;
            b = (&reference.chosen - &reference.rejected).detach();
        }
        Ok(formula::loss(self, &a, &b))
    }

    /// The implicit rewards of every pair, from summed log-probabilities whatever the loss.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), but for the counts.
    pub fn reward_tensors(
        &self,
        policy: &PairLogpTensors,
        reference: &PairLogpTensors,
    ) -> Result<RewardTensors, PrefLossError> {
        check_tensors(policy, Some(reference))?;
        let beta = self.beta().map_or(1.0, Beta::get);
        Ok(RewardTensors {
            chosen: (policy.chosen.detach() - reference.chosen.detach()) * beta,
            rejected: (policy.rejected.detach() - reference.rejected.detach()) * beta,
        })
    }
}

/// Divides sums over tokens by the tokens' number.
fn per_token(sums: Tensor, counts: &[u32]) -> Tensor {
    // u32 is no kind of libtorch's, and f64 holds every count exactly.
    let counts: Vec<f64> = counts.iter().copied().map(f64::from).collect();
    let counts = Tensor::from_slice(&counts).to_kind(sums.kind()).to_device(sums.device());
    sums / counts
}

/// Checks shapes, kinds and devices against the policy's chosen log-probs, and returns the number of pairs.
fn check_tensors(
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

fn check_tensor(model: Model, side: Side, tensor: &Tensor, first: &Tensor) -> Result<(), PrefLossError> {
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
