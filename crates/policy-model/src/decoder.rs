//! The forward pass of all families.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use torch_ext::{AttentionBlock, GatedBlock, SharedPrefixRows, attention_block, gated_block};

use crate::attention::{AttentionBackend, ScoreRule};
use crate::config::ModelConfig;
use crate::dropout::AdapterDropout;
use crate::error::PolicyError;
use crate::feed_forward::{FeedForward, Input};
use crate::layer_source::Supply;
use crate::linear::{Linear, LinearKernel, LinearPass};
use crate::lora::Adapters;
use crate::norm::Norm;
use crate::rotary::{RotaryEmbedding, Rotation};
use crate::switches::{Block, FeedForward as FeedForwardKind, NormKind, QkNorm};

/// Why a weight is there.
const CHECKED: &str = "a policy checks that every weight is present";

/// A decoder, whose tensors are shared with the policy's parameter list.
#[derive(Debug)]
pub(crate) struct Decoder {
    embed_tokens: Tensor,
    /// Factor of the embeddings.
    embedding_scale: f64,
    /// The layers in memory; none if they are supplied.
    layers: Vec<Layer>,
    supplied: Option<SuppliedLayers>,
    norm: Norm,
    /// Factor of the hidden states before the head.
    logit_scale: f64,
    lm_head: Tensor,
    lm_head_bias: Option<Tensor>,
    logit_soft_cap: Option<f64>,
    rotary: RotaryEmbedding,
    /// Positions of the layers with a window, where they differ.
    local_rotary: Option<RotaryEmbedding>,
}

/// The supplied layers of a decoder.
#[derive(Debug)]
struct SuppliedLayers {
    supply: Supply,
    config: ModelConfig,
    adapters: Option<Adapters>,
}

impl SuppliedLayers {
    fn layer(&self, index: usize) -> Result<Layer, PolicyError> {
        let parameters = self.supply.parameters(index)?;
        Ok(Layer::new(&self.config, index, &parameters, self.adapters.as_ref()))
    }

    /// Returns the sliding window of the layers that have one.
    fn window(&self) -> Option<i64> {
        (0..self.config.layers).find_map(|index| self.config.window(index)).map(|window| window as i64)
    }
}

/// The rotations of one forward pass.
#[derive(Debug)]
pub(crate) struct Rotations {
    global: Rotation,
    local: Option<Rotation>,
}

#[derive(Debug)]
struct Layer {
    /// Norms before and after attention, before and after the feed-forward block.
    norms: [Option<Norm>; 4],
    self_attn: Attention,
    feed_forward: FeedForward,
    is_parallel: bool,
    /// Factor of what a block adds to the residual stream.
    residual_scale: f64,
    /// Whether norms and residuals are those of the fused kernels.
    may_fuse: bool,
}

#[derive(Debug)]
struct Attention {
    qkv: Qkv,
    o_proj: Linear,
    qk_norm: Option<[Norm; 2]>,
    /// Whether the norms are those of whole projections.
    norms_projections: bool,
    heads: [i64; 2],
    head_dim: i64,
    /// Factor of the queries, beyond the backends' `1/√head_dim`.
    query_scale: f64,
    rotates: bool,
    rule: ScoreRule,
}

#[derive(Debug)]
enum Qkv {
    Separate { q_proj: Linear, k_proj: Linear, v_proj: Linear },
    Fused(Linear),
}

/// Finds a model's tensors by name.
struct Modules<'a> {
    config: &'a ModelConfig,
    tensors: BTreeMap<&'a str, &'a Tensor>,
    adapters: Option<&'a Adapters>,
}

