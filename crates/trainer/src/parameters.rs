//! Master weights in one flat fp32 buffer, and the policy that computes with them.

use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

use distributed::{Exchange, Layout, ProcessGroup, Region, Shard, Sharding};
use policy_model::{Lora, ModelConfig, Policy};
use seeds::Seeds;
use tch::{Device, Kind, Tensor};

use crate::adapter_dropout::StepDropout;
use crate::error::TrainError;
use crate::gathered::{GatheredLayers, ShardedModel};
use crate::gradients::GradientBuffer;
use crate::optimizer::AdamW;
use crate::region_sums::RegionSums;
use crate::span::{Regions, Span};

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

    /// Returns the dropout of a step, of which `seeds` are the run's; `None` without dropout.
    pub(crate) fn dropout(&self, seeds: &Seeds, step: u64) -> Option<StepDropout> {
        match self {
            Self::Adapters(lora) if lora.dropout > 0.0 => Some(StepDropout::new(seeds, step)),
            _ => None,
        }
    }
}

/// The weights under training.
///
/// Updates apply to `master`, fp32 in one dimension. The policy computes with leaves that require gradients. They are
/// views of `master` if it computes in fp32 and this process holds all of `master`, otherwise views of a second flat
/// buffer. Layers that the ranks share are gathered from `master` instead. At a learning rate of 5e-7 a bfloat16 weight would not change: the step is below half a unit in its last
/// place.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// The weights that this rank updates.
    pub(crate) master: Tensor,
    pub(crate) layout: Layout,
    pub(crate) policy: Policy,
    /// The positions of the leaves in their flat buffer.
    spans: Vec<Span>,
    trained: Trained,
    /// The flat buffer behind the leaves, if they are not views of `master`.
    compute: Option<Tensor>,
    /// The regions in `compute`, and the position of each.
    whole: Vec<(Region, i64)>,
    /// The source of the layers, if the ranks share them.
    source: Option<Arc<GatheredLayers>>,
}

/// The ranks among which the state is divided.
#[derive(Clone, Debug)]
pub(crate) struct Ranks {
    pub(crate) group: ProcessGroup,
    pub(crate) exchange: Exchange,
}

impl Ranks {
    fn layout(&self, spans: &[Span], elements: i64) -> Layout {
        let (rank, bucket) = (self.group.rank(), self.exchange.bucket);
        match self.exchange.sharding {
            Sharding::None => Layout::whole(elements),
            Sharding::Optimizer => Layout::single(Shard::new(rank, elements, bucket)),
            Sharding::Gradients | Sharding::Parameters => {
                Layout::of_regions(rank, &Regions::of(spans).lengths, bucket)
            }
        }
    }
}

