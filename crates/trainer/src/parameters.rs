//! Master weights in one flat fp32 buffer, and the policy that computes with them.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use distributed::{ProcessGroup, Rank, Shard};
use policy_model::{Lora, ModelConfig, Policy};
use seeds::Seeds;
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::gradients::GradientBuffer;
use crate::optimizer::AdamW;
use crate::span::Span;

/// Which weights of a policy are trained.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Trained {
    /// All weights.
    #[default]
    All,
    /// Low-rank adapters over frozen weights.
    Adapters(Lora),
}

impl Trained {
    /// The number of trained parameters of a model with this configuration.
    pub fn parameter_count(&self, config: &ModelConfig) -> u64 {
        match self {
            Self::All => config.parameter_count(),
            Self::Adapters(lora) => lora.parameter_count(config),
        }
    }
}

/// The weights under training.
///
/// Updates apply to `master`, fp32 in one dimension. The policy computes with leaves that require gradients. They are
/// views of `master` if it computes in fp32 and this process holds all of `master`, otherwise views of a second flat
/// buffer. At a learning rate of 5e-7 a bfloat16 weight would not change: the step is below half a unit in its last
/// place.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// The weights of `shard`.
    pub(crate) master: Tensor,
    pub(crate) shard: Shard,
    pub(crate) policy: Policy,
    spans: Vec<Span>,
    trained: Trained,
    /// The flat buffer behind the leaves, if they are not views of `master`.
    compute: Option<Tensor>,
}

impl Parameters {
    /// Takes the `trained` weights of `policy`, which then computes in `kind`, and allocates their gradient. Fresh adapters are
    /// drawn from `seeds`. With `sharded`, this rank updates its shard of the weights, in buckets of this many elements.
    ///
    /// Weights below adapters are shared with `policy` if they have this kind. An owned policy is dropped once its weights are
    /// copied, before memory for training is allocated.
    pub(crate) fn new(
        given: impl Borrow<Policy>,
        trained: Trained,
        kind: Kind,
        seeds: &Seeds,
        sharded: Option<(Rank, NonZeroU32)>,
    ) -> Result<(Self, GradientBuffer), TrainError> {
        let _guard = tch::no_grad_guard();
        let policy = given.borrow();
        let fresh = match &trained {
            Trained::All => None,
            Trained::Adapters(lora) => Some(policy.initial_adapters(lora, seeds)?),
        };
        let weights = fresh.as_deref().unwrap_or(policy.parameters());
        let spans = Span::of_all(weights);
        let device = policy.device();
        let elements = spans.last().map_or(0, |last| last.offset + last.length());
        let shard =
            sharded.map_or(Shard::whole(elements), |(rank, bucket)| Shard::new(rank, elements, bucket));
        let mut master = torch_ext::untouched_zeros(shard.padded(), device)?;
        for (span, (_, tensor)) in spans.iter().zip(weights) {
            span.view(&master).copy_(tensor);
        }
        let compute = (kind != Kind::Float || sharded.is_some()).then(|| master.to_kind(kind));
        if sharded.is_some() {
            let pieces = master.view([shard.buckets(), -1, shard.piece]);
            master = pieces.select(1, shard.rank.index() as i64).reshape(-1).copy();
        }
        let flat = compute.as_ref().unwrap_or(&master);
        let leaf = |span: &Span| span.view(flat).detach().set_requires_grad(true);
        let leaves: Vec<Tensor> = spans.iter().map(leaf).collect();
        let named = spans.iter().zip(&leaves).map(|(s, t)| (s.name.clone(), t.shallow_clone())).collect();
        let policy = match &trained {
            Trained::All => Policy::from_parameters(policy.config().clone(), named)?,
            Trained::Adapters(lora) => policy.to_kind(kind)?.with_adapters(lora.clone(), named)?,
        };
        drop((given, fresh));
        // Dropped weights, such as those of a reference, are still allocated to the process.
        torch_ext::release_free_memory();
        let gradients = GradientBuffer::new(spans.clone(), leaves, shard, device)?;
        Ok((Self { master, shard, policy, spans, trained, compute }, gradients))
    }