impl Modules<'_> {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        let given = self.tensors.get(name)?;
        match self.adapters.and_then(|adapters| adapters.replaced(name)) {
            // Another kind than that of the weights means a policy for saving, which needs no graph.
            Some(own) if own.kind() != given.kind() => Some(own.detach().to_kind(given.kind())),
            Some(own) => Some(own.shallow_clone()),
            None => Some(given.shallow_clone()),
        }
    }

    fn needed(&self, name: &str) -> Tensor {
        self.tensor(name).expect(CHECKED)
    }

    fn norm(&self, name: &str) -> Norm {
        Norm {
            weight: self.needed(&format!("{name}.weight")),
            bias: self.tensor(&format!("{name}.bias")),
            eps: self.config.norm_eps,
            kind: self.config.switches.norm,
        }
    }

    fn linear(&self, name: &str) -> Linear {
        Linear {
            weight: self.needed(&format!("{name}.weight")),
            bias: self.tensor(&format!("{name}.bias")),
            low_rank: self.adapters.and_then(|adapters| adapters.of(name)),
        }
    }

    fn layer(&self, index: usize) -> Layer {
        let switches = &self.config.switches;
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let linear = |name: &str| self.linear(&at(name));
        let input = match switches.feed_forward {
            FeedForwardKind::Gated => {
                Input::Gated { gate: linear("mlp.gate_proj"), up: linear(switches.names.up) }
            }
            FeedForwardKind::GatedFused => Input::GatedFused(linear("mlp.gate_up_proj")),
            FeedForwardKind::Plain => Input::Plain(linear(switches.names.up)),
        };
        Layer {
            norms: switches.layer_norms().map(|name| name.map(|name| self.norm(&at(name)))),
            self_attn: self.attention(index),
            feed_forward: FeedForward {
                input,
                down: linear(switches.names.down),
                activation: switches.activation,
            },
            is_parallel: switches.block == Block::Parallel,
            residual_scale: switches.scales.residual,
            may_fuse: switches.block == Block::PreNorm
                && switches.norm == NormKind::Rms
                && switches.scales.residual == 1.0,
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
            qk_norm: switches.qk_norm.names().map(|names| names.map(|name| self.norm(&at(name)))),
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
        let tensors = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let modules = Modules { config, tensors, adapters };
        let switches = &config.switches;
        let embed_tokens = modules.needed("model.embed_tokens.weight");
        let rotary = |rope| RotaryEmbedding::new(rope, config.head_dim, device);
        Self {
            embedding_scale: rounded(switches.scales.embedding, embed_tokens.kind()),
            embed_tokens,
            layers: match supply {
                Some(_) => Vec::new(),
                None => (0..config.layers).map(|index| modules.layer(index)).collect(),
            },
            supplied: supply.map(|supply| SuppliedLayers {
                supply: supply.clone(),
                config: config.clone(),
                adapters: adapters.map(Adapters::share),
            }),
            norm: modules.norm(switches.names.final_norm),
            logit_scale: switches.scales.logits,
            lm_head: modules.needed(if config.tie_word_embeddings {
                "model.embed_tokens.weight"
            } else {
                "lm_head.weight"
            }),
            lm_head_bias: modules.tensor("lm_head.bias"),
            logit_soft_cap: switches.logit_soft_cap,
            rotary: rotary(&config.rope),
            local_rotary: switches.local_rope.as_ref().map(rotary),
        }
    }

    /// Announces a forward pass to the source of the layers.
    pub(crate) fn begin_forward(&self) -> Result<(), PolicyError> {
        self.supplied.as_ref().map_or(Ok(()), |supplied| supplied.supply.source.begin_forward())
    }

    pub(crate) fn lm_head(&self) -> &Tensor {
        &self.lm_head
    }

    /// Returns the logits `[N, vocab_size]` of hidden states `[N, hidden]`.
    pub(crate) fn logits(&self, hidden: &Tensor) -> Tensor {
        self.capped(hidden.linear(&self.lm_head, self.lm_head_bias.as_ref()))
    }

    /// As [`Decoder::logits`], during decoding.
    pub(crate) fn decoded_logits(&self, hidden: &Tensor) -> Result<Tensor, PolicyError> {
        let bias = self.lm_head_bias.as_ref();
        Ok(self.capped(LinearKernel::Decoding.linear(hidden, &self.lm_head, bias)?))
    }

    fn capped(&self, logits: Tensor) -> Tensor {
        match self.logit_soft_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// Returns the sliding window of the layers that have one.
    pub(crate) fn window(&self) -> Option<i64> {
        let supplied = self.supplied.as_ref().and_then(SuppliedLayers::window);
        self.layers.iter().find_map(|layer| layer.self_attn.rule.window).or(supplied)
    }

    /// Returns the embeddings `[N, hidden]` of tokens `ids [N]`, unscaled.
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
        let rotations = self.rotations(positions, backend.is_decoding());
        let mut hidden = embedded.shallow_clone();
        self.begin_forward()?;
        for index in 0..self.layers() {
            hidden = self.layer(index, &hidden, &rotations, backend, selected)?;
        }
        self.norm(&hidden)
    }

    /// Returns the rotations of queries and keys at `positions` `[N]`.
    pub(crate) fn rotations(&self, positions: &Tensor, is_decoding: bool) -> Rotations {
        let at = |rotary: &RotaryEmbedding| rotary.at(positions, self.embed_tokens.kind(), is_decoding);
        Rotations { global: at(&self.rotary), local: self.local_rotary.as_ref().map(at) }
    }

    /// Applies layer `index` to hidden states `[N, hidden]`. The last layer returns the `selected` tokens only.
    ///
    /// After the last attention no token depends on another, so that the rest is computed for the selected tokens only: for a
    /// pair, those of its responses.
    pub(crate) fn layer(
        &self,
        index: usize,
        hidden: &Tensor,
        rotations: &Rotations,
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
        let scaled = (index == 0 && self.embedding_scale != 1.0).then(|| hidden * self.embedding_scale);
        let hidden = scaled.as_ref().unwrap_or(hidden);
        let kernel = if backend.is_decoding() { LinearKernel::Decoding } else { LinearKernel::Libtorch };
        let selected = selected.filter(|_| index + 1 == self.layers());
        let dropout = backend.dropout().cloned();
        let pass = Pass {
            index,
            rotation: layer.self_attn.rotation(rotations),
            kernel,
            selected,
            dropout_of_selected: dropout.as_ref().zip(selected).map(|(all, selected)| all.select(selected)),
            dropout,
        };
        if layer.is_parallel {
            return layer.parallel(hidden, &pass, backend);
        }
        let fused = match (
            pass.rotation.and_then(Rotation::tables),
            backend.shared_prefix_rows(layer.self_attn.rule),
        ) {
            (Some(tables), Some(rows)) => layer.fused_attention(hidden, tables, rows)?,
            _ => None,
        };
        let hidden = match fused {
            Some(hidden) => hidden,
            None => layer.attention(hidden, &pass, backend)?,
        };
        let hidden = pass.select(hidden);
        let fused = if kernel == LinearKernel::Libtorch { layer.fused_gated(&hidden)? } else { None };
        fused.map_or_else(|| layer.feed_forward(&hidden, pass.of_selected()), Ok)
    }

    /// Returns the number of layers.
    pub(crate) fn layers(&self) -> usize {
        self.supplied.as_ref().map_or(self.layers.len(), |supplied| supplied.config.layers)
    }

    /// Applies the final norm to hidden states `[N, hidden]`, and the scale of the logits.
    pub(crate) fn norm(&self, hidden: &Tensor) -> Result<Tensor, PolicyError> {
        let normed = self.norm.forward(hidden)?;
        Ok(if self.logit_scale == 1.0 { normed } else { normed * self.logit_scale })
    }
}

