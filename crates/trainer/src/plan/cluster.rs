//! Estimates a run on several GPUs, by formula.

use distributed::Sharding;
use policy_model::ModelConfig;
use tch::{Device, Kind};

use crate::parameters::Trained;
use crate::plan::Memory;
use crate::scoring::Activations;

/// Data-parallel GPUs; each computes its shard of every batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// The number of GPUs.
    pub gpus: u64,
    /// Memory per GPU, in bytes.
    pub memory: u64,
    /// Peak bfloat16 operations per second of each GPU, as specified.
    pub flops: f64,
    /// The share of the peak that training reaches.
    pub utilisation: f64,
    /// Bus bandwidth of collectives per GPU, in bytes per second, as NCCL defines it (`busbw`).
    pub bandwidth: f64,
}

/// A run's estimate on a cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnCluster {
    /// The memory of each GPU.
    pub memory: Memory,
    /// Whether that fits.
    pub fits: bool,
    /// Duration of the reference's pass, in seconds.
    pub reference: f64,
    /// Computing time of all steps, in seconds.
    pub computing: f64,
    /// Duration of the collectives of all steps, in seconds; a part can overlap with computing.
    pub communicating: f64,
}

/// A run's load on a cluster.
pub(super) struct Load<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) trained: &'a Trained,
    pub(super) activations: Activations,
    /// The memory of a single GPU with its shard of a batch.
    pub(super) memory: Memory,
    pub(super) steps: u64,
    /// Micro-batches of a step on each GPU.
    pub(super) micro_batches: f64,
    /// Tokens of all steps, and of the reference's pass.
    pub(super) tokens: f64,
    pub(super) reference_tokens: f64,
}

/// Memory of CUDA, NCCL and the allocator's cache on each GPU.
const RUNTIME: u64 = 3_000_000_000;

impl Cluster {
    /// Nodes of eight A100s with 80 GB. Each GPU has 312 TFLOP/s, of which unfused operations reach 40%. NCCL's
    /// all-reduce has 230 GB/s within a node; between nodes the network has 400 Gbit/s, or 50 GB/s.
    pub const fn a100s(gpus: u64) -> Self {
        let bandwidth = if gpus > 8 { 50e9 } else { 230e9 };
        Self { gpus, memory: 80 << 30, flops: 312e12, utilisation: 0.4, bandwidth }
    }

    pub(super) fn run(self, load: &Load<'_>, sharding: Sharding) -> OnCluster {
        let gpus = self.gpus as f64;
        let weights = load.config.active_parameter_count() as f64;
        let trained = load.trained.parameter_count(load.config) as f64;
        // A token has no gradient for the experts that it does not pass through.
        let active = trained.min(weights);
        // Operations per weight and token: 2 forward, 2 backward to the activations, 2 backward to trained weights, and
        // 2 more to recompute activations.
        let again = if load.activations == Activations::Recomputed { 2.0 } else { 0.0 };
        let per_token = (4.0 + again) * weights + 2.0 * active;
        let rate = gpus * self.flops * self.utilisation;
        let sent = |bytes_a_weight: f64| bytes_a_weight * trained * (gpus - 1.0) / gpus;
        let on_gpu = (Kind::BFloat16, Device::Cuda(0));
        let memory = load.memory.divided(load.config, load.trained, on_gpu, (sharding, self.gpus));
        let memory = Memory { runtime: RUNTIME, ..memory };
        let micro_batches = load.micro_batches;
        let bytes_a_step = match sharding {
            // Gradients are summed in fp32. An all-reduce sends each byte twice: for the sum and for its distribution.
            Sharding::None => sent(2.0 * 4.0),
            // Gradients are reduce-scattered in fp32, updated weights all-gathered in bfloat16. Each rank holds its
            // shard of both in addition to the whole buffers.
            Sharding::Optimizer => sent(4.0 + 2.0),
            // The gradient of each micro-batch is summed on its own.
            Sharding::Gradients => sent(4.0 * micro_batches + 2.0),
            // Weights are gathered in both passes of each micro-batch.
            Sharding::Parameters => sent((4.0 + 2.0 * 2.0) * micro_batches),
        };
        OnCluster {
            memory,
            fits: memory.total() <= self.memory,
            reference: 2.0 * weights * load.reference_tokens / rate,
            computing: per_token * load.tokens / rate,
            communicating: load.steps as f64 * bytes_a_step / self.bandwidth,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_of_the_paper_matches_a_manual_computation() {
        let config = ModelConfig::from_json(serde_json::json!({
            "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        }))
        .unwrap();
        assert_eq!(config.parameter_count(), 7_241_732_096);
        let on = |trained: &Trained, sharding| {
            let memory = Memory::of(trained.parameter_count(&config), Kind::BFloat16);
            let load = Load {
                config: &config,
                trained,
                activations: Activations::Kept,
                memory,
                steps: 100,
                micro_batches: 1.0,
                tokens: 1e6,
                reference_tokens: 1e6,
            };
            Cluster::a100s(8).run(&load, sharding)
        };
        let full = on(&Trained::All, Sharding::Optimizer);
        // 6 · 7.24e9 · 1e6 operations at 8 · 312e12 · 0.4 per second.
        assert!((full.computing - 43.5).abs() < 0.1, "{full:?}");
        assert!((full.reference - full.computing / 3.0).abs() < 1e-9);
        // 6 bytes per weight, of which 7/8 go to other GPUs, at 230 GB/s: 165 ms per step.
        assert!((full.communicating - 16.5).abs() < 0.1, "{full:?}");
        // 2 for weights, 4 + 2 for gradients, and shards of an eighth of 4 + 8 and of 4 + 2.
        let states = |run: &OnCluster| run.memory.of_weights() as f64 / 1e9;
        assert!((states(&full) - 7.2417 * (2.0 + 6.0 + 18.0 / 8.0)).abs() < 0.01, "{full:?}");
        assert!(full.fits);
        // Gradients: an eighth of 4, and buffers of two layers or, later, an eighth of the update's 2 in transit.
        let (layer, embedding) = (218_112_000.0, 131_072_000.0);
        let two = on(&Trained::All, Sharding::Gradients);
        let buffers = 4.0 * 2.0 * layer;
        let larger = f64::max(buffers, 7.2417e9 * 2.0 / 8.0);
        assert!((states(&two) * 1e9 - (7.2417e9 * (2.0 + 2.0 + 16.0 / 8.0) + larger)).abs() < 2e7, "{two:?}");
        // Weights: embedding, head and two layers.
        let three = on(&Trained::All, Sharding::Parameters);
        let weights = 2.0 * (2.0 * embedding + 2.0 * layer);
        let expected = 7.2417e9 * (2.0 + 16.0 / 8.0) + buffers + weights;
        assert!((states(&three) * 1e9 - expected).abs() < 2e7, "{three:?}");
        let replicated = on(&Trained::All, Sharding::None);
        assert!((states(&replicated) - 7.2417 * (2.0 + 6.0 + 12.0)).abs() < 0.01, "{replicated:?}");
        assert!(!replicated.fits && replicated.computing == full.computing);
        // 8 bytes per weight instead of 6.
        assert!((replicated.communicating / full.communicating - 8.0 / 6.0).abs() < 1e-9);
        let lora = policy_model::Lora::new(16, 16.0, policy_model::Targets::AllLinear);
        let adapters = on(&Trained::Adapters(lora), Sharding::Optimizer);
        assert!(
            adapters.computing < 0.7 * full.computing && adapters.communicating < 0.01 * full.communicating
        );
    }
}
