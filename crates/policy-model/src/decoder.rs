//! The forward pass of all families.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use torch_ext::{
    AttentionBlock, GatedBlock, TokenTrees, attention_block, gated_block, narrow_linear, narrow_rows,
};

use crate::ModelConfig;
use crate::attention::Mixing;
use crate::lora::{Adapters, LowRank};
use crate::rope::{RotaryEmbedding, Rotation};

/// A decoder: layers of tensors that are shared with the policy's parameter list.
#[derive(Debug)]
pub(crate) struct Decoder {
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    lm_head: Tensor,
    rotary: RotaryEmbedding,
}

#[derive(Debug)]
struct Layer {
    input_layernorm: Norm,
    self_attn: Attention,
    post_attention_layernorm: Norm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

#[derive(Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    qk_norm: Option<(Norm, Norm)>,
    head_dim: i64,
    /// How far back a query sees; without limit if none.
    window: Option<i64>,
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    low_rank: Option<LowRank>,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    eps: f64,
}

impl Decoder {
    /// Takes all parameters of `config` by name, and adapters beside them; the caller has checked that they are there.
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: &[(String, Tensor)],
        adapters: Option<&Adapters>,
        device: Device,
    ) -> Self {
        let by_name: BTreeMap<&str, &Tensor> =
            parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let tensor = |name: &str| by_name.get(name).map(|tensor| tensor.shallow_clone());
        let needed =
            |name: &str| tensor(name).expect("Policy::from_parameters checks that every name is present");
        let norm =
            |name: String| Norm { weight: needed(&format!("{name}.weight")), eps: config.rms_norm_eps };
        let linear = |name: String| Linear {
            weight: needed(&format!("{name}.weight")),
            bias: tensor(&format!("{name}.bias")),
            low_rank: adapters.and_then(|adapters| adapters.of(&name)),
        };
        let layer = |index: usize| {
            let at = |name: &str| format!("model.layers.{index}.{name}");
            Layer {
                input_layernorm: norm(at("input_layernorm")),
                self_attn: Attention {
                    q_proj: linear(at("self_attn.q_proj")),
                    k_proj: linear(at("self_attn.k_proj")),
                    v_proj: linear(at("self_attn.v_proj")),
                    o_proj: linear(at("self_attn.o_proj")),
                    qk_norm: config
                        .qk_norm
                        .then(|| (norm(at("self_attn.q_norm")), norm(at("self_attn.k_norm")))),
                    head_dim: config.head_dim as i64,
                    window: config.window(index).map(|window| window as i64),
                },
                post_attention_layernorm: norm(at("post_attention_layernorm")),
                gate_proj: linear(at("mlp.gate_proj")),
                up_proj: linear(at("mlp.up_proj")),
                down_proj: linear(at("mlp.down_proj")),
            }
        };
        Self {
            embed_tokens: needed("model.embed_tokens.weight"),
            layers: (0..config.layers).map(layer).collect(),
            norm: norm("model.norm".to_owned()),
            lm_head: needed(if config.tie_word_embeddings {
                "model.embed_tokens.weight"
            } else {
                "lm_head.weight"
            }),
            rotary: RotaryEmbedding::new(&config.rope, config.head_dim, device),
        }
    }

    pub(crate) fn lm_head(&self) -> &Tensor {
        &self.lm_head
    }

    /// Logits `[N, vocab_size]` from hidden states `[N, hidden]` of tokens that are being decoded.
    pub(crate) fn decoded_logits(&self, hidden: &Tensor) -> Tensor {
        Products::Decoding.linear(hidden, &self.lm_head, None)
    }

    /// The widest mask question that the layers ask: their sliding window, if any has one.
    pub(crate) fn window(&self) -> Option<i64> {
        self.layers.iter().find_map(|layer| layer.self_attn.window)
    }

    /// The embeddings `[N, hidden]` of tokens `ids [N]`.
    pub(crate) fn embed(&self, ids: &Tensor) -> Tensor {
        self.embed_tokens.index_select(0, ids)
    }

    /// Hidden states after the final norm, from embeddings `[N, hidden]` and positions `[N]`: `[M, hidden]` of the tokens that
    /// are `wanted` `[M]`, or of all.
    ///
    /// Everything but attention takes token by token, so that rows need no shape here: only `mixing` knows it. On
    /// two-dimensional operands libtorch needs no reshaping of its own, which counts where a layer takes microseconds.
    pub(crate) fn forward(
        &self,
        embedded: &Tensor,
        positions: &Tensor,
        mixing: &mut dyn Mixing,
        wanted: Option<&Tensor>,
    ) -> Tensor {
        let rotation = self.rotation(positions);
        let mut hidden = embedded.shallow_clone();
        for index in 0..self.layers.len() {
            hidden = self.layer(index, &hidden, &rotation, mixing, wanted);
        }
        self.norm.forward(&hidden)
    }

    /// How queries and keys at `positions` `[N]` turn.
    pub(crate) fn rotation(&self, positions: &Tensor) -> Rotation {
        self.rotary.at(positions, self.embed_tokens.kind())
    }

    /// What layer `index` makes of hidden states `[N, hidden]`: `[N, hidden]`, but of the last layer only what is `wanted`.
    ///
    /// Past the last attention no token's state is of use to another, so that the rest is computed of those alone that are asked
    /// for: of a pair, the tokens of its responses.
    pub(crate) fn layer(
        &self,
        index: usize,
        hidden: &Tensor,
        rotation: &Rotation,
        mixing: &mut dyn Mixing,
        wanted: Option<&Tensor>,
    ) -> Tensor {
        let layer = &self.layers[index];
        let window = layer.self_attn.window;
        let products = if mixing.is_decoding() { Products::Decoding } else { Products::Whole };
        let in_one = mixing.trees(window).and_then(|trees| layer.attention_in_one(hidden, rotation, trees));
        let hidden = in_one.unwrap_or_else(|| {
            layer.attention(hidden, rotation, products, &mut |q, k, v| mixing.attend(index, window, q, k, v))
        });
        let hidden = match wanted {
            Some(wanted) if index + 1 == self.layers.len() => hidden.index_select(0, wanted),
            _ => hidden,
        };
        let in_one = if products == Products::Whole { layer.gated_in_one(&hidden) } else { None };
        in_one.unwrap_or_else(|| layer.gated(&hidden, products))
    }

    /// How many layers there are.
    pub(crate) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// The final norm of hidden states `[N, hidden]`.
    pub(crate) fn norm(&self, hidden: &Tensor) -> Tensor {
        self.norm.forward(hidden)
    }
}

