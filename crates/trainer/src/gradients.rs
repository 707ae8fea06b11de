//! The gradient of the trained weights: a flat buffer, the backward pass into it, and its sum over all ranks.

use distributed::{Exchange, GradientBuckets, GradientSink, ProcessGroup, Shard};
use policy_model::LayerwiseBackward;
use tch::{Device, Kind, Tensor};

use crate::error::TrainError;
use crate::span::Span;

/// The embedding's name in a checkpoint; a head that is tied to it has no name of its own.
const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// The flat fp32 gradient, and the leaves that it belongs to.
#[derive(Debug)]
pub(crate) struct GradientBuffer {
    /// The gradient of this rank's share of a batch, in one dimension.
    flat: Tensor,
    spans: Vec<Span>,
    /// This rank's shard of the sum over all ranks; `None` if the sum replaces `flat`.
    part: Option<Tensor>,
    shard: Shard,
    /// The leaf of each span.
    leaves: Vec<Tensor>,
    /// The part of `flat` for each span, in its shape.
    sums: Vec<Tensor>,
    /// The indices of the embedding and of the head among the spans, if they are trained.
    embedding: Option<usize>,
    lm_head: Option<usize>,
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
    /// Allocates the gradient of `leaves`, of which this rank holds the sum of its `shard`.
    pub(crate) fn new(
        spans: Vec<Span>,
        leaves: Vec<Tensor>,
        shard: Shard,
        device: Device,
    ) -> Result<Self, TrainError> {
        let part =
            (!shard.is_whole()).then(|| torch_ext::untouched_zeros(shard.length(), device)).transpose()?;
        let flat = torch_ext::untouched_zeros(shard.padded(), device)?;
        Ok(Self::with_buffer(flat, part, spans, leaves, shard))
    }

    fn with_buffer(
        flat: Tensor,
        part: Option<Tensor>,
        spans: Vec<Span>,
        leaves: Vec<Tensor>,
        shard: Shard,
    ) -> Self {
        let index = |name: &str| spans.iter().position(|span| span.name == name);
        let embedding = index(EMBEDDING);
        let lm_head = index(LM_HEAD).or(embedding);
        let sums = spans.iter().map(|span| span.view(&flat)).collect();
        Self { flat, spans, part, shard, leaves, sums, embedding, lm_head }
    }

    /// Returns a buffer for the same leaves: the first one (`index` 0) shares the memory of this buffer, others have their
    /// own. Only a single process has replicas, so that there is no part.
    pub(crate) fn replica(&self, index: usize, leaves: Vec<Tensor>) -> Self {
        let flat = if index == 0 { self.flat.shallow_clone() } else { self.flat.zeros_like() };
        Self::with_buffer(flat, None, self.spans.clone(), leaves, self.shard)
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(crate) fn leaves(&self) -> &[Tensor] {
        &self.leaves
    }

    /// Sets all elements to zero.
    pub(crate) fn zero(&mut self) {
        let _ = self.flat.zero_();
    }

    /// Adds all elements of `other`, and sets those to zero.
    pub(crate) fn add_and_clear(&mut self, other: &mut Self) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        torch_ext::accumulate(&mut self.flat, &other.flat)?;
        other.zero();
        Ok(())
    }

    /// Returns the buckets in which the gradient is summed over all ranks.
    pub(crate) fn buckets(&self, exchange: Exchange) -> GradientBuckets {
        GradientBuckets::new(&self.flat, self.part.as_ref(), self.shard, exchange)
    }

    /// Returns the gradient after its sum over all ranks.
    pub(crate) fn reduced(&self, group: &ProcessGroup) -> Result<ReducedGradient, TrainError> {
        let Some(part) = &self.part else {
            let squared = squared_norm(&self.flat, self.spans.iter().map(Span::length))?;
            return Ok(ReducedGradient { shard: self.flat.shallow_clone(), norm: squared.sqrt() });
        };
        let pieces = std::iter::repeat_n(self.shard.piece, self.shard.buckets() as usize);
        let mut squared = [squared_norm(part, pieces)?];
        group.all_reduce_sum(&mut squared)?;
        Ok(ReducedGradient { shard: part.shallow_clone(), norm: squared[0].sqrt() })
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
        let grad_embedded = self.add_leaves(output_and_gradient, embedded, |_| true)?;
        self.add_embedded(&grad_embedded, ids);
        Ok(())
    }

    /// As [`Gradients::backward`] for layerwise backward: the graph of the output ends above the last of `layers`, whose
    /// gradients are computed one layer at a time.
    pub(crate) fn backward_by_layer(
        &mut self,
        output_and_gradient: [&Tensor; 2],
        layers: LayerwiseBackward<'_>,
        ids: &Tensor,
    ) -> Result<(), TrainError> {
        let is_outside = |name: &str| !name.starts_with("model.layers.");
        let grad_output = self.add_leaves(output_and_gradient, layers.output(), is_outside)?;
        let grad_embedded =
            layers.backward::<TrainError>(grad_output, |index, output_and_gradient, input| {
                let prefix = format!("model.layers.{index}.");
                self.add_leaves(output_and_gradient, input, |name| name.starts_with(&prefix))
            })?;
        self.add_embedded(&grad_embedded, ids);
        Ok(())
    }

    /// Adds the gradients with respect to the weights that `is_selected` names; returns the gradient with respect to `input`.
    fn add_leaves(
        &mut self,
        [output, gradient]: [&Tensor; 2],
        input: &Tensor,
        is_selected: impl Fn(&str) -> bool,
    ) -> Result<Tensor, TrainError> {
        let GradientBuffer { spans, leaves, sums, embedding, .. } = self.buffer;
        let selected: Vec<usize> = (0..spans.len()).filter(|&at| is_selected(&spans[at].name)).collect();
        let leaves: Vec<&Tensor> = selected.iter().map(|&at| &leaves[at]).collect();
        let mut sums: Vec<Tensor> = selected.iter().map(|&at| sums[at].shallow_clone()).collect();
        // A leaf outside of the graph, such as a chunked head, has no gradient here.
        let grad_input = torch_ext::gather_gradients(output, gradient, input, &leaves, &mut sums)?;
        // The embedding is complete only after `add_embedded`.
        selected.into_iter().filter(|at| *embedding != Some(*at)).for_each(|at| self.mark_complete(at));
        Ok(grad_input.expect("every output depends on the input"))
    }

    fn add_embedded(&mut self, grad_embedded: &Tensor, ids: &Tensor) {
        let Some(embedding) = self.buffer.embedding else { return };
        let _guard = tch::no_grad_guard();
        let mut sum = self.buffer.sums[embedding].shallow_clone();
        let _ = sum.index_add_(0, ids, &grad_embedded.to_kind(Kind::Float));
        self.mark_complete(embedding);
    }

    fn mark_complete(&mut self, at: usize) {
        let span = &self.buffer.spans[at];
        if let Some(sink) = &mut self.sink {
            sink.complete(span.offset, span.length());
        }
    }

    /// Returns the gradient of the LM head's weight, fp32 `[vocab, hidden]`, which shares memory with the buffer; `None` if the
    /// head is not trained.
    pub(crate) fn lm_head(&self) -> Option<Tensor> {
        self.buffer.lm_head.map(|head| self.buffer.sums[head].shallow_clone())
    }
}
