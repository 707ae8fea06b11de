//! The forward pass of all families.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use torch_ext::{
    AttentionBlock, GatedBlock, SharedPrefixRows, attention_block, decode_linear, gated_block,
    max_decode_rows,
};

use crate::attention::AttentionBackend;
use crate::config::ModelConfig;
use crate::error::PolicyError;
use crate::layer_source::{SuppliedLayers, Supply};
use crate::lora::{Adapters, LowRank};
use crate::rope::{RotaryEmbedding, Rotation};

/// Why a weight is there.
const CHECKED: &str = "a policy checks that every weight is present";

/// A decoder, whose tensors are shared with the policy's parameter list.
#[derive(Debug)]
pub(crate) struct Decoder {
    embed_tokens: Tensor,
    /// The layers in memory; none if they are supplied.
    layers: Vec<Layer>,
    supplied: Option<SuppliedLayers>,
    norm: Norm,
    lm_head: Tensor,
    rotary: RotaryEmbedding,
}

#[derive(Debug)]
pub(crate) struct Layer {
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
    /// The sliding window, if any.
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
    /// Creates a decoder from all parameters of `config` and the adapters; `supply` supplies the layers, if `parameters` has
    /// none. The caller checks that no parameter is missing.
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: &[(String, Tensor)],
        adapters: Option<&Adapters>,
        supply: Option<&Supply>,
        device: Device,
    ) -> Self {
        let by_name: BTreeMap<&str, &Tensor> =
            parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let tensor = |name: &str| by_name.get(name).map(|tensor| tensor.shallow_clone());
        let needed = |name: &str| tensor(name).expect(CHECKED);
        let layers = match supply {
            Some(_) => Vec::new(),
            None => (0..config.layers).map(|index| Layer::new(config, index, tensor, adapters)).collect(),
        };
        let supplied = supply.map(|supply| SuppliedLayers {
            supply: supply.clone(),
            config: config.clone(),
            adapters: adapters.map(Adapters::share),
        });
        Self {
            embed_tokens: needed("model.embed_tokens.weight"),
            layers,
            supplied,
            norm: Norm { weight: needed("model.norm.weight"), eps: config.rms_norm_eps },
            lm_head: needed(if config.tie_word_embeddings {
                "model.embed_tokens.weight"
            } else {
                "lm_head.weight"
            }),
            rotary: RotaryEmbedding::new(&config.rope, config.head_dim, device),
        }
    }

    /// Announces a forward pass to the source of the layers.
    pub(crate) fn begin_forward(&self) -> Result<(), PolicyError> {
        self.supplied.as_ref().map_or(Ok(()), |supplied| supplied.supply.source.begin_forward())
    }

    pub(crate) fn lm_head(&self) -> &Tensor {
        &self.lm_head
    }

    /// Returns the logits `[N, vocab_size]` of hidden states `[N, hidden]` during decoding.
    pub(crate) fn decoded_logits(&self, hidden: &Tensor) -> Result<Tensor, PolicyError> {
        LinearKernel::Decoding.linear(hidden, &self.lm_head, None)
    }

    /// Returns the sliding window of the layers that have one.
    pub(crate) fn window(&self) -> Option<i64> {
        let supplied = self.supplied.as_ref().and_then(SuppliedLayers::window);
        self.layers.iter().find_map(|layer| layer.self_attn.window).or(supplied)
    }

    /// Returns the embeddings `[N, hidden]` of tokens `ids [N]`.
    pub(crate) fn embed(&self, ids: &Tensor) -> Tensor {
        self.embed_tokens.index_select(0, ids)
    }

    /// Returns the hidden states after the final norm, from embeddings `[N, hidden]` and positions `[N]`: `[M, hidden]` of the
    /// `selected` tokens `[M]`, or of all.
    ///
    /// All operations but attention are per token, so that only the `backend` knows the shapes of rows. Two-dimensional operands
    /// save libtorch a reshape, which matters where a layer takes microseconds.
    pub(crate) fn forward(
        &self,
        embedded: &Tensor,
        positions: &Tensor,
        backend: &mut dyn AttentionBackend,
        selected: Option<&Tensor>,
    ) -> Result<Tensor, PolicyError> {
        let rotation = self.rotation(positions);
        let mut hidden = embedded.shallow_clone();
        self.begin_forward()?;
        for index in 0..self.layers() {
            hidden = self.layer(index, &hidden, &rotation, backend, selected)?;
        }
        self.norm.forward(&hidden)
    }

    /// Returns the rotation of queries and keys at `positions` `[N]`.
    pub(crate) fn rotation(&self, positions: &Tensor) -> Rotation {
        self.rotary.at(positions, self.embed_tokens.kind())
    }

    /// Applies layer `index` to hidden states `[N, hidden]`. The last layer returns the `selected` tokens only.
    ///
    /// After the last attention no token depends on another, so that the rest is computed for the selected tokens only: for a
    /// pair, those of its responses.
    pub(crate) fn layer(
        &self,
        index: usize,
        hidden: &Tensor,
        rotation: &Rotation,
        backend: &mut dyn AttentionBackend,
        selected: Option<&Tensor>,
    ) -> Result<Tensor, PolicyError> {
        let supplied;
        let layer = match &self.supplied {
            None => &self.layers[index],
            Some(layers) => {
                supplied = layers.layer(index)?;
                &supplied
            }
        };
        let window = layer.self_attn.window;
        let kernel = if backend.is_decoding() { LinearKernel::Decoding } else { LinearKernel::Libtorch };
        let fused = match backend.shared_prefix_rows(window) {
            Some(rows) => layer.fused_attention(hidden, rotation, rows)?,
            None => None,
        };
        let hidden = match fused {
            Some(hidden) => hidden,
            None => layer
                .attention(hidden, rotation, kernel, &mut |q, k, v| backend.attend(index, window, q, k, v))?,
        };
        let hidden = match selected {
            Some(selected) if index + 1 == self.layers() => hidden.index_select(0, selected),
            _ => hidden,
        };
        let fused = if kernel == LinearKernel::Libtorch { layer.fused_gated(&hidden)? } else { None };
        fused.map_or_else(|| layer.gated(&hidden, kernel), Ok)
    }

    /// Returns the number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.supplied.as_ref().map_or(self.layers.len(), |supplied| supplied.config.layers)
    }

    /// Applies the final norm to hidden states `[N, hidden]`.
    pub(crate) fn norm(&self, hidden: &Tensor) -> Result<Tensor, PolicyError> {
        self.norm.forward(hidden)
    }
}

