//! A forward pass that is differentiated one layer at a time.

use std::fmt;

use tch::Tensor;

use crate::attention::Mixing;
use crate::decoder::Decoder;
use crate::rope::Rotation;

/// What a forward pass keeps of each layer for the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All that its gradient takes.
    Activations,
    /// Its input `[N, hidden_size]`, from which the rest is computed once more: gradient checkpointing (Chen et al. 2016, arXiv
    /// 1604.06174). Between the passes that is all there is, and during the second one layer's activations. The price is a
    /// second forward pass.
    Input,
}

/// Hidden states whose layers each have a graph of their own, so that a layer's gradients are there before those of the layers
/// below it are begun.
///
/// [`Policy::packed_layered`](crate::Policy::packed_layered) makes one.
pub struct Layered<'a> {
    decoder: &'a Decoder,
    mixing: Box<dyn Mixing>,
    rotation: Rotation,
    wanted: Option<Tensor>,
    /// What each layer took, and what it gave where that is kept.
    layers: Vec<(Tensor, Option<Tensor>)>,
    output: Tensor,
    hidden_states: Tensor,
}

impl<'a> Layered<'a> {
    pub(crate) fn new(
        decoder: &'a Decoder,
        embedded: &Tensor,
        positions: &Tensor,
        mut mixing: Box<dyn Mixing>,
        wanted: Option<&Tensor>,
        keep: Keep,
    ) -> Self {
        let mut layers = Vec::with_capacity(decoder.layers());
        let rotation = tch::no_grad(|| decoder.rotation(positions));
        let mut hidden = embedded.detach();
        for index in 0..decoder.layers() {
            let mut layer = |input: &Tensor| decoder.layer(index, input, &rotation, mixing.as_mut(), wanted);
            let (input, output) = match keep {
                Keep::Activations => {
                    let input = hidden.set_requires_grad(true);
                    let output = layer(&input);
                    hidden = output.detach();
                    (input, Some(output))
                }
                Keep::Input => {
                    let next = tch::no_grad(|| layer(&hidden));
                    (std::mem::replace(&mut hidden, next), None)
                }
            };
            layers.push((input, output));
        }
        let output = hidden.set_requires_grad(true);
        let hidden_states = decoder.norm(&output);
        let wanted = wanted.map(Tensor::shallow_clone);
        Self { decoder, mixing, rotation, wanted, layers, output, hidden_states }
    }

    /// Hidden states `[M, hidden_size]` of the tokens that are wanted after the final norm, with a graph to [`Layered::output`] and no
    /// further.
    pub fn hidden_states(&self) -> &Tensor {
        &self.hidden_states
    }

    /// What the last layer gave, `[M, hidden_size]`: a leaf that gradients stop at.
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// The gradient of the embeddings, `[N, hidden_size]`, from that of [`Layered::output`].
    ///
    /// From the last layer to the first, `differentiate` is given a layer's number, what it gave and the gradient of that, and the
    /// leaf it was computed from: `[N, hidden_size]` each, but `[M, hidden_size]` what the last layer gave. It returns the gradient
    /// with respect to the leaf, and takes what it wants with respect to the layer's weights.
    ///
    /// # Errors
    ///
    /// The first one of `differentiate`.
    pub fn backward<E>(
        self,
        of_output: Tensor,
        mut differentiate: impl FnMut(usize, [&Tensor; 2], &Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let Self { decoder, mut mixing, rotation, wanted, layers, output, hidden_states } = self;
        drop((output, hidden_states));
        let mut gradient = of_output;
        for (index, (input, output)) in layers.into_iter().enumerate().rev() {
            let input = input.set_requires_grad(true);
            let output = output
                .unwrap_or_else(|| decoder.layer(index, &input, &rotation, mixing.as_mut(), wanted.as_ref()));
            gradient = differentiate(index, [&output, &gradient], &input)?;
        }
        Ok(gradient)
    }
}

impl fmt::Debug for Layered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("output", &self.output).finish_non_exhaustive()
    }
}
