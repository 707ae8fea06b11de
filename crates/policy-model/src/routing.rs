//! The routers' probabilities of a forward pass, for a loss that balances experts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;

/// Records the routers' probabilities of one forward pass, with their graphs. A recomputed layer replaces its record.
#[derive(Clone, Debug, Default)]
pub struct Routing(Arc<Mutex<BTreeMap<usize, Tensor>>>);

impl Routing {
    pub(crate) fn record(&self, layer: usize, probabilities: &Tensor) {
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.insert(layer, probabilities.shallow_clone());
    }

    /// Returns the probabilities `[N, experts]` of layer `layer`, in fp32; `None` for a layer without experts.
    pub fn of_layer(&self, layer: usize) -> Option<Tensor> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(&layer).map(Tensor::shallow_clone)
    }
}