/// Returns the nearest number of this kind, in which transformers stores the scale of embeddings.
fn rounded(scale: f64, kind: Kind) -> f64 {
    if scale == 1.0 { 1.0 } else { Tensor::from(scale).to_kind(kind).double_value(&[]) }
}

/// What a layer needs besides the hidden states.
struct Pass<'a> {
    /// The index of the layer.
    index: usize,
    /// `None` without rotation.
    rotation: Option<&'a Rotation>,
    kernel: LinearKernel,
    /// The tokens whose results are needed after attention; `None` for all.
    selected: Option<&'a Tensor>,
    /// The dropout of adapters for all tokens, and for the selected ones.
    dropout: Option<AdapterDropout>,
    dropout_of_selected: Option<AdapterDropout>,
}

impl Pass<'_> {
    fn select(&self, x: Tensor) -> Tensor {
        match self.selected {
            Some(selected) => x.index_select(0, selected),
            None => x,
        }
    }

    /// Returns what products before the selection need.
    fn of_all(&self) -> LinearPass<'_> {
        LinearPass { kernel: self.kernel, dropout: self.dropout.as_ref() }
    }

    /// Returns what products after the selection need.
    fn of_selected(&self) -> LinearPass<'_> {
        LinearPass { dropout: self.dropout_of_selected.as_ref().or(self.dropout.as_ref()), ..self.of_all() }
    }
}

fn normed(norm: Option<&Norm>, x: Tensor) -> Result<Tensor, PolicyError> {
    norm.map_or(Ok(x.shallow_clone()), |norm| norm.forward(&x))
}

/// A layer is two residual blocks. Where a kernel supports it, a block is one autograd node instead of a dozen, bitwise identical
/// to the composed operations.
impl Layer {
    /// Creates layer `index` from its weights and the adapters.
    fn new(
        config: &ModelConfig,
        index: usize,
        parameters: &[(String, Tensor)],
        adapters: Option<&Adapters>,
    ) -> Self {
        let tensors = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        Modules { config, tensors, adapters }.layer(index)
    }

    fn attention(
        &self,
        hidden: &Tensor,
        pass: &Pass<'_>,
        backend: &mut dyn AttentionBackend,
    ) -> Result<Tensor, PolicyError> {
        let [before, after, ..] = &self.norms;
        let input = normed(before.as_ref(), hidden.shallow_clone())?;
        let attended = normed(after.as_ref(), self.self_attn.forward(&input, pass, backend)?)?;
        Ok(self.added(hidden, attended))
    }

    fn feed_forward(&self, hidden: &Tensor, pass: LinearPass<'_>) -> Result<Tensor, PolicyError> {
        let [.., before, after] = &self.norms;
        let input = normed(before.as_ref(), hidden.shallow_clone())?;
        let result = normed(after.as_ref(), self.feed_forward.forward(&input, pass)?)?;
        Ok(self.added(hidden, result))
    }

