//! The layers of a model, from its tensors.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::attention::ScoreRule;
use crate::config::ModelConfig;
use crate::experts::Mixture;
use crate::feed_forward::{FeedForward, Input};
use crate::layer::{Attention, Layer, Mlp, Qkv};
use crate::linear::Linear;
use crate::lora::Adapters;
use crate::norm::Norm;
use crate::switches::{Block, Experts, FeedForward as FeedForwardKind, NormKind, QkNorm};

/// Why a weight is there.
const CHECKED: &str = "a policy checks that every weight is present";

/// Finds a model's tensors by name.
pub(crate) struct Modules<'a> {
    config: &'a ModelConfig,
    tensors: BTreeMap<&'a str, &'a Tensor>,
    adapters: Option<&'a Adapters>,
}

impl<'a> Modules<'a> {
    /// Creates the modules of `config` with these tensors and adapters.
    pub(crate) fn new(
        config: &'a ModelConfig,
        parameters: &'a [(String, Tensor)],
        adapters: Option<&'a Adapters>,
    ) -> Self {
        let tensors = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        Self { config, tensors, adapters }
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<Tensor> {
        let given = self.tensors.get(name)?;
        match self.adapters.and_then(|adapters| adapters.replaced(name)) {
            // Another kind than that of the weights means a policy for saving, which needs no graph.
            Some(own) if own.kind() != given.kind() => Some(own.detach().to_kind(given.kind())),
            Some(own) => Some(own.shallow_clone()),
            None => Some(given.shallow_clone()),
        }
    }

    pub(crate) fn needed(&self, name: &str) -> Tensor {
        self.tensor(name).expect(CHECKED)
    }

    pub(crate) fn norm(&self, name: &str) -> Norm {
        Norm {
            weight: self.needed(&format!("{name}.weight")),
            bias: self.tensor(&format!("{name}.bias")),
            eps: self.config.norm_eps,
            kind: self.config.switches.norm,
        }
    }

    /// Returns the norms of queries or keys with so many heads.
    fn qk_norm(&self, name: &str, heads: usize) -> Vec<Norm> {
        let of_head = |head: usize| Norm {
            weight: self.needed(&format!("{name}.norms.{head}.weight")),
            bias: None,
            eps: self.config.norm_eps,
            kind: NormKind::LayerWithoutBias,
        };
        match self.config.switches.qk_norm {
            QkNorm::ListOfHeads => (0..heads).map(of_head).collect(),
            _ => vec![self.norm(name)],
        }
    }

    fn linear(&self, name: &str) -> Linear {
        Linear {
            weight: self.needed(&format!("{name}.weight")),
            bias: self.tensor(&format!("{name}.bias")),
            low_rank: self.adapters.and_then(|adapters| adapters.of(name)),
        }
    }

    pub(crate) fn layer(&self, index: usize) -> Layer {
        let switches = &self.config.switches;
        let at = |name: &str| format!("model.layers.{index}.{name}");
        Layer {
            norms: switches.layer_norms().map(|name| name.map(|name| self.norm(&at(name)))),
            self_attn: self.attention(index),
            feed_forward: match switches.experts_of(index) {
                Some(experts) => Mlp::Experts(self.experts(&at(experts.module), experts)),
                None => Mlp::Dense(self.feed_forward(index)),
            },
            is_parallel: switches.block == Block::Parallel,
            residual_scale: switches.scales.residual,
            may_fuse: switches.block == Block::PreNorm
                && switches.norm == NormKind::Rms
                && switches.scales.residual == 1.0,
        }
    }

    fn feed_forward(&self, index: usize) -> FeedForward {
        let switches = &self.config.switches;
        let linear = |name: &str| self.linear(&format!("model.layers.{index}.{name}"));
        let input = match switches.feed_forward {
            FeedForwardKind::Gated => {
                Input::Gated { gate: linear("mlp.gate_proj"), up: linear(switches.names.up) }
            }
            FeedForwardKind::GatedFused => Input::GatedFused(linear("mlp.gate_up_proj")),
            FeedForwardKind::Plain => Input::Plain(linear(switches.names.up)),
        };
        FeedForward { input, down: linear(switches.names.down), activation: switches.activation }
    }

    fn experts(&self, module: &str, experts: &Experts) -> Mixture {
        let expert = |index: usize| {
            let [gate, up, down] =
                experts.projections.map(|name| self.linear(&format!("{module}.experts.{index}.{name}")));
            FeedForward {
                input: Input::Gated { gate, up },
                down,
                activation: self.config.switches.activation,
            }
        };
        Mixture {
            router: self.needed(&format!("{module}.gate.weight")),
            experts: (0..experts.count).map(expert).collect(),
            per_token: experts.per_token as i64,
            normalizes: experts.normalizes,
            rounds_weights: experts.rounds_weights,
        }
    }

    fn attention(&self, index: usize) -> Attention {
        let (config, switches) = (self.config, &self.config.switches);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let linear = |name: &str| self.linear(&at(name));
        let qkv = match switches.fused_qkv {
            true => Qkv::Fused(linear("self_attn.qkv_proj")),
            false => Qkv::Separate {
                q_proj: linear("self_attn.q_proj"),
                k_proj: linear("self_attn.k_proj"),
                v_proj: linear("self_attn.v_proj"),
            },
        };
        Attention {
            qkv,
            o_proj: linear(switches.names.output),
            qk_norm: switches
                .qk_norm
                .names()
                .map(|[q, k]| [self.qk_norm(&at(q), config.heads), self.qk_norm(&at(k), config.kv_heads)]),
            norms_projections: switches.qk_norm == QkNorm::Projection,
            heads: [config.heads, config.kv_heads].map(|heads| heads as i64),
            head_dim: config.head_dim as i64,
            query_scale: switches
                .scales
                .attention
                .map_or(1.0, |scale| scale * (config.head_dim as f64).sqrt()),
            rotates: switches.layers[index].rotates,
            rule: ScoreRule {
                window: config.window(index).map(|window| window as i64),
                soft_cap: switches.attention_soft_cap,
            },
        }
    }
}
