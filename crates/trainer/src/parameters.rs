//! Master weights in one flat fp32 buffer, and the policy that computes with them.

use policy_model::{ModelConfig, Policy};
use tch::{Device, Kind, Tensor};

use crate::TrainError;

/// Where one parameter lies in the flat buffer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
}

impl Span {
    pub(crate) fn length(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Matrices are decayed, norms and biases are not: the groups that transformers' Trainer makes.
    pub(crate) fn is_decayed(&self) -> bool {
        self.shape.len() > 1
    }

    fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.offset, self.length()).view(self.shape.as_slice())
    }
}

/// The weights under training.
///
/// Updates happen on `master`, fp32 in one dimension. The policy computes with leaves that require gradients: views of
/// `master` itself when it computes in fp32, of a second flat buffer otherwise. At a learning rate of 5e-7 a bfloat16
/// weight would not move at all, since the step is below half a unit in its last place.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub(crate) master: Tensor,
    pub(crate) gradient: Tensor,
    pub(crate) spans: Vec<Span>,
    policy: Policy,
    leaves: Vec<Tensor>,
    /// The flat buffer behind the leaves when they are not views of `master`.
    compute: Option<Tensor>,
}

impl Parameters {
    /// Takes over the weights of `policy` and computes in `kind`.
    pub(crate) fn new(policy: &Policy, kind: Kind) -> Result<Self, TrainError> {
        let _guard = tch::no_grad_guard();
        let mut spans = Vec::new();
        let mut offset = 0;
        for (name, tensor) in policy.parameters() {
            let span = Span { name: name.clone(), offset, shape: tensor.size() };
            offset += span.length();
            spans.push(span);
        }
        let options = (Kind::Float, policy.device());
        let master = Tensor::zeros([offset], options);
        for (span, (_, tensor)) in spans.iter().zip(policy.parameters()) {
            span.view(&master).copy_(tensor);
        }
        let compute = (kind != Kind::Float).then(|| master.to_kind(kind));
        let (policy, leaves) = leaves(policy.config(), &spans, compute.as_ref().unwrap_or(&master))?;
        Ok(Self { gradient: Tensor::zeros([offset], options), master, spans, policy, leaves, compute })
    }

    /// The policy that computes with these weights; its parameters require gradients.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn device(&self) -> Device {
        self.master.device()
    }

    /// Adds the gradient of `loss` to the flat gradient.
    pub(crate) fn accumulate(&mut self, loss: &Tensor) -> Result<(), TrainError> {
        let gradients = Tensor::f_run_backward(&[loss], &self.leaves, false, false)
            .map_err(|source| TrainError::Torch { what: "computing gradients", source })?;
        let _guard = tch::no_grad_guard();
        for (span, gradient) in self.spans.iter().zip(&gradients) {
            let _ = span.view(&self.gradient).g_add_(gradient);
        }
        Ok(())
    }

    /// Forgets the gradient.
    pub(crate) fn zero_gradient(&mut self) {
        let _ = self.gradient.zero_();
    }

    /// The Euclidean norm of the whole gradient, summed over parameters in f64.
    pub(crate) fn gradient_norm(&self) -> f64 {
        let _guard = tch::no_grad_guard();
        let norms: Vec<Tensor> =
            self.spans.iter().map(|s| self.gradient.narrow(0, s.offset, s.length()).norm()).collect();
        Tensor::stack(&norms, 0).to_kind(Kind::Double).norm().double_value(&[])
    }

    /// Brings the compute weights up to date after an update of `master`.
    pub(crate) fn refresh(&mut self) {
        if let Some(compute) = &mut self.compute {
            compute.copy_(&self.master);
        }
    }

    /// A policy whose weights are `master`, for saving: fp32, no gradients.
    pub(crate) fn master_policy(&self) -> Result<Policy, TrainError> {
        let parameters = self.spans.iter().map(|s| (s.name.clone(), s.view(&self.master))).collect();
        Ok(Policy::from_parameters(self.policy.config().clone(), parameters)?)
    }
}

fn leaves(config: &ModelConfig, spans: &[Span], flat: &Tensor) -> Result<(Policy, Vec<Tensor>), TrainError> {
    let leaves: Vec<Tensor> = spans.iter().map(|s| s.view(flat).detach().set_requires_grad(true)).collect();
    let named = spans.iter().zip(&leaves).map(|(s, t)| (s.name.clone(), t.shallow_clone())).collect();
    Ok((Policy::from_parameters(config.clone(), named)?, leaves))
}
