//! The differences between families, as switches of one decoder.

use crate::rope::Rope;

/// The switches of a model. A family sets them in `families.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Switches {
    pub(crate) norm: NormKind,
    pub(crate) block: Block,
    pub(crate) qk_norm: QkNorm,
    pub(crate) biases: Biases,
    /// Whether query, key and value are one projection `qkv_proj`.
    pub(crate) fused_qkv: bool,
    pub(crate) feed_forward: FeedForward,
    /// The mixture of experts of the layers that have one.
    pub(crate) experts: Option<Experts>,
    pub(crate) activation: Activation,
    pub(crate) names: Names,
    pub(crate) scales: Scales,
    /// Scales queries by their position.
    pub(crate) query_growth: Option<QueryGrowth>,
    /// Bounds attention scores: `cap · tanh(score / cap)`.
    pub(crate) attention_soft_cap: Option<f64>,
    /// Bounds logits in the same way.
    pub(crate) logit_soft_cap: Option<f64>,
    /// Positions of the layers with a sliding window, where they differ from the others.
    pub(crate) local_rope: Option<Rope>,
    pub(crate) layers: Vec<LayerSwitches>,
}

/// What may differ between the layers of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerSwitches {
    /// Whether attention has the sliding window.
    pub(crate) slides: bool,
    /// Whether queries and keys are rotated.
    pub(crate) rotates: bool,
    /// Whether experts take the place of the feed-forward block.
    pub(crate) has_experts: bool,
}

/// A mixture of experts, each a gated feed-forward block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experts {
    pub(crate) count: usize,
    /// The number of experts of a token.
    pub(crate) per_token: usize,
    /// The width of an expert.
    pub(crate) width: usize,
    /// Whether the weights of a token's experts add up to 1.
    pub(crate) normalizes: bool,
    /// Whether these weights are rounded before the product.
    pub(crate) rounds_weights: bool,
    /// The module in a layer, with the router `gate` and the experts `experts.0`, `experts.1`, ….
    pub(crate) module: &'static str,
    /// The names of gate, up and down in an expert.
    pub(crate) projections: [&'static str; 3],
}

/// The normalization of all norms of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Root mean square, rounded before the product with the weight.
    Rms,
    /// Root mean square, rounded after the product with the weight.
    RmsRoundedLast,
    /// As [`NormKind::RmsRoundedLast`], with the weight plus one.
    RmsOnePlus,
    /// Mean and variance, with a bias.
    Layer,
    /// Mean and variance, without a bias.
    LayerWithoutBias,
}

/// The position of the norms in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Before attention and before the feed-forward block.
    PreNorm,
    /// After both, before the result is added to the residual stream.
    PostNorm,
    /// Before and after both.
    PreAndPostNorm,
    /// One norm, whose result both read; both results are added at once.
    Parallel,
}

/// Norms of queries and keys before rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkNorm {
    None,
    /// Of each head, with one weight for all heads: `q_norm` and `k_norm`.
    Head,
    /// As [`QkNorm::Head`], named `q_layernorm` and `k_layernorm`.
    HeadLayerNorm,
    /// Of each head, with a weight for each.
    EachHead,
    /// As [`QkNorm::EachHead`], with a module for each head: `q_layernorm.norms.0`.
    ListOfHeads,
    /// Of the whole projection.
    Projection,
}

impl QkNorm {
    /// Returns the names of the norms of queries and keys.
    pub(crate) fn names(self) -> Option<[&'static str; 2]> {
        match self {
            Self::None => None,
            Self::HeadLayerNorm | Self::ListOfHeads => {
                Some(["self_attn.q_layernorm", "self_attn.k_layernorm"])
            }
            Self::Head | Self::EachHead | Self::Projection => Some(["self_attn.q_norm", "self_attn.k_norm"]),
        }
    }
}

/// Which projections have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Biases {
    pub(crate) qkv: bool,
    pub(crate) output: bool,
    pub(crate) feed_forward: bool,
    pub(crate) lm_head: bool,
}

/// The projections of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedForward {
    /// `down(activation(gate(x)) · up(x))`
    Gated,
    /// As [`FeedForward::Gated`], with `gate` and `up` in one projection `gate_up_proj`.
    GatedFused,
    /// `down(activation(up(x)))`
    Plain,
}

/// The activation of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    Gelu,
    /// GELU in its approximation by a tanh.
    GeluTanh,
    Relu,
}

impl Activation {
    /// The names in `config.json`.
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
    ];
}

/// Scales the queries at position `p` by `1 + beta · ln(1 + ⌊p / context⌋)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryGrowth {
    pub(crate) beta: f64,
    /// Context length of pretraining.
    pub(crate) context: f64,
}

/// Names of modules in a checkpoint that differ between families.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) output: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
    pub(crate) final_norm: &'static str,
}

/// Factors; 1 changes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scales {
    /// Of the embeddings.
    pub(crate) embedding: f64,
    /// Of the results of attention and of the feed-forward block.
    pub(crate) residual: f64,
    /// Of the hidden states before the head, and so of the logits.
    pub(crate) logits: f64,
    /// Of the attention scores; `None` is `1/√head_dim`.
    pub(crate) attention: Option<f64>,
}

impl Switches {
    /// Returns the switches of Llama without biases.
    pub(crate) fn new(layers: usize) -> Self {
        Self {
            norm: NormKind::Rms,
            block: Block::PreNorm,
            qk_norm: QkNorm::None,
            biases: Biases::default(),
            fused_qkv: false,
            feed_forward: FeedForward::Gated,
            experts: None,
            activation: Activation::Silu,
            names: Names {
                output: "self_attn.o_proj",
                up: "mlp.up_proj",
                down: "mlp.down_proj",
                final_norm: "model.norm",
            },
            scales: Scales { embedding: 1.0, residual: 1.0, logits: 1.0, attention: None },
            query_growth: None,
            attention_soft_cap: None,
            logit_soft_cap: None,
            local_rope: None,
            layers: vec![LayerSwitches { slides: false, rotates: true, has_experts: false }; layers],
        }
    }

    /// Returns the experts of layer `layer`.
    pub(crate) fn experts_of(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|_| self.layers.get(layer).is_some_and(|layer| layer.has_experts))
    }

    /// Returns the norms of a layer: before and after attention, before and after the feed-forward block.
    pub(crate) fn layer_norms(&self) -> [Option<&'static str>; 4] {
        const INPUT: Option<&str> = Some("input_layernorm");
        const ATTENTION: Option<&str> = Some("post_attention_layernorm");
        const BEFORE: Option<&str> = Some("pre_feedforward_layernorm");
        const AFTER: Option<&str> = Some("post_feedforward_layernorm");
        match self.block {
            Block::PreNorm => [INPUT, None, ATTENTION, None],
            Block::PostNorm => [None, ATTENTION, None, AFTER],
            Block::PreAndPostNorm => [INPUT, ATTENTION, BEFORE, AFTER],
            Block::Parallel => [INPUT, None, None, None],
        }
    }
}