/// What becomes of a layer's queries, keys and values, `[N, heads, head_dim]` each: `[N, heads · head_dim]`.
type Attend<'a> = &'a mut dyn FnMut(Tensor, Tensor, Tensor) -> Tensor;

/// A layer is two blocks, each of which adds to the hidden states. Where it can, a block is computed in one, with the bits of its
/// parts: as one node of autograd's graph instead of a dozen.
impl Layer {
    fn attention(
        &self,
        hidden: &Tensor,
        rotation: &Rotation,
        products: Products,
        attend: Attend<'_>,
    ) -> Tensor {
        hidden + self.self_attn.forward(&self.input_layernorm.forward(hidden), rotation, products, attend)
    }

    /// None where there is more to it than the block knows, and for other devices, kinds and widths.
    fn attention_in_one(&self, hidden: &Tensor, rotation: &Rotation, trees: &TokenTrees) -> Option<Tensor> {
        let Attention { q_proj, k_proj, v_proj, o_proj, qk_norm: None, .. } = &self.self_attn else {
            return None;
        };
        let biases = match [q_proj, k_proj, v_proj].map(|projection| projection.bias.as_ref()) {
            [None, None, None] => None,
            [Some(q), Some(k), Some(v)] => Some([q, k, v]),
            _ => return None,
        };
        if [q_proj, k_proj, v_proj].iter().any(|projection| projection.low_rank.is_some()) {
            return None;
        }
        let weights = AttentionBlock {
            input_layernorm: &self.input_layernorm.weight,
            eps: self.input_layernorm.eps,
            q_proj: &q_proj.weight,
            k_proj: &k_proj.weight,
            v_proj: &v_proj.weight,
            o_proj: o_proj.alone()?,
            biases,
        };
        attention_block(hidden, &weights, rotation.tables(), trees).ok()
    }

