//! Policies whose layers are in NF4 and are dequantized one at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};
use torch_ext::{Nf4, TorchExtError};

use crate::config::ModelConfig;
use crate::error::PolicyError;
use crate::layer_source::{LayerSource, layer_of};
use crate::policy::Policy;

impl Policy {
    /// Reads a model folder like [`Policy::load`], and keeps the projections of its layers in NF4 with double quantization
    /// ([`torch_ext::Nf4`]): about 4.1 bits for a weight. Embedding, norms, biases, routers and head keep `kind`.
    ///
    /// A layer is dequantized to `kind` while it computes. A policy in NF4 is read-only below its adapters, and everything that
    /// reads its weights, such as [`save`](Policy::save), sees the dequantized ones.
    ///
    /// # Errors
    /// As [`Policy::load`]; [`PolicyError::UnsupportedKind`] unless `kind` is Float or `BFloat16`.
    pub fn load_in_nf4(dir: &Path, kind: Kind, device: Device) -> Result<Self, PolicyError> {
        let mut quantizer = Quantizer::new(Self::inspect(dir)?, kind)?;
        // NF4 has the scales of the stored weights, so that these are not rounded before.
        Self::read_parameters(dir, Kind::Float, device, |name, weight| quantizer.add(name, &weight))?;
        quantizer.finish()
    }

    /// Returns this policy, without adapters, with the projections of its layers in NF4, as [`Policy::load_in_nf4`] reads it.
    ///
    /// # Errors
    /// [`PolicyError::UnsupportedKind`] unless the policy is Float or `BFloat16`.
    pub fn in_nf4(&self) -> Result<Self, PolicyError> {
        let mut quantizer = Quantizer::new(self.config().clone(), self.kind())?;
        self.for_each_parameter(|name, weight| quantizer.add(name.to_owned(), weight))?;
        quantizer.finish()
    }

    /// Whether the layers are in NF4.
    pub fn is_quantized(&self) -> bool {
        self.layer_source().is_some_and(|source| source.is_quantized())
    }
}

impl ModelConfig {
    /// Returns the number of weights that [`Policy::load_in_nf4`] quantizes.
    pub fn quantized_parameter_count(&self) -> u64 {
        let shapes = self.parameter_shapes().into_iter().filter(|(name, shape)| is_quantized(name, shape));
        shapes.map(|(_, shape)| shape.iter().product::<i64>() as u64).sum()
    }
}

/// Whether a weight is that of a projection of a layer.
fn is_quantized(name: &str, shape: &[i64]) -> bool {
    let module = name.strip_suffix(".weight").filter(|_| layer_of(name).is_some() && shape.len() == 2);
    module.is_some_and(|module| !module.ends_with("_norm") && !module.ends_with(".gate"))
}

/// A weight of a layer.
#[derive(Debug)]
enum Stored {
    Whole(Tensor),
    Quantized(Nf4),
}

/// Collects the weights of a policy, each in its form in memory.
struct Quantizer {
    config: ModelConfig,
    kind: Kind,
    layers: BTreeMap<usize, BTreeMap<String, Stored>>,
    others: Vec<(String, Tensor)>,
}

impl Quantizer {
    fn new(config: ModelConfig, kind: Kind) -> Result<Self, PolicyError> {
        match kind {
            Kind::Float | Kind::BFloat16 => {
                Ok(Self { config, kind, layers: BTreeMap::new(), others: Vec::new() })
            }
            kind => Err(PolicyError::UnsupportedKind { kind }),
        }
    }

    fn add(&mut self, name: String, weight: &Tensor) -> Result<(), PolicyError> {
        let Some(layer) = layer_of(&name) else {
            let converted = self.converted(&name, weight)?;
            self.others.push((name, converted));
            return Ok(());
        };
        let stored = match is_quantized(&name, &weight.size()) {
            true => Stored::Quantized(Nf4::quantize(weight)?),
            false => Stored::Whole(self.converted(&name, weight)?),
        };
        self.layers.entry(layer).or_default().insert(name, stored);
        Ok(())
    }

    fn converted(&self, name: &str, weight: &Tensor) -> Result<Tensor, PolicyError> {
        let failed = PolicyError::torch(format!("convert `{name}`"));
        weight.f_detach().and_then(|weight| weight.f_to_kind(self.kind)).map_err(failed)
    }

    /// Arranges the weights of each layer, and builds the policy.
    fn finish(mut self) -> Result<Policy, PolicyError> {
        let mut layers: Vec<Vec<(String, Stored)>> = (0..self.config.layers).map(|_| Vec::new()).collect();
        for (name, _) in self.config.parameter_shapes() {
            let Some(layer) = layer_of(&name) else { continue };
            let stored = self.layers.get_mut(&layer).and_then(|layer| layer.remove(&name));
            let Some(stored) = stored else {
                let origin = "the weights to quantize".to_owned();
                return Err(PolicyError::MissingTensors { origin, count: 1, first: name });
            };
            layers[layer].push((name, stored));
        }
        let layers = layers.into_iter().map(Mutex::new).collect();
        let source = Arc::new(QuantizedLayers { layers, kind: self.kind });
        Policy::with_layer_source(self.config, self.others, source)
    }
}

/// The layers of a policy, with their projections in NF4.
#[derive(Debug)]
struct QuantizedLayers {
    /// Tensors are not shared between threads without a lock.
    layers: Vec<Mutex<Vec<(String, Stored)>>>,
    kind: Kind,
}

