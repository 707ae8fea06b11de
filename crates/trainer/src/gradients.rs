//! The gradient of the trained weights: a flat buffer, the backward pass into it, and its sum over all ranks.

use distributed::{Exchange, GradientBuckets, GradientSink, Layout, ProcessGroup, Region, Shard};
use policy_model::LayerwiseBackward;
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::gathered::GatheredLayers;
use crate::region_sums::RegionSums;
use crate::router_loss::RouterLoss;
use crate::span::Span;

/// The embedding's name in a checkpoint; a head that is tied to it has no name of its own.
const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// The fp32 gradient, and the leaves that it belongs to.
#[derive(Debug)]
pub(crate) struct GradientBuffer {
    storage: Storage,
    spans: Vec<Span>,
    /// The leaf of each span; `None` for layers that are gathered.
    leaves: Vec<Option<Tensor>>,
    /// The indices of the embedding and of the head among the spans, if they are trained.
    embedding: Option<usize>,
    lm_head: Option<usize>,
}

#[derive(Debug)]
enum Storage {
    Whole(WholeGradient),
    ByRegion(RegionSums),
}

/// The gradient of all weights.
#[derive(Debug)]
struct WholeGradient {
    /// The gradient of this rank's share of a batch, in one dimension.
    flat: Tensor,
    /// This rank's shard of the sum over all ranks; `None` if the sum replaces `flat`.
    part: Option<Tensor>,
    shard: Shard,
    /// The part of `flat` for each span, in its shape.
    sums: Vec<Tensor>,
}

/// A gradient that is summed over all ranks.
#[derive(Debug)]
pub(crate) struct ReducedGradient {
    /// This rank's shard of the gradient, fp32 in one dimension.
    pub(crate) shard: Tensor,
    /// The Euclidean norm of the whole gradient.
    pub(crate) norm: f64,
}

impl GradientBuffer {
    /// Allocates the gradient of `leaves`, of which this rank holds the sum of its shard of the only region.
    pub(crate) fn new(
        spans: Vec<Span>,
        leaves: Vec<Tensor>,
        layout: &Layout,
        device: Device,
    ) -> Result<Self, TrainError> {
        let Region { shard, .. } = layout.regions()[0];
        let part =
            (!shard.is_whole()).then(|| torch_ext::untouched_zeros(shard.length(), device)).transpose()?;
        let flat = torch_ext::untouched_zeros(shard.padded(), device)?;
        Ok(Self::with_buffer(flat, part, spans, leaves, shard))
    }

    /// Returns a gradient of which this rank holds its shard of all `sums`.
    pub(crate) fn by_region(spans: Vec<Span>, leaves: Vec<Option<Tensor>>, sums: RegionSums) -> Self {
        Self::with_storage(Storage::ByRegion(sums), spans, leaves)
    }

    fn with_buffer(
        flat: Tensor,
        part: Option<Tensor>,
        spans: Vec<Span>,
        leaves: Vec<Tensor>,
        shard: Shard,
    ) -> Self {
        let sums = spans.iter().map(|span| span.view(&flat)).collect();
        let storage = Storage::Whole(WholeGradient { flat, part, shard, sums });
        Self::with_storage(storage, spans, leaves.into_iter().map(Some).collect())
    }

    fn with_storage(storage: Storage, spans: Vec<Span>, leaves: Vec<Option<Tensor>>) -> Self {
        let index = |name: &str| spans.iter().position(|span| span.name == name);
        let embedding = index(EMBEDDING);
        let lm_head = index(LM_HEAD).or(embedding);
        Self { storage, spans, leaves, embedding, lm_head }
    }

    /// Returns a buffer for the same leaves: the first one (`index` 0) shares the memory of this buffer, others have their
    /// own. `None` for a gradient that is divided among ranks, since only a single process has replicas.
    pub(crate) fn replica(&self, index: usize, leaves: Vec<Tensor>) -> Option<Self> {
        let Storage::Whole(WholeGradient { flat, shard, .. }) = &self.storage else { return None };
        let flat = if index == 0 { flat.shallow_clone() } else { flat.zeros_like() };
        Some(Self::with_buffer(flat, None, self.spans.clone(), leaves, *shard))
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(crate) fn leaves(&self) -> Vec<Tensor> {
        self.leaves.iter().flatten().map(Tensor::shallow_clone).collect()
    }

    /// Returns the sums by region, if the gradient is divided among the ranks.
    pub(crate) fn by_regions(&self) -> Option<&RegionSums> {
        match &self.storage {
            Storage::Whole(_) => None,
            Storage::ByRegion(sums) => Some(sums),
        }
    }

    /// Sets all elements to zero.
    pub(crate) fn zero(&mut self) {
        let _ = self.elements().zero_();
    }

    /// Returns the elements that a step accumulates.
    fn elements(&self) -> Tensor {
        match &self.storage {
            Storage::Whole(whole) => whole.flat.shallow_clone(),
            Storage::ByRegion(sums) => sums.part().shallow_clone(),
        }
    }

    /// Adds all elements of `other`, and sets those to zero.
    pub(crate) fn add_and_clear(&mut self, other: &mut Self) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        torch_ext::accumulate(&mut self.elements(), &other.elements())?;
        other.zero();
        Ok(())
    }

