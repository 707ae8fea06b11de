//! Gradient checkpointing: a forward pass that keeps the input of every layer and nothing else of it.

use std::fmt;

use tch::{Kind, Tensor};

use crate::attention::Mixing;
use crate::decoder::Decoder;
use crate::rope::Rotation;

/// Hidden states whose layers are computed once more on the way back, one at a time (Chen et al. 2016, arXiv 1604.06174).
///
/// Between the passes it holds `[N, hidden_size]` a layer, and during the second one layer's activations, where a graph
/// over all layers holds all of theirs. The price is a second forward pass.
///
/// [`Policy::packed_checkpointed`](crate::Policy::packed_checkpointed) makes one.
pub struct Checkpointed<'a> {
    decoder: &'a Decoder,
    mixing: Box<dyn Mixing>,
    rotation: Rotation,
    /// What each layer took.
    inputs: Vec<Tensor>,
    output: Tensor,
    hidden_states: Tensor,
}

impl<'a> Checkpointed<'a> {
    pub(crate) fn new(
        decoder: &'a Decoder,
        embedded: &Tensor,
        positions: &Tensor,
        mut mixing: Box<dyn Mixing>,
    ) -> Self {
        let mut inputs = Vec::with_capacity(decoder.layers());
        let (rotation, output) = tch::no_grad(|| {
            let rotation = decoder.rotation(positions);
            let mut hidden = embedded.detach();
            for index in 0..decoder.layers() {
                let next = decoder.layer(index, &hidden, &rotation, mixing.as_mut());
                inputs.push(std::mem::replace(&mut hidden, next));
            }
            (rotation, hidden)
        });
        let output = output.set_requires_grad(true);
        let hidden_states = decoder.norm(&output);
        Self { decoder, mixing, rotation, inputs, output, hidden_states }
    }

    /// Hidden states `[N, hidden_size]` after the final norm, with a graph to [`Checkpointed::output`] and no further.
    pub fn hidden_states(&self) -> &Tensor {
        &self.hidden_states
    }

    /// What the last layer gave, `[N, hidden_size]`: a leaf that gradients stop at.
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// The gradient of the embeddings, `[N, hidden_size]`, from that of [`Checkpointed::output`].
    ///
    /// From the last layer to the first, `differentiate` is given a layer's number, a scalar and the leaf `[N, hidden_size]`
    /// that this layer was computed from once more. It returns the gradient of the scalar with respect to the leaf, and
    /// takes what it wants with respect to the layer's weights.
    ///
    /// # Errors
    ///
    /// The first one of `differentiate`.
    pub fn backward<E>(
        self,
        of_output: Tensor,
        mut differentiate: impl FnMut(usize, &Tensor, &Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let Self { decoder, mut mixing, rotation, inputs, output, hidden_states } = self;
        drop((output, hidden_states));
        let mut gradient = of_output;
        for (index, input) in inputs.into_iter().enumerate().rev() {
            let input = input.set_requires_grad(true);
            let output = decoder.layer(index, &input, &rotation, mixing.as_mut());
            // A product has the gradient of its other factor: that is how the gradient from above enters autograd.
            let root = (output * gradient).sum(Kind::Float);
            gradient = differentiate(index, &root, &input)?;
        }
        Ok(gradient)
    }
}

impl fmt::Debug for Checkpointed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointed").field("output", &self.output).finish_non_exhaustive()
    }
}