    /// Attention and the feed-forward block read the same normed states.
    fn parallel(
        &self,
        hidden: &Tensor,
        pass: &Pass<'_>,
        backend: &mut dyn AttentionBackend,
    ) -> Result<Tensor, PolicyError> {
        let input = normed(self.norms[0].as_ref(), hidden.shallow_clone())?;
        let attended = pass.select(self.self_attn.forward(&input, pass, backend)?);
        let result = self.feed_forward.forward(&pass.select(input), pass.of_selected())?;
        let hidden = self.added(&pass.select(hidden.shallow_clone()), attended);
        Ok(self.added(&hidden, result))
    }

    fn added(&self, hidden: &Tensor, block: Tensor) -> Tensor {
        if self.residual_scale == 1.0 { hidden + block } else { hidden + block * self.residual_scale }
    }

    /// Returns `None` where the fused kernel does not support the block: its norms, biases, adapters, devices, kinds, widths.
    fn fused_attention(
        &self,
        hidden: &Tensor,
        tables: (&Tensor, &Tensor),
        rows: &SharedPrefixRows,
    ) -> Result<Option<Tensor>, PolicyError> {
        let Attention {
            qkv: Qkv::Separate { q_proj, k_proj, v_proj },
            o_proj,
            qk_norm: None,
            query_scale,
            ..
        } = &self.self_attn
        else {
            return Ok(None);
        };
        let [Some(input_layernorm), ..] = &self.norms else { return Ok(None) };
        if !self.may_fuse || *query_scale != 1.0 {
            return Ok(None);
        }
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
            input_layernorm: &input_layernorm.weight,
            eps: input_layernorm.eps,
            q_proj: &q_proj.weight,
            k_proj: &k_proj.weight,
            v_proj: &v_proj.weight,
            o_proj,
            biases,
        };
        Ok(attention_block(hidden, &weights, tables, rows)?)
    }

    /// As [`Layer::fused_attention`].
    fn fused_gated(&self, hidden: &Tensor) -> Result<Option<Tensor>, PolicyError> {
        let (true, Some([gate_proj, up_proj, down_proj])) = (self.may_fuse, self.feed_forward.fusable())
        else {
            return Ok(None);
        };
        let [_, _, Some(norm), _] = &self.norms else { return Ok(None) };
        let weights = GatedBlock {
            post_attention_layernorm: &norm.weight,
            eps: norm.eps,
            gate_proj,
            up_proj,
            down_proj,
        };
        Ok(gated_block(hidden, &weights)?)
    }
}

impl Attention {
    /// Returns the rotation of this layer.
    fn rotation<'a>(&self, rotations: &'a Rotations) -> Option<&'a Rotation> {
        let local = rotations.local.as_ref().filter(|_| self.rule.window.is_some());
        self.rotates.then(|| local.unwrap_or(&rotations.global))
    }

    fn forward(
        &self,
        x: &Tensor,
        pass: &Pass<'_>,
        backend: &mut dyn AttentionBackend,
    ) -> Result<Tensor, PolicyError> {
        let (q, k, v) = self.heads(x, pass.of_all())?;
        let (q, k) = match pass.rotation {
            Some(rotation) => (rotation.rotate(&q)?, rotation.rotate(&k)?),
            None => (q, k),
        };
        let q = if self.query_scale == 1.0 { q } else { q * self.query_scale };
        self.o_proj.forward(&backend.attend(pass.index, self.rule, q, k, v)?, pass.of_all())
    }

    /// Returns normed queries and keys, and values: `[N, heads, head_dim]`.
    fn heads(&self, x: &Tensor, pass: LinearPass<'_>) -> Result<(Tensor, Tensor, Tensor), PolicyError> {
        let split = |x: Tensor| x.view([x.size()[0], -1, self.head_dim]);
        let norm = |which: usize, x: Tensor| match &self.qk_norm {
            None => Ok(split(x)),
            Some(norms) if self.norms_projections => norms[which].forward(&x).map(split),
            Some(norms) => norms[which].forward(&split(x)),
        };
        match &self.qkv {
            Qkv::Separate { q_proj, k_proj, v_proj } => {
                let (q, k) = (q_proj.forward(x, pass)?, k_proj.forward(x, pass)?);
                let (q, k) = (norm(0, q)?, norm(1, k)?);
                Ok((q, k, split(v_proj.forward(x, pass)?)))
            }
            Qkv::Fused(qkv_proj) => {
                let [q_width, kv_width] = self.heads.map(|heads| heads * self.head_dim);
                let parts = qkv_proj.forward(x, pass)?.split_with_sizes([q_width, kv_width, kv_width], -1);
                // Kernels read contiguous operands.
                let [q, k, v] = [0, 1, 2].map(|part: usize| parts[part].contiguous());
                Ok((norm(0, q)?, norm(1, k)?, split(v)))
            }
        }
    }
}