    pub(crate) fn device(&self) -> Device {
        self.master.device()
    }

    /// Returns the trained weights that compute, in one dimension.
    pub(crate) fn computing(&self) -> &Tensor {
        self.compute.as_ref().unwrap_or(&self.master)
    }

    /// Updates `master` with this rank's shard of the gradient, multiplied by `clip`, and the weights that compute, here and on
    /// the other ranks.
    pub(crate) fn update(
        &mut self,
        optimizer: &mut AdamW,
        group: &ProcessGroup,
        gradient: &Tensor,
        (learning_rate, clip): (f64, f64),
    ) -> Result<(), TrainError> {
        let Some(compute) = self.compute.as_ref().filter(|_| !self.shard.is_whole()) else {
            return optimizer.update(&self.master, gradient, self.compute.as_ref(), learning_rate, clip);
        };
        let step = optimizer.begin(learning_rate, clip);
        // Padding is not updated, and stays zero.
        let copy = (compute.kind() != Kind::Float)
            .then(|| Tensor::zeros([self.shard.length()], (compute.kind(), compute.device())));
        let updated = copy.as_ref().unwrap_or(&self.master);
        group.all_gather_updated(self.shard, compute, updated, |elements| {
            step.apply(elements, &self.master, gradient, copy.as_ref())
        })
    }

    /// Copies `master` to the weights that compute, on this rank and on the others.
    pub(crate) fn refresh(&mut self, group: &ProcessGroup) -> Result<(), TrainError> {
        let Some(compute) = &mut self.compute else { return Ok(()) };
        if self.shard.is_whole() {
            compute.copy_(&self.master);
            return Ok(());
        }
        group.all_gather_updated(self.shard, compute, &self.master.to_kind(compute.kind()), |_| Ok(()))
    }

    /// Returns a policy for saving, without gradients. Its trained weights are fp32, or have the kind that computes if no rank
    /// holds all of them. All ranks call it.
    pub(crate) fn master_policy(&self, group: &ProcessGroup) -> Result<Policy, TrainError> {
        let _guard = tch::no_grad_guard();
        let weights = match (&self.compute, &self.trained) {
            (Some(compute), Trained::All) if !self.shard.is_whole() => compute.detach(),
            // Adapters are small, and always saved in fp32.
            (Some(_), Trained::Adapters(_)) if !self.shard.is_whole() => {
                let whole = Tensor::zeros([self.shard.padded()], (Kind::Float, self.device()));
                group.all_gather_updated(self.shard, &whole, &self.master, |_| Ok::<_, TrainError>(()))?;
                whole
            }
            _ => self.master.shallow_clone(),
        };
        self.policy_of(self.spans.iter().map(|span| span.view(&weights)))
    }

    /// Returns the policy that computes, without gradients, if it has the weights that a folder saved in `kind` has. Weights
    /// below adapters are not merged, as those of a folder are.
    pub(crate) fn policy_as_saved(&self, kind: Kind) -> Result<Option<Policy>, TrainError> {
        let weights = self.computing().detach();
        if self.trained != Trained::All || weights.kind() != kind {
            return Ok(None);
        }
        self.policy_of(self.spans.iter().map(|span| span.view(&weights))).map(Some)
    }

    /// Returns the policy with these values of the trained weights, in their order.
    fn policy_of(&self, trained: impl Iterator<Item = Tensor>) -> Result<Policy, TrainError> {
        let names = self.spans.iter().map(|span| span.name.clone());
        let parameters = names.zip(trained).collect();
        Ok(match &self.trained {
            Trained::All => Policy::from_parameters(self.policy.config().clone(), parameters)?,
            Trained::Adapters(lora) => self.policy.with_adapters(lora.clone(), parameters)?,
        })
    }

    /// Returns a policy with handles to the same weights, for another thread, and its leaves.
    pub(crate) fn replica(&self, leaves: &[Tensor]) -> Result<(Policy, Vec<Tensor>), TrainError> {
        let leaves: Vec<Tensor> = leaves.iter().map(Tensor::shallow_clone).collect();
        let policy = self.policy_of(leaves.iter().map(Tensor::shallow_clone))?;
        Ok((policy, leaves))
    }
}