    /// Returns the buckets in which the gradient is summed over all ranks; `None` if its regions are summed.
    pub(crate) fn buckets(&self, exchange: Exchange) -> Option<GradientBuckets> {
        let Storage::Whole(WholeGradient { flat, part, shard, .. }) = &self.storage else { return None };
        Some(GradientBuckets::new(flat, part.as_ref(), *shard, exchange))
    }

    /// Returns the gradient after its sum over all ranks.
    pub(crate) fn reduced(&self, group: &ProcessGroup) -> Result<ReducedGradient, TrainError> {
        let (part, lengths) = match &self.storage {
            Storage::Whole(WholeGradient { flat, part: None, .. }) => {
                let squared = squared_norm(flat, self.spans.iter().map(Span::length))?;
                return Ok(ReducedGradient { shard: flat.shallow_clone(), norm: squared.sqrt() });
            }
            Storage::Whole(WholeGradient { part: Some(part), shard, .. }) => {
                (part, vec![shard.piece; shard.buckets() as usize])
            }
            Storage::ByRegion(sums) => (sums.part(), sums.lengths()),
        };
        let mut squared = [squared_norm(part, lengths.into_iter())?];
        group.all_reduce_sum(&mut squared)?;
        Ok(ReducedGradient { shard: part.shallow_clone(), norm: squared[0].sqrt() })
    }

    /// Returns the gradient of a span, in its shape.
    fn sum_of(&self, at: usize) -> Result<Tensor, TrainError> {
        match &self.storage {
            Storage::Whole(whole) => Ok(whole.sums[at].shallow_clone()),
            Storage::ByRegion(sums) => sums.sum_of(&self.spans[at]),
        }
    }
}

/// Computes the sum of squares of a flat fp32 buffer, in f64 over parts of these lengths.
fn squared_norm(flat: &Tensor, lengths: impl Iterator<Item = i64>) -> Result<f64, TrainError> {
    if let Some(squared) = torch_ext::squared_norm(flat)? {
        return Ok(squared);
    }
    let _guard = tch::no_grad_guard();
    let lengths: Vec<i64> = lengths.collect();
    let norms: Vec<Tensor> = flat.split_with_sizes(lengths, 0).iter().map(Tensor::norm).collect();
    Ok(Tensor::stack(&norms, 0).to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]))
}

/// Accumulates the gradient of a micro-batch.
pub struct Gradients<'a> {
    buffer: &'a GradientBuffer,
    /// Learns which spans are complete; `None` if later micro-batches add to them.
    sink: Option<&'a mut dyn GradientSink>,
}

impl std::fmt::Debug for Gradients<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gradients").field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

impl<'a> Gradients<'a> {
    /// Adds to `buffer`. With `sink`, this is the last micro-batch of the step.
    pub(crate) fn new(buffer: &'a GradientBuffer, sink: Option<&'a mut dyn GradientSink>) -> Self {
        Self { buffer, sink }
    }

    /// Adds the gradient with respect to all trained weights, given the gradient of an output.
    ///
    /// Embeddings are looked up outside of the graph, into the leaf `embedded`: their gradient then has the size of the batch,
    /// not of the vocabulary.
    ///
    /// # Shapes
    ///
    /// `embedded`: `[N, hidden]`. `ids`: i64 `[N]`.
    pub(crate) fn backward(
        &mut self,
        output_and_gradient: [&Tensor; 2],
        embedded: &Tensor,
        ids: &Tensor,
    ) -> Result<(), TrainError> {
        let sums = self.begin_backward()?;
        if sums.is_some_and(|sums| sums.source().is_some()) {
            return Err(TrainError::KeepsSharedLayers);
        }
        let grad_embedded = self.add_leaves(output_and_gradient, embedded, |_| true)?;
        self.add_embedded(&grad_embedded, ids)?;
        let Some(sums) = sums else { return Ok(()) };
        sums.close_all()
    }