impl Parameters {
    /// Takes the `trained` weights of `policy`, which then computes in `kind`, and allocates their gradient. Adapters start from those
    /// of `policy`, or are drawn from `seeds`. With `ranks`, this rank updates its shard of the weights.
    ///
    /// Weights below adapters are shared with `policy` if they have this kind. An owned policy is dropped once its weights are
    /// copied, before memory for training is allocated.
    pub(crate) fn new(
        given: impl Borrow<Policy>,
        trained: Trained,
        kind: Kind,
        seeds: &Seeds,
        ranks: Option<&Ranks>,
    ) -> Result<(Self, GradientBuffer), TrainError> {
        if let Some(ranks) = ranks.filter(|ranks| ranks.exchange.sharding == Sharding::Parameters) {
            return Self::gathered(given, &trained, kind, ranks);
        }
        let _guard = tch::no_grad_guard();
        let policy = given.borrow();
        let fresh = match &trained {
            Trained::All => None,
            Trained::Adapters(lora) => Some(match policy.adapters() {
                Some(given) => {
                    given.parameters().iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect()
                }
                None => policy.initial_adapters(lora, seeds)?,
            }),
        };
        let weights = fresh.as_deref().unwrap_or(policy.parameters());
        let mut spans = Span::of_all(weights);
        let flat_spans = spans.clone();
        let device = policy.device();
        let elements = spans.last().map_or(0, |last| last.offset + last.length());
        let layout = ranks.map_or_else(|| Layout::whole(elements), |ranks| ranks.layout(&spans, elements));
        spans.iter_mut().for_each(|span| span.offset = layout.padded_offset(span.offset));
        let master = torch_ext::untouched_zeros(layout.length(), device)?;
        for (span, (_, tensor)) in flat_spans.iter().zip(weights) {
            let flat = tensor.detach().reshape(-1);
            for run in layout.runs(span.offset, span.length()) {
                let part = flat.narrow(0, run.in_flat - span.offset, run.length);
                master.narrow(0, run.in_shard, run.length).copy_(&part);
            }
        }
        let compute = match layout.is_whole() {
            true if kind == Kind::Float => None,
            true => Some(master.to_kind(kind)),
            false => Some(Tensor::zeros([layout.padded()], (kind, device))),
        };
        if let Some(compute) = compute.as_ref().filter(|_| !layout.is_whole()) {
            for (span, (_, tensor)) in spans.iter().zip(weights) {
                span.view(compute).copy_(tensor);
            }
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
        let gradients = match ranks.filter(|ranks| ranks.exchange.sharding == Sharding::Gradients) {
            None => GradientBuffer::new(flat_spans, leaves, &layout, device)?,
            Some(ranks) => {
                let (regions, group) = (Regions::of(&flat_spans), ranks.group.clone());
                let sums = RegionSums::new(layout.clone(), regions, group, None, device)?;
                GradientBuffer::by_region(flat_spans, leaves.into_iter().map(Some).collect(), sums)
            }
        };
        let whole = layout.regions().iter().map(|region| (*region, region.in_padded)).collect();
        Ok((Self { master, layout, policy, spans, trained, compute, whole, source: None }, gradients))
    }

    /// As [`Parameters::new`], where each rank keeps its shard of the layers only.
    fn gathered(
        given: impl Borrow<Policy>,
        trained: &Trained,
        kind: Kind,
        ranks: &Ranks,
    ) -> Result<(Self, GradientBuffer), TrainError> {
        if *trained != Trained::All {
            return Err(TrainError::AdaptersOverShards);
        }
        let policy = given.borrow();
        let (device, group) = (policy.device(), &ranks.group);
        let zeros = |length| Ok(torch_ext::untouched_zeros(length, device)?);
        let model = ShardedModel::new(policy.config(), (group.rank(), ranks.exchange.bucket), kind, zeros)?;
        policy.for_each_parameter(|name, weight| model.store(name, weight))?;
        policy.finish_passes()?;
        drop(given);
        torch_ext::release_free_memory();
        let source = model.source(group, kind);
        let leaf = |span: &Span| span.view(&model.outside).detach().set_requires_grad(true);
        let leaves: Vec<Tensor> = tch::no_grad(|| model.outside_spans.iter().map(leaf).collect());
        let find = |span: &Span| model.outside_spans.iter().position(|outside| outside.name == span.name);
        let leaf_of = |span: &Span| find(span).map(|at| leaves[at].shallow_clone());
        let in_memory = |span: &Span| leaf_of(span).expect("a span outside of the layers");
        let policy = model.policy(in_memory, source.clone())?;
        let of_spans = model.spans.iter().map(leaf_of).collect();
        let (layout, regions) = (model.layout.clone(), model.regions.clone());
        let sums = RegionSums::new(layout, regions, group.clone(), Some(source.clone()), device)?;
        let ShardedModel { spans, layout, shard, outside, outside_spans, outside_regions, .. } = model;
        let parameters = Self {
            master: shard,
            layout,
            policy,
            spans: outside_spans,
            trained: Trained::All,
            compute: Some(outside),
            whole: outside_regions,
            source: Some(source),
        };
        Ok((parameters, GradientBuffer::by_region(spans, of_spans, sums)))
    }

    pub(crate) fn device(&self) -> Device {
        self.master.device()
    }

    /// Returns the trained weights that compute, in one dimension; without layers that the ranks share.
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
        let Some(compute) = self.compute.as_ref().filter(|_| !self.layout.is_whole()) else {
            return optimizer.update(&self.master, gradient, self.compute.as_ref(), learning_rate, clip);
        };
        let step = optimizer.begin(learning_rate, clip);
        if self.source.is_some() {
            step.apply(0..self.layout.length(), &self.master, gradient, None)?;
            return self.refresh(group);
        }
        // Padding is not updated, and stays zero.
        let copy = (compute.kind() != Kind::Float)
            .then(|| Tensor::zeros([self.layout.length()], (compute.kind(), compute.device())));
        let updated = copy.as_ref().unwrap_or(&self.master);
        self.gather_updated(group, compute, updated, |elements| {
            step.apply(elements, &self.master, gradient, copy.as_ref())
        })
    }

