//! A forward pass that is differentiated one layer at a time.

use std::fmt;

use tch::Tensor;

use crate::attention::AttentionBackend;
use crate::decoder::Decoder;
use crate::error::PolicyError;
use crate::layer::Rotations;

/// Activation checkpointing ([Chen et al. 2016](https://arxiv.org/abs/1604.06174)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpointing {
    /// Keeps all activations of each layer for its gradient.
    Off,
    /// Keeps the input `[N, hidden_size]` of each layer, and recomputes the rest in the backward pass. Memory holds the
    /// activations of one layer at a time, for the price of a second forward pass.
    PerLayer,
}

/// A forward pass with one graph per layer, so that a layer's gradients are complete before those of earlier layers begin.
///
/// [`Policy::packed_layerwise`](crate::Policy::packed_layerwise) and
/// [`Policy::padded_layerwise`](crate::Policy::padded_layerwise) create one.
pub struct LayerwiseBackward<'a> {
    decoder: &'a Decoder,
    backend: Box<dyn AttentionBackend>,
    rotations: Rotations,
    selected: Option<Tensor>,
    /// The input of each layer, and its output without checkpointing.
    layers: Vec<(Tensor, Option<Tensor>)>,
    output: Tensor,
    hidden_states: Tensor,
}

impl<'a> LayerwiseBackward<'a> {
    pub(crate) fn new(
        decoder: &'a Decoder,
        embedded: &Tensor,
        positions: &Tensor,
        mut backend: Box<dyn AttentionBackend>,
        selected: Option<&Tensor>,
        checkpointing: Checkpointing,
    ) -> Result<Self, PolicyError> {
        let mut layers = Vec::with_capacity(decoder.layers());
        let rotations = tch::no_grad(|| decoder.rotations(positions, backend.is_decoding()));
        let mut hidden = embedded.detach();
        decoder.begin_forward()?;
        for index in 0..decoder.layers() {
            let mut layer =
                |input: &Tensor| decoder.layer(index, input, &rotations, backend.as_mut(), selected);
            let (input, output) = match checkpointing {
                Checkpointing::Off => {
                    let input = hidden.set_requires_grad(true);
                    let output = layer(&input)?;
                    hidden = output.detach();
                    (input, Some(output))
                }
                Checkpointing::PerLayer => {
                    let next = tch::no_grad(|| layer(&hidden))?;
                    (std::mem::replace(&mut hidden, next), None)
                }
            };
            layers.push((input, output));
        }
        let output = hidden.set_requires_grad(true);
        let hidden_states = decoder.norm(&output)?;
        let selected = selected.map(Tensor::shallow_clone);
        Ok(Self { decoder, backend, rotations, selected, layers, output, hidden_states })
    }

    /// Returns the hidden states `[M, hidden_size]` of the selected tokens after the final norm. Their graph ends at
    /// [`LayerwiseBackward::output`].
    pub fn hidden_states(&self) -> &Tensor {
        &self.hidden_states
    }

    /// Whether the backward pass recomputes the layers.
    pub fn is_recomputed(&self) -> bool {
        self.layers.iter().all(|(_, output)| output.is_none())
    }

    /// Returns the output of the last layer, `[M, hidden_size]`, a leaf.
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// Returns the gradient of the embeddings, `[N, hidden_size]`, from that of [`LayerwiseBackward::output`].
    ///
    /// Calls `differentiate` for each layer, from the last to the first, with the layer's index, its output and the output's
    /// gradient, and its input, a leaf: `[N, hidden_size]` each, except `[M, hidden_size]` for the output of the last layer.
    /// `differentiate` returns the gradient of the leaf, and accumulates those of the layer's weights.
    ///
    /// # Errors
    ///
    /// The first error of `differentiate`, or of recomputing a layer.
    pub fn backward<E: From<PolicyError>>(
        self,
        grad_output: Tensor,
        mut differentiate: impl FnMut(usize, [&Tensor; 2], &Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let Self { decoder, mut backend, rotations, selected, layers, output, hidden_states } = self;
        drop((output, hidden_states));
        let mut gradient = grad_output;
        for (index, (input, output)) in layers.into_iter().enumerate().rev() {
            let input = input.set_requires_grad(true);
            let output = match output {
                Some(output) => output,
                None => decoder.layer(index, &input, &rotations, backend.as_mut(), selected.as_ref())?,
            };
            gradient = differentiate(index, [&output, &gradient], &input)?;
        }
        Ok(gradient)
    }
}

impl fmt::Debug for LayerwiseBackward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerwiseBackward").field("output", &self.output).finish_non_exhaustive()
    }
}