impl LayerSource for QuantizedLayers {
    fn begin_forward(&self) -> Result<(), PolicyError> {
        Ok(())
    }

    fn layer(&self, index: usize) -> Result<Vec<(String, Tensor)>, PolicyError> {
        let layer = self.layers[index].lock().unwrap_or_else(PoisonError::into_inner);
        let whole = |(name, stored): &(String, Stored)| {
            let weight = match stored {
                Stored::Whole(weight) => weight.shallow_clone(),
                Stored::Quantized(quantized) => quantized.dequantize(self.kind)?,
            };
            Ok((name.clone(), weight))
        };
        layer.iter().map(whole).collect::<Result<_, TorchExtError>>().map_err(PolicyError::from)
    }

    fn finish_passes(&self) -> Result<(), PolicyError> {
        Ok(())
    }

    fn is_quantized(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use seeds::Seeds;
    use serde_json::json;

    use super::*;
    use crate::{Lora, Targets};

    fn policy(kind: Kind) -> Policy {
        policy_of("qwen2", kind)
    }

    fn policy_of(family: &str, kind: Kind) -> Policy {
        let config = ModelConfig::from_json(json!({
            "model_type": family, "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
        }));
        Policy::initialize(config.unwrap(), &Seeds::new(0), kind, Device::Cpu).unwrap()
    }

    fn parameters(policy: &Policy) -> Vec<(String, Tensor)> {
        let mut all = Vec::new();
        let visit = |name: &str, weight: &Tensor| {
            all.push((name.to_owned(), weight.shallow_clone()));
            Ok::<_, PolicyError>(())
        };
        policy.for_each_parameter(visit).unwrap();
        all
    }

    #[test]
    fn projections_are_quantized_and_all_else_is_kept() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let whole = policy(kind);
            let quantized = whole.in_nf4().unwrap();
            assert!(quantized.is_quantized() && !whole.is_quantized());
            let mut changed = 0;
            for ((name, before), (other, after)) in whole.parameters().iter().zip(parameters(&quantized)) {
                assert_eq!(*name, other);
                if is_quantized(name, &before.size()) {
                    assert_eq!(after, Nf4::quantize(before).unwrap().dequantize(kind).unwrap(), "{name}");
                    changed += before.numel() as u64;
                } else {
                    assert_eq!(after, *before, "{name}");
                }
            }
            assert_eq!(changed, whole.config().quantized_parameter_count());
        }
        let half = policy(Kind::Float).to_kind(Kind::Half).unwrap();
        assert!(matches!(half.in_nf4(), Err(PolicyError::UnsupportedKind { .. })));
    }

    #[test]
    fn a_folder_in_nf4_is_the_policy_in_nf4() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("model");
        let whole = policy(Kind::Float);
        whole.save(&dir, Kind::Float, None).unwrap();
        let read = Policy::load_in_nf4(&dir, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(parameters(&read), parameters(&whole.in_nf4().unwrap()));

        // Saved again, it is a folder of the dequantized weights.
        let again = folder.path().join("again");
        read.save(&again, Kind::Float, None).unwrap();
        let again = Policy::load(&again, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(parameters(&again), parameters(&read));
    }

    #[test]
    fn adapters_of_all_kinds_start_from_the_dequantized_weights() {
        let quantized = policy(Kind::Float).in_nf4().unwrap();
        let weights = Policy::from_parameters(quantized.config().clone(), parameters(&quantized)).unwrap();
        let mut lora = Lora::new(2, 4.0, Targets::AllLinear);
        lora.use_dora = true;
        lora.modules_to_save = vec!["embed_tokens".to_owned()];
        let seeds = Seeds::new(1);
        let fresh = quantized.initial_adapters(&lora, &seeds).unwrap();
        assert_eq!(fresh, weights.initial_adapters(&lora, &seeds).unwrap());
        let rows = crate::Rows::causal(&[&[1, 2, 3, 4, 5]], Device::Cpu);
        let states = |policy: &Policy| {
            let adapted = policy.with_adapters(lora.clone(), policy.initial_adapters(&lora, &seeds).unwrap());
            tch::no_grad(|| adapted.unwrap().hidden_states(&rows).unwrap())
        };
        assert_eq!(states(&quantized), states(&weights));
    }

    /// Trained lengths are rounded to bfloat16 where they compute, and those of the weights alike.
    #[test]
    fn initial_adapters_with_lengths_change_nothing_in_bfloat16() {
        let whole = policy_of("llama", Kind::BFloat16);
        let mut lora = Lora::new(2, 4.0, Targets::AllLinear);
        lora.use_dora = true;
        let rows = crate::Rows::causal(&[&[1, 2, 3, 4, 5]], Device::Cpu);
        let states = |policy: &Policy| tch::no_grad(|| policy.hidden_states(&rows).unwrap());
        for base in [whole.in_nf4().unwrap(), whole] {
            let fresh = base.initial_adapters(&lora, &Seeds::new(3)).unwrap().into_iter();
            let rounded = fresh.map(|(name, tensor)| (name, tensor.to_kind(Kind::BFloat16))).collect();
            assert_eq!(states(&base.with_adapters(lora.clone(), rounded).unwrap()), states(&base));
        }
    }
}
