//! Layers whose weights are not in memory between their uses: shards on several ranks, or quantized weights.

use std::fmt;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::error::PolicyError;

/// Supplies the weights of layers while they compute.
///
/// A pass over the layers uses each of them in order, from the first to the last in a forward pass, and back in a layerwise
/// backward pass. Weights that a graph refers to stay in memory with the graph, so that a policy with a source needs
/// [`Checkpointing::PerLayer`](crate::Checkpointing::PerLayer).
pub trait LayerSource: fmt::Debug + Send + Sync {
    /// Announces a forward pass.
    ///
    /// # Errors
    ///
    /// If another rank cannot take part.
    fn begin_forward(&self) -> Result<(), PolicyError>;

    /// Returns the weights of layer `index` with their checkpoint names, in the order of [`ModelConfig::parameter_shapes`](crate::ModelConfig::parameter_shapes).
    ///
    /// # Errors
    ///
    /// If the weights cannot be supplied.
    fn layer(&self, index: usize) -> Result<Vec<(String, Tensor)>, PolicyError>;

    /// Takes part in the forward passes of other ranks until none has more work. All ranks call it after their passes.
    ///
    /// # Errors
    ///
    /// If another rank fails.
    fn finish_passes(&self) -> Result<(), PolicyError>;

    /// Whether the weights are dequantized, and not shared by ranks.
    fn is_quantized(&self) -> bool {
        false
    }
}

/// The source of a policy's layers.
#[derive(Clone, Debug)]
pub(crate) struct Supply {
    pub(crate) source: Arc<dyn LayerSource>,
    /// The kind to which weights are converted.
    pub(crate) kind: Kind,
}

impl Supply {
    /// Returns the weights of layer `index`.
    pub(crate) fn parameters(&self, index: usize) -> Result<Vec<(String, Tensor)>, PolicyError> {
        let parameters = self.source.layer(index)?;
        let convert = |(name, tensor): (String, Tensor)| {
            // A conversion would detach the graph from the leaves of the source.
            if tensor.kind() == self.kind {
                return Ok((name, tensor));
            }
            let converted =
                tensor.f_to_kind(self.kind).map_err(PolicyError::torch(format!("convert `{name}`")))?;
            Ok((name, converted))
        };
        parameters.into_iter().map(convert).collect()
    }
}

/// Returns the layer of a parameter with this checkpoint name.
pub fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}
