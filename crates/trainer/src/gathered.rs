//! Weights of which each rank holds a shard, and whose layers are gathered while they compute (`ZeRO` stage 3).

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distributed::{DistributedError, Exchange, Layout, Pass, PendingGather, ProcessGroup, Rank, Region};
use policy_model::{LayerSource, ModelConfig, Policy, PolicyError};
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::span::{Regions, Span};

/// A model's weights on one rank: its shard of all of them, and those outside of the layers as a whole.
///
/// Embedding, final norm and head stay in memory: they are needed at both ends of each pass.
#[derive(Debug)]
pub(crate) struct ShardedModel {
    config: ModelConfig,
    pub(crate) spans: Vec<Span>,
    pub(crate) layout: Layout,
    pub(crate) regions: Regions,
    /// `[layout.length()]`.
    pub(crate) shard: Tensor,
    /// The weights outside of the layers, in the kind that computes.
    pub(crate) outside: Tensor,
    /// Their positions in `outside`.
    pub(crate) outside_spans: Vec<Span>,
    /// Their regions, and the position of each in `outside`.
    pub(crate) outside_regions: Vec<(Region, i64)>,
}

impl ShardedModel {
    /// Allocates the weights of a model that computes in `kind`; the rank of `layout` holds `shard`.
    pub(crate) fn new(
        config: &ModelConfig,
        (rank, bucket): (Rank, NonZeroU32),
        kind: Kind,
        shard: impl FnOnce(i64) -> Result<Tensor, TrainError>,
    ) -> Result<Self, TrainError> {
        let spans = Span::of_shapes(config.parameter_shapes());
        let regions = Regions::of(&spans);
        let layout = Layout::of_regions(rank, &regions.lengths, bucket);
        let (mut outside_spans, mut outside_regions, mut end) = (Vec::new(), Vec::new(), 0);
        for (region, layer) in layout.regions().iter().zip(&regions.layers) {
            if layer.is_none() {
                let inside = spans.iter().filter(|span| is_inside(region, span));
                let placed = |span: &Span| Span { offset: end + span.offset - region.start, ..span.clone() };
                outside_spans.extend(inside.map(placed));
                outside_regions.push((*region, end));
                end += region.shard.padded();
            }
        }
        let shard = shard(layout.length())?;
        let outside = Tensor::f_zeros([end], (kind, shard.device())).map_err(failed)?;
        let config = config.clone();
        Ok(Self { config, spans, layout, regions, shard, outside, outside_spans, outside_regions })
    }

    /// Copies the parts of a weight that this rank holds.
    pub(crate) fn store(&self, name: &str, weight: &Tensor) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        let flat = weight.f_detach().and_then(|weight| weight.f_reshape([-1])).map_err(failed)?;
        for span in self.spans.iter().filter(|span| span.name == name) {
            for run in self.layout.runs(span.offset, span.length()) {
                let part = flat.narrow(0, run.in_flat - span.offset, run.length);
                self.shard.narrow(0, run.in_shard, run.length).copy_(&part);
            }
        }
        for span in self.outside_spans.iter().filter(|span| span.name == name) {
            span.view(&self.outside).copy_(weight);
        }
        Ok(())
    }

    /// Returns the source of the layers, which compute in `kind`.
    pub(crate) fn source(&self, group: &ProcessGroup, kind: Kind) -> Arc<GatheredLayers> {
        let layers =
            self.layout.regions().iter().zip(&self.regions.layers).filter(|(_, layer)| layer.is_some());
        let layers = layers.map(|(region, _)| {
            let inside = |span: &&Span| is_inside(region, span);
            let placed = |span: &Span| Span { offset: span.offset - region.start, ..span.clone() };
            GatheredLayer { region: *region, spans: self.spans.iter().filter(inside).map(placed).collect() }
        });
        let state =
            State { shard: self.shard.shallow_clone(), pass: Pass::Forward, current: None, next: None };
        Arc::new(GatheredLayers {
            layers: layers.collect(),
            group: group.clone(),
            kind,
            state: Mutex::new(state),
        })
    }

    /// Returns a policy with these weights outside of its layers.
    pub(crate) fn policy(
        &self,
        outside: impl Fn(&Span) -> Tensor,
        source: Arc<GatheredLayers>,
    ) -> Result<Policy, TrainError> {
        let outside = self.outside_spans.iter().map(|span| (span.name.clone(), outside(span))).collect();
        Ok(Policy::with_layer_source(self.config.clone(), outside, source)?)
    }
}

/// Reads a model folder, of which each rank keeps its shard in `kind`. Layers are gathered while they compute, so all ranks take
/// part in each pass: a rank without work calls [`Policy::finish_passes`].
///
/// # Errors
///
/// If the folder cannot be read.
pub fn load_over_ranks(
    folder: &Path,
    (kind, device): (Kind, Device),
    group: &ProcessGroup,
    exchange: Exchange,
) -> Result<Policy, TrainError> {
    let config = Policy::inspect(folder)?;
    let zeros = |length| Tensor::f_zeros([length], (kind, device)).map_err(failed);
    let model = ShardedModel::new(&config, (group.rank(), exchange.bucket), kind, zeros)?;
    Policy::read_parameters::<TrainError>(folder, kind, Device::Cpu, |name, weight| {
        model.store(&name, &weight)
    })?;
    model.policy(|span| span.view(&model.outside), model.source(group, kind))
}