/// Attention of a layer's queries, keys and values, `[N, heads, head_dim]` each: `[N, heads · head_dim]`.
type Attend<'a> = &'a mut dyn FnMut(Tensor, Tensor, Tensor) -> Result<Tensor, PolicyError>;

/// A layer is two residual blocks. Where a kernel supports it, a block is one autograd node instead of a dozen, bitwise identical
/// to the composed operations.
impl Layer {
    /// Creates layer `index`; `tensor` finds its weights by name.
    pub(crate) fn new(
        config: &ModelConfig,
        index: usize,
        tensor: impl Fn(&str) -> Option<Tensor>,
        adapters: Option<&Adapters>,
    ) -> Self {
        let needed = |name: &str| tensor(name).expect(CHECKED);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let norm =
            |name: &str| Norm { weight: needed(&at(&format!("{name}.weight"))), eps: config.rms_norm_eps };
        let linear = |name: &str| Linear {
            weight: needed(&at(&format!("{name}.weight"))),
            bias: tensor(&at(&format!("{name}.bias"))),
            low_rank: adapters.and_then(|adapters| adapters.of(&at(name))),
        };
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: Attention {
                q_proj: linear("self_attn.q_proj"),
                k_proj: linear("self_attn.k_proj"),
                v_proj: linear("self_attn.v_proj"),
                o_proj: linear("self_attn.o_proj"),
                qk_norm: config.qk_norm.then(|| (norm("self_attn.q_norm"), norm("self_attn.k_norm"))),
                head_dim: config.head_dim as i64,
                window: config.window(index).map(|window| window as i64),
            },
            post_attention_layernorm: norm("post_attention_layernorm"),
            gate_proj: linear("mlp.gate_proj"),
            up_proj: linear("mlp.up_proj"),
            down_proj: linear("mlp.down_proj"),
        }
    }

    fn attention(
        &self,
        hidden: &Tensor,
        rotation: &Rotation,
        kernel: LinearKernel,
        attend: Attend<'_>,
    ) -> Result<Tensor, PolicyError> {
        let normed = self.input_layernorm.forward(hidden)?;
        Ok(hidden + self.self_attn.forward(&normed, rotation, kernel, attend)?)
    }

    /// Returns `None` where the fused kernel does not support the block: norms of heads, adapters, devices, kinds, widths.
    fn fused_attention(
        &self,
        hidden: &Tensor,
        rotation: &Rotation,
        rows: &SharedPrefixRows,
    ) -> Result<Option<Tensor>, PolicyError> {
        let Attention { q_proj, k_proj, v_proj, o_proj, qk_norm: None, .. } = &self.self_attn else {
            return Ok(None);
        };
        let Some(o_proj) = o_proj.plain_weight() else { return Ok(None) };
        let biases = match [q_proj, k_proj, v_proj].map(|projection| projection.bias.as_ref()) {
            [None, None, None] => None,
            [Some(q), Some(k), Some(v)] => Some([q, k, v]),
            _ => return Ok(None),
        };
        if [q_proj, k_proj, v_proj].iter().any(|projection| projection.low_rank.is_some()) {
            return Ok(None);
        }
        let weights = AttentionBlock {
            input_layernorm: &self.input_layernorm.weight,
            eps: self.input_layernorm.eps,
            q_proj: &q_proj.weight,
            k_proj: &k_proj.weight,
            v_proj: &v_proj.weight,
            o_proj,
            biases,
        };
        Ok(attention_block(hidden, &weights, rotation.tables(), rows)?)
    }

    fn gated(&self, hidden: &Tensor, kernel: LinearKernel) -> Result<Tensor, PolicyError> {
        let normed = self.post_attention_layernorm.forward(hidden)?;
        let gate = self.gate_proj.forward(&normed, kernel)?;
        let gated = swiglu(&gate, &self.up_proj.forward(&normed, kernel)?)?;
        Ok(hidden + self.down_proj.forward(&gated, kernel)?)
    }

    /// As [`Layer::fused_attention`].
    fn fused_gated(&self, hidden: &Tensor) -> Result<Option<Tensor>, PolicyError> {
        let projections = [&self.gate_proj, &self.up_proj, &self.down_proj].map(Linear::plain_weight);
        let [Some(gate_proj), Some(up_proj), Some(down_proj)] = projections else { return Ok(None) };
        let weights = GatedBlock {
            post_attention_layernorm: &self.post_attention_layernorm.weight,
            eps: self.post_attention_layernorm.eps,
            gate_proj,
            up_proj,
            down_proj,
        };
        Ok(gated_block(hidden, &weights)?)
    }
}