    /// Gathers `part`, the shard of each rank, into `whole`, which has the regions of `compute`. `update` writes a range of
    /// elements of `part` before it is sent.
    fn gather_updated(
        &self,
        group: &ProcessGroup,
        whole: &Tensor,
        part: &Tensor,
        mut update: impl FnMut(Range<i64>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        for (Region { in_shard, shard, .. }, at) in &self.whole {
            let whole = whole.narrow(0, *at, shard.padded());
            let part = part.narrow(0, *in_shard, shard.length());
            group.all_gather_updated(*shard, &whole, &part, |elements| {
                update(elements.start + in_shard..elements.end + in_shard)
            })?;
        }
        Ok(())
    }

    /// Copies `master` to the weights that compute, on this rank and on the others.
    pub(crate) fn refresh(&mut self, group: &ProcessGroup) -> Result<(), TrainError> {
        let Some(compute) = self.compute.as_mut() else { return Ok(()) };
        if self.layout.is_whole() {
            compute.copy_(&self.master);
            return Ok(());
        }
        for (Region { in_shard, shard, .. }, at) in &self.whole {
            let part = self.master.narrow(0, *in_shard, shard.length()).to_kind(compute.kind());
            group.all_gather_updated(*shard, &compute.narrow(0, *at, shard.padded()), &part, |_| {
                Ok::<_, TrainError>(())
            })?;
        }
        Ok(())
    }

    /// Returns a policy for saving, without gradients. Its trained weights are fp32, or have the kind that computes if no rank
    /// holds all of them. All ranks call it.
    pub(crate) fn master_policy(&self, group: &ProcessGroup) -> Result<Policy, TrainError> {
        let _guard = tch::no_grad_guard();
        let weights = match (&self.compute, &self.trained) {
            (Some(compute), Trained::All) if !self.layout.is_whole() => compute.detach(),
            // Adapters are small, and always saved in fp32.
            (Some(_), Trained::Adapters(_)) if !self.layout.is_whole() => {
                let whole = Tensor::zeros([self.layout.padded()], (Kind::Float, self.device()));
                self.gather_updated(group, &whole, &self.master, |_| Ok(()))?;
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
        // Layers that the ranks share would need all ranks for each answer.
        if self.trained != Trained::All || weights.kind() != kind || self.source.is_some() {
            return Ok(None);
        }
        self.policy_of(self.spans.iter().map(|span| span.view(&weights))).map(Some)
    }

    /// Returns the policy with these values of the trained weights, in their order.
    fn policy_of(&self, trained: impl Iterator<Item = Tensor>) -> Result<Policy, TrainError> {
        let names = self.spans.iter().map(|span| span.name.clone());
        let parameters = names.zip(trained).collect();
        if let Some(source) = &self.source {
            let config = self.policy.config().clone();
            return Ok(Policy::with_layer_source(config, parameters, source.clone())?);
        }
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
