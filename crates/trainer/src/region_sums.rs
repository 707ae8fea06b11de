//! Gradients that are summed over all ranks one region at a time (`ZeRO` stages 2 and 3).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use distributed::{Layout, Pass, PendingSum, ProcessGroup, Region};
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::gathered::GatheredLayers;
use crate::span::{Regions, Span};

/// This rank's shard of the gradient, and buffers for the regions that the backward pass is at.
///
/// A region has a buffer from its first gradient until it is complete. Its sum over all ranks is then added to the shards,
/// while the region below is computed. With several micro-batches, each is summed on its own.
#[derive(Debug)]
pub(crate) struct RegionSums {
    layout: Layout,
    regions: Regions,
    group: ProcessGroup,
    /// Gathers the layers for the backward pass, if no rank holds all of them.
    source: Option<Arc<GatheredLayers>>,
    /// fp32 `[layout.length()]`.
    part: Tensor,
    buffers: RefCell<Buffers>,
}

#[derive(Debug, Default)]
struct Buffers {
    /// The gradients of regions, fp32 with padding.
    open: BTreeMap<usize, Tensor>,
    sent: Option<(usize, PendingSum)>,
}

impl RegionSums {
    pub(crate) fn new(
        layout: Layout,
        regions: Regions,
        group: ProcessGroup,
        source: Option<Arc<GatheredLayers>>,
        device: Device,
    ) -> Result<Self, TrainError> {
        let part = torch_ext::untouched_zeros(layout.length(), device)?;
        Ok(Self { layout, regions, group, source, part, buffers: RefCell::default() })
    }

    pub(crate) fn part(&self) -> &Tensor {
        &self.part
    }

    /// The lengths of the shards of all regions.
    pub(crate) fn lengths(&self) -> Vec<i64> {
        self.layout.regions().iter().map(|region| region.shard.length()).collect()
    }

    pub(crate) fn source(&self) -> Option<&GatheredLayers> {
        self.source.as_deref()
    }

    /// Returns the gradient of a parameter, in its shape.
    pub(crate) fn sum_of(&self, span: &Span) -> Result<Tensor, TrainError> {
        let at = self.layout.region_of(span.offset);
        let Region { start, .. } = self.layout.regions()[at];
        let mut buffers = self.buffers.borrow_mut();
        let buffer = match buffers.open.remove(&at) {
            Some(buffer) => buffer,
            None => self.zeros(at)?,
        };
        let sum = Span { offset: span.offset - start, ..span.clone() }.view(&buffer);
        buffers.open.insert(at, buffer);
        Ok(sum)
    }

    fn zeros(&self, at: usize) -> Result<Tensor, TrainError> {
        let padded = self.layout.regions()[at].shard.padded();
        Tensor::f_zeros([padded], (Kind::Float, self.part.device()))
            .map_err(|source| distributed::DistributedError::Copy { source }.into())
    }

    /// Announces a backward pass, in which all ranks take part.
    pub(crate) fn begin_backward(&self) -> Result<(), TrainError> {
        self.group.agree_on_pass(Some(Pass::Backward))?;
        self.source().map(GatheredLayers::start_backward);
        Ok(())
    }

    /// Sums the region after the layers, if there is one.
    pub(crate) fn close_last(&self) -> Result<(), TrainError> {
        match self.regions.layers.as_slice() {
            [_, .., None] => self.close(self.regions.layers.len() - 1),
            _ => Ok(()),
        }
    }

    /// Sums the region of a layer, if it is trained.
    pub(crate) fn close_layer(&self, layer: usize) -> Result<(), TrainError> {
        match self.regions.layers.iter().position(|found| *found == Some(layer)) {
            Some(region) => self.close(region),
            None => Ok(()),
        }
    }

    /// Sums the region before the layers, if there is one.
    pub(crate) fn close_first(&self) -> Result<(), TrainError> {
        match self.regions.layers.first() {
            Some(None) => self.close(0),
            _ => Ok(()),
        }
    }

    /// Sums all regions, in the order of a layerwise backward pass.
    pub(crate) fn close_all(&self) -> Result<(), TrainError> {
        (0..self.regions.layers.len()).rev().try_for_each(|region| self.close(region))
    }

    /// Starts the sum of a complete region over all ranks; a region without gradients contributes zeros.
    fn close(&self, at: usize) -> Result<(), TrainError> {
        self.receive()?;
        let open = self.buffers.borrow_mut().open.remove(&at);
        let buffer = open.map_or_else(|| self.zeros(at), Ok)?;
        let sum = self.group.begin_sum(self.layout.regions()[at].shard, &buffer)?;
        self.buffers.borrow_mut().sent = Some((at, sum));
        Ok(())
    }

    /// Waits for the sum that is on its way, if any.
    fn receive(&self) -> Result<(), TrainError> {
        let Some((at, sum)) = self.buffers.borrow_mut().sent.take() else { return Ok(()) };
        let Region { in_shard, shard, .. } = self.layout.regions()[at];
        Ok(self.group.add_sum(sum, &self.part.narrow(0, in_shard, shard.length()))?)
    }

    /// Takes part in the passes of other ranks until none has more work; then the shard has all gradients.
    pub(crate) fn finish_passes(&self) -> Result<(), TrainError> {
        while let Some(pass) = self.group.agree_on_pass(None)? {
            match (pass, self.source()) {
                (Pass::Forward, None) => return Err(distributed::DistributedError::PassesDiffer.into()),
                (Pass::Forward, Some(source)) => source.accompany_forward()?,
                (Pass::Backward, source) => self.accompany_backward(source)?,
            }
        }
        self.receive()
    }

    fn accompany_backward(&self, source: Option<&GatheredLayers>) -> Result<(), TrainError> {
        source.map(GatheredLayers::start_backward);
        self.close_last()?;
        for layer in self.regions.layers.iter().rev().flatten() {
            source.map_or(Ok(()), |source| source.gather(*layer))?;
            self.close_layer(*layer)?;
        }
        self.close_first()
    }
}
