//! The forward pass of all families.

use tch::{Device, Kind, Tensor};

use crate::attention::AttentionBackend;
use crate::config::ModelConfig;
use crate::error::PolicyError;
use crate::layer::{Layer, Mlp, Pass, Rotations};
use crate::layer_source::Supply;
use crate::linear::LinearKernel;
use crate::lora::Adapters;
use crate::modules::Modules;
use crate::norm::Norm;
use crate::rotary::{RotaryEmbedding, Rotation};
use crate::switches::QueryGrowth;

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
    query_growth: Option<QueryGrowth>,
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
        Ok(Modules::new(&self.config, &parameters, self.adapters.as_ref()).layer(index))
    }

    /// Returns the sliding window of the layers that have one.
    fn window(&self) -> Option<i64> {
        (0..self.config.layers).find_map(|index| self.config.window(index)).map(|window| window as i64)
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
        let modules = Modules::new(config, parameters, adapters);
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
            query_growth: switches.query_growth,
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
        let query_scale = self.query_growth.and_then(|growth| growth.at(positions, self.embed_tokens.kind()));
        Rotations { global: at(&self.rotary), local: self.local_rotary.as_ref().map(at), query_scale }
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
            query_scale: rotations.query_scale.as_ref(),
            kernel,
            selected,
            dropout_of_selected: dropout.as_ref().zip(selected).map(|(all, selected)| all.select(selected)),
            dropout,
            // A router is recorded for all tokens, so that the last layer selects after its experts.
            routing: backend.routing().filter(|_| matches!(layer.feed_forward, Mlp::Experts(_))).cloned(),
        };
        if layer.is_parallel {
            return layer.parallel(hidden, &pass, backend);
        }
        let fused = match (
            pass.rotation.and_then(Rotation::tables),
            backend.shared_prefix_rows(layer.self_attn.rule),
        ) {
            (Some(tables), Some(rows)) if pass.query_scale.is_none() => {
                layer.fused_attention(hidden, tables, rows)?
            }
            _ => None,
        };
        let hidden = match fused {
            Some(hidden) => hidden,
            None => layer.attention(hidden, &pass, backend)?,
        };
        if pass.routing.is_some() {
            return Ok(pass.select(layer.feed_forward(&hidden, pass.of_all())?));
        }
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

impl QueryGrowth {
    /// Returns the factors at `positions` `[N]`; `None` if all are 1.
    fn at(self, positions: &Tensor, kind: Kind) -> Option<Tensor> {
        let Self { beta, context } = self;
        if positions.numel() == 0 || positions.max().double_value(&[]) < context {
            return None;
        }
        let contexts = (positions.to_kind(Kind::Float) / context).floor();
        Some((contexts.log1p() * beta + 1.0).to_kind(kind).unsqueeze(-1).unsqueeze(-1))
    }
}

/// Returns the nearest number of this kind, in which transformers stores the scale of embeddings.
fn rounded(scale: f64, kind: Kind) -> f64 {
    if scale == 1.0 { 1.0 } else { Tensor::from(scale).to_kind(kind).double_value(&[]) }
}