impl Attention {
    fn forward(
        &self,
        x: &Tensor,
        rotation: &Rotation,
        kernel: LinearKernel,
        attend: Attend<'_>,
    ) -> Result<Tensor, PolicyError> {
        let heads = |projection: &Linear| {
            Ok::<_, PolicyError>(projection.forward(x, kernel)?.view([x.size()[0], -1, self.head_dim]))
        };
        let (mut q, mut k) = (heads(&self.q_proj)?, heads(&self.k_proj)?);
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q)?, k_norm.forward(&k)?);
        }
        let v = heads(&self.v_proj)?;
        self.o_proj.forward(&attend(rotation.rotate(&q)?, rotation.rotate(&k)?, v)?, kernel)
    }
}

impl Linear {
    /// Returns the weight if there is neither a bias nor an adapter.
    fn plain_weight(&self) -> Option<&Tensor> {
        (self.bias.is_none() && self.low_rank.is_none()).then_some(&self.weight)
    }

    fn forward(&self, x: &Tensor, kernel: LinearKernel) -> Result<Tensor, PolicyError> {
        let projected = kernel.linear(x, &self.weight, self.bias.as_ref())?;
        Ok(match &self.low_rank {
            None => projected,
            Some(low_rank) => projected + low_rank.forward(x),
        })
    }
}

/// The kernel of products with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinearKernel {
    /// libtorch's, in training and scoring alike, so that an unchanged policy is bitwise equal to its reference.
    Libtorch,
    /// For few rows, at memory bandwidth and without a gradient; libtorch's for more rows.
    Decoding,
}

impl LinearKernel {
    /// `x · weightᵀ + bias`.
    fn linear(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, PolicyError> {
        if self == Self::Decoding
            && x.size()[0] <= max_decode_rows(weight.kind())
            && let Some(product) = decode_linear(x, weight)?
        {
            return Ok(match bias {
                Some(bias) => product + bias,
                None => product,
            });
        }
        Ok(x.linear(weight, bias))
    }
}

/// `silu(gate) · up`, in one pass where a kernel supports it.
fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor, PolicyError> {
    Ok(torch_ext::swiglu(gate, up)?.unwrap_or_else(|| gate.silu() * up))
}

impl Norm {
    /// Root-mean-square norm over the last dimension, in fp32, rounded before the product with the weight as in transformers.
    fn forward(&self, x: &Tensor) -> Result<Tensor, PolicyError> {
        Ok(torch_ext::rms_norm(x, &self.weight, self.eps)?.unwrap_or_else(|| self.composed(x)))
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
