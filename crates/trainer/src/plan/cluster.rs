//! What a run would take on several GPUs, by formula.

use policy_model::ModelConfig;

use crate::parameters::Trained;
use crate::plan::Memory;
use crate::scoring::Activations;

/// GPUs that share a run: each computes its part of every batch and holds its part of the optimiser's state (ZeRO-1, Rajbhandari
/// et al. 2020, arXiv 1910.02054).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// How many.
    pub gpus: u64,
    /// Bytes of memory of each.
    pub memory: u64,
    /// Operations a second of each in bfloat16, as its maker has it.
    pub flops: f64,
    /// The share of them that training reaches.
    pub utilisation: f64,
    /// Bytes a second that each sends and receives in collectives.
    pub bandwidth: f64,
}

/// What a run would take on a cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnCluster {
    /// What each GPU holds.
    pub memory: Memory,
    /// Whether that fits.
    pub fits: bool,
    /// Seconds of the reference's pass.
    pub reference: f64,
    /// Seconds that the GPUs compute in all steps.
    pub computing: f64,
    /// Seconds of collectives in all steps, of which a part can hide behind computing.
    pub communicating: f64,
}

/// What a run asks of a cluster.
pub(super) struct Load<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) trained: &'a Trained,
    pub(super) activations: Activations,
    /// What one GPU would hold of a run on its own, with its share of a batch.
    pub(super) memory: Memory,
    pub(super) steps: u64,
    /// Tokens of all steps, and of the reference's pass.
    pub(super) tokens: f64,
    pub(super) reference_tokens: f64,
}

/// CUDA, NCCL and what the allocator keeps, on each GPU.
const RUNTIME: u64 = 3_000_000_000;

impl Cluster {
    /// Eight A100 of 80 GB on one board: 312 TFLOP/s each, of which operations that are called one by one reach 40%, and the
    /// 230 GB/s that NCCL's all-reduce has there.
    pub const EIGHT_A100: Self =
        Self { gpus: 8, memory: 80 << 30, flops: 312e12, utilisation: 0.4, bandwidth: 230e9 };

    pub(super) fn run(self, load: &Load<'_>) -> OnCluster {
        let gpus = self.gpus as f64;
        let weights = load.config.parameter_count() as f64;
        let trained = load.trained.parameter_count(load.config) as f64;
        // Operations a weight and token: 2 forwards, 2 back to the activations, 2 back to the weights that are trained, and
        // 2 more where activations are computed again.
        let again = if load.activations == Activations::Recomputed { 2.0 } else { 0.0 };
        let per_token = (4.0 + again) * weights + 2.0 * trained;
        let rate = gpus * self.flops * self.utilisation;
        // Gradients are reduced and scattered in fp32, updated weights gathered in bfloat16.
        let bytes_a_step = (4.0 + 2.0) * trained * (gpus - 1.0) / gpus;
        let Memory { master, moments, .. } = load.memory;
        let memory = Memory {
            master: master / self.gpus,
            moments: moments / self.gpus,
            runtime: RUNTIME,
            ..load.memory
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
    use tch::Kind;

    use super::*;

    #[test]
    fn the_papers_run_is_what_it_comes_to_by_hand() {
        let config = ModelConfig::from_json(serde_json::json!({
            "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        }))
        .unwrap();
        assert_eq!(config.parameter_count(), 7_241_732_096);
        let on = |trained: &Trained| {
            let memory = Memory::of(trained.parameter_count(&config), Kind::BFloat16);
            let load = Load {
                config: &config,
                trained,
                activations: Activations::Kept,
                memory,
                steps: 100,
                tokens: 1e6,
                reference_tokens: 1e6,
            };
            Cluster::EIGHT_A100.run(&load)
        };
        let full = on(&Trained::All);
        // 6 · 7.24e9 · 1e6 operations at 8 · 312e12 · 0.4 a second.
        assert!((full.computing - 43.5).abs() < 0.1, "{full:?}");
        assert!((full.reference - full.computing / 3.0).abs() < 1e-9);
        // 6 bytes a weight, 7/8 of which go to others, at 230 GB/s: 165 ms a step.
        assert!((full.communicating - 16.5).abs() < 0.1, "{full:?}");
        // 2 of the weights, 4 + 2 of gradients, an eighth of 4 + 8.
        let states = full.memory.of_weights() as f64 / 1e9;
        assert!((states - 7.2417 * (2.0 + 6.0 + 1.5)).abs() < 0.01, "{states}");
        assert!(full.fits);
        let lora =
            policy_model::Lora { rank: 16, alpha: 16.0, targets: policy_model::Projection::ALL.to_vec() };
        let adapters = on(&Trained::Adapters(lora));
        assert!(
            adapters.computing < 0.7 * full.computing && adapters.communicating < 0.01 * full.communicating
        );
    }
}