    /// Announces a backward pass to the other ranks, if they sum regions.
    fn begin_backward(&self) -> Result<Option<&'a RegionSums>, TrainError> {
        let sums = self.buffer.by_regions();
        sums.map_or(Ok(()), RegionSums::begin_backward)?;
        Ok(sums)
    }

    /// As [`Gradients::backward`] for layerwise backward: the graph of the output ends above the last of `layers`, whose
    /// gradients are computed one layer at a time.
    pub(crate) fn backward_by_layer(
        &mut self,
        output_and_gradient: [&Tensor; 2],
        layers: LayerwiseBackward<'_>,
        router: Option<&RouterLoss>,
        ids: &Tensor,
    ) -> Result<(), TrainError> {
        let sums = self.begin_backward()?;
        if sums.is_some_and(|sums| sums.source().is_some()) && !layers.is_recomputed() {
            return Err(TrainError::KeepsSharedLayers);
        }
        let is_outside = |name: &str| !name.starts_with("model.layers.");
        let grad_output = self.add_leaves(output_and_gradient, layers.output(), is_outside)?;
        sums.map_or(Ok(()), RegionSums::close_last)?;
        let grad_embedded =
            layers.backward::<TrainError>(grad_output, |index, output_and_gradient, input| {
                let prefix = format!("model.layers.{index}.");
                let joined = router.map(|router| router.joined(index..index + 1, output_and_gradient));
                let output_and_gradient =
                    joined.as_ref().map_or(output_and_gradient, |joined| joined.each_ref());
                let grad_input =
                    self.add_leaves(output_and_gradient, input, |name| name.starts_with(&prefix))?;
                sums.map_or(Ok(()), |sums| sums.close_layer(index))?;
                Ok(grad_input)
            })?;
        self.add_embedded(&grad_embedded, ids)?;
        sums.map_or(Ok(()), RegionSums::close_first)
    }

    /// Adds the gradients with respect to the weights that `is_selected` names; returns the gradient with respect to `input`.
    fn add_leaves(
        &mut self,
        [output, gradient]: [&Tensor; 2],
        input: &Tensor,
        is_selected: impl Fn(&str) -> bool,
    ) -> Result<Tensor, TrainError> {
        let GradientBuffer { spans, leaves, embedding, .. } = self.buffer;
        let selected: Vec<usize> = (0..spans.len()).filter(|&at| is_selected(&spans[at].name)).collect();
        let is_gathered = selected.iter().any(|&at| leaves[at].is_none());
        let source = self.buffer.by_regions().and_then(RegionSums::source).filter(|_| is_gathered);
        let gathered = source.map_or_else(Vec::new, GatheredLayers::leaves);
        let in_memory = selected.iter().filter_map(|&at| leaves[at].as_ref());
        let leaves: Vec<&Tensor> = in_memory.chain(&gathered).collect();
        let sums = selected.iter().map(|&at| self.buffer.sum_of(at));
        let mut sums: Vec<Tensor> = sums.collect::<Result<_, _>>()?;
        // A leaf outside of the graph, such as a chunked head, has no gradient here.
        let grad_input = torch_ext::gather_gradients(output, gradient, input, &leaves, &mut sums)?;
        // The embedding is complete only after `add_embedded`.
        selected.into_iter().filter(|at| *embedding != Some(*at)).for_each(|at| self.mark_complete(at));
        Ok(grad_input.expect("every output depends on the input"))
    }

    fn add_embedded(&mut self, grad_embedded: &Tensor, ids: &Tensor) -> Result<(), TrainError> {
        let Some(embedding) = self.buffer.embedding else { return Ok(()) };
        let _guard = tch::no_grad_guard();
        let mut sum = self.buffer.sum_of(embedding)?;
        let _ = sum.index_add_(0, ids, &grad_embedded.to_kind(Kind::Float));
        self.mark_complete(embedding);
        Ok(())
    }

    fn mark_complete(&mut self, at: usize) {
        let span = &self.buffer.spans[at];
        if let Some(sink) = &mut self.sink {
            sink.complete(span.offset, span.length());
        }
    }

    /// Returns the gradient of the LM head's weight, fp32 `[vocab, hidden]`, which shares memory with the buffer; `None` if the
    /// head is not trained.
    pub(crate) fn lm_head(&self) -> Result<Option<Tensor>, TrainError> {
        self.buffer.lm_head.map(|head| self.buffer.sum_of(head)).transpose()
    }
}