/// Reads another model like `policy`: as a shard if the ranks share its layers, in NF4 if it is.
pub(crate) fn load_like(
    policy: &Policy,
    folder: &Path,
    kind: Kind,
    group: &ProcessGroup,
) -> Result<Policy, TrainError> {
    match policy.layer_source() {
        Some(_) if policy.is_quantized() => Ok(Policy::load_in_nf4(folder, kind, policy.device())?),
        Some(_) => load_over_ranks(folder, (kind, policy.device()), group, Exchange::default()),
        None => Ok(Policy::load(folder, kind, policy.device())?),
    }
}

fn is_inside(region: &Region, span: &Span) -> bool {
    (region.start..region.start + region.shard.elements).contains(&span.offset)
}

fn failed(source: tch::TchError) -> TrainError {
    DistributedError::Copy { source }.into()
}

/// Gathers the layers of a model, one ahead of the layer that computes.
///
/// All ranks take part in each pass, in the same order: see [`ProcessGroup::agree_on_pass`].
#[derive(Debug)]
pub(crate) struct GatheredLayers {
    layers: Vec<GatheredLayer>,
    group: ProcessGroup,
    kind: Kind,
    state: Mutex<State>,
}

/// The region of a layer, and the positions of its weights there.
#[derive(Debug)]
struct GatheredLayer {
    region: Region,
    spans: Vec<Span>,
}

#[derive(Debug)]
struct State {
    /// This rank's shard of all weights.
    shard: Tensor,
    pass: Pass,
    /// The layer that computes, as leaves.
    current: Option<(usize, Vec<(String, Tensor)>)>,
    next: Option<(usize, PendingGather)>,
}

impl GatheredLayers {
    /// Returns the weights of the layer that computes, as leaves in the order of their spans.
    pub(crate) fn leaves(&self) -> Vec<Tensor> {
        let state = self.state();
        let leaves = state.current.iter().flat_map(|(_, leaves)| leaves);
        leaves.map(|(_, leaf)| leaf.shallow_clone()).collect()
    }

    /// Prepares a forward pass on which all ranks have agreed.
    fn start_forward(&self) {
        let mut state = self.state();
        (state.pass, state.current, state.next) = (Pass::Forward, None, None);
    }

    /// Prepares a backward pass on which all ranks have agreed. The last layer of a forward pass is still in memory.
    pub(crate) fn start_backward(&self) {
        let mut state = self.state();
        let last = self.layers.len().checked_sub(1);
        state.current = state.current.take().filter(|(index, _)| Some(*index) == last);
        (state.pass, state.next) = (Pass::Backward, None);
    }

    /// Takes part in a forward pass of other ranks.
    pub(crate) fn accompany_forward(&self) -> Result<(), PolicyError> {
        self.start_forward();
        (0..self.layers.len()).try_for_each(|index| self.gather(index))
    }

    /// Gathers layer `index`, and starts to gather the next one.
    pub(crate) fn gather(&self, index: usize) -> Result<(), PolicyError> {
        let supplied = |error: DistributedError| PolicyError::LayerSource { index, source: Box::new(error) };
        let mut state = self.state();
        let state = &mut *state;
        if state.current.as_ref().is_none_or(|(current, _)| *current != index) {
            state.current = None;
            let gather = match state.next.take() {
                Some((next, gather)) if next == index => gather,
                _ => self.begin(&state.shard, index).map_err(supplied)?,
            };
            let whole = self.group.end_gather(gather).map_err(supplied)?;
            let leaf = |span: &Span| (span.name.clone(), span.view(&whole).detach().set_requires_grad(true));
            state.current = Some((index, self.layers[index].spans.iter().map(leaf).collect()));
        }
        let next = match state.pass {
            Pass::Forward => Some(index + 1).filter(|next| *next < self.layers.len()),
            Pass::Backward => index.checked_sub(1),
        };
        if let (Some(next), None) = (next, &state.next) {
            state.next = Some((next, self.begin(&state.shard, next).map_err(supplied)?));
        }
        Ok(())
    }

    fn begin(&self, shard: &Tensor, index: usize) -> Result<PendingGather, DistributedError> {
        let Region { in_shard, shard: of_layer, .. } = self.layers[index].region;
        let part = shard.narrow(0, in_shard, of_layer.length());
        let part = part.f_to_kind(self.kind).map_err(|source| DistributedError::Copy { source })?;
        self.group.begin_gather(of_layer, &part)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LayerSource for GatheredLayers {
    fn begin_forward(&self) -> Result<(), PolicyError> {
        agree(&self.group, Some(Pass::Forward))?;
        self.start_forward();
        Ok(())
    }

    fn layer(&self, index: usize) -> Result<Vec<(String, Tensor)>, PolicyError> {
        self.gather(index)?;
        let state = self.state();
        let leaves = state.current.iter().flat_map(|(_, leaves)| leaves);
        Ok(leaves.map(|(name, leaf)| (name.clone(), leaf.shallow_clone())).collect())
    }

    fn finish_passes(&self) -> Result<(), PolicyError> {
        while let Some(pass) = agree(&self.group, None)? {
            match pass {
                Pass::Forward => self.accompany_forward()?,
                Pass::Backward => return Err(supplied(DistributedError::PassesDiffer)),
            }
        }
        self.start_forward();
        Ok(())
    }
}

fn agree(group: &ProcessGroup, own: Option<Pass>) -> Result<Option<Pass>, PolicyError> {
    group.agree_on_pass(own).map_err(supplied)
}

/// Returns an error before the first layer.
fn supplied(error: DistributedError) -> PolicyError {
    PolicyError::LayerSource { index: 0, source: Box::new(error) }
}