    fn gated(&self, hidden: &Tensor, products: Products) -> Tensor {
        let normed = self.post_attention_layernorm.forward(hidden);
        let gated =
            swiglu(&self.gate_proj.forward(&normed, products), &self.up_proj.forward(&normed, products));
        hidden + self.down_proj.forward(&gated, products)
    }

    /// As [`Layer::attention_in_one`].
    fn gated_in_one(&self, hidden: &Tensor) -> Option<Tensor> {
        let weights = GatedBlock {
            post_attention_layernorm: &self.post_attention_layernorm.weight,
            eps: self.post_attention_layernorm.eps,
            gate_proj: self.gate_proj.alone()?,
            up_proj: self.up_proj.alone()?,
            down_proj: self.down_proj.alone()?,
        };
        gated_block(hidden, &weights).ok()
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, rotation: &Rotation, products: Products, attend: Attend<'_>) -> Tensor {
        let heads =
            |projection: &Linear| projection.forward(x, products).view([x.size()[0], -1, self.head_dim]);
        let (mut q, mut k) = (heads(&self.q_proj), heads(&self.k_proj));
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q), k_norm.forward(&k));
        }
        let v = heads(&self.v_proj);
        self.o_proj.forward(&attend(rotation.turn(&q), rotation.turn(&k), v), products)
    }
}

impl Linear {
    /// The weight, where there is nothing beside it.
    fn alone(&self) -> Option<&Tensor> {
        (self.bias.is_none() && self.low_rank.is_none()).then_some(&self.weight)
    }

    fn forward(&self, x: &Tensor, products: Products) -> Tensor {
        let projected = products.linear(x, &self.weight, self.bias.as_ref());
        match &self.low_rank {
            None => projected,
            Some(low_rank) => projected + low_rank.forward(x),
        }
    }
}

/// How products with weights are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Products {
    /// By libtorch. Training and scoring do so alike, so that a policy that has not moved gives the bits of its reference.
    Whole,
    /// Where rows are few, at the pace at which a weight is read. It has no gradient.
    Decoding,
}

impl Products {
    /// `x · weightᵀ + bias`.
    fn linear(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let is_narrow = self == Self::Decoding && x.size()[0] <= narrow_rows(weight.kind());
        match is_narrow.then(|| narrow_linear(x, weight)) {
            Some(Ok(product)) => match bias {
                Some(bias) => product + bias,
                None => product,
            },
            // Other devices and kinds are libtorch's.
            Some(Err(_)) | None => x.linear(weight, bias),
        }
    }
}

/// `silu(gate) · up`, in one pass where the shim has one.
fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    // Other devices, kinds and widths are libtorch's, here and below.
    torch_ext::swiglu(gate, up).unwrap_or_else(|_| gate.silu() * up)
}

impl Norm {
    /// Root-mean-square norm over the last dimension, in fp32 and rounded before the weight as in transformers.
    fn forward(&self, x: &Tensor) -> Tensor {
        torch_ext::rms_norm(x, &self.weight, self.eps).unwrap_or_else(|_| self.composed(x))
    }

    fn composed(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        if x.kind() == Kind::Float {
            return x.rms_norm(width, Some(&self.weight), self.eps);
        }
        let normed = x.to_kind(Kind::Float).rms_norm(width, None::<&Tensor>, self.eps);
        normed.to_kind(x.kind()) * &self.weight
    }
}
