//! The forward pass of all families.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::ModelConfig;
use crate::rope::{RotaryEmbedding, Rotation};

/// Token rows of one forward pass.
#[derive(Debug)]
pub struct Rows {
    /// `[B, T]` i64: token ids, each below the vocabulary's size.
    pub ids: Tensor,
    /// `[B, T]` i64: position of each token in its own sequence.
    pub positions: Tensor,
    /// Which tokens see which.
    pub visible: Visibility,
}

/// Which tokens of a row see which. A token always sees itself, and never a later column.
#[derive(Debug)]
pub enum Visibility {
    /// Every token sees all earlier columns of its row; padding belongs on the right.
    Causal,
    /// `[B, T]` i64 branch of each token. A token sees the earlier columns of branch 0 and of its own branch: rows
    /// `[prompt | chosen | rejected]` with branches 0, 1, 2 and positions that start over after the prompt compute
    /// both sequences exactly, the prompt once. Padding takes any branch from 1 on, at the end of the row.
    Branches(Tensor),
}

impl Rows {
    /// Causal rows of several sequences, filled up with id 0 on the right. Positions count from 0 in each row.
    pub fn causal(sequences: &[&[u32]], device: Device) -> Self {
        let width = sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let padded = sequences.iter().flat_map(|sequence| {
            let ids = sequence.iter().map(|&id| i64::from(id));
            ids.chain(std::iter::repeat_n(0, width - sequence.len()))
        });
        let shape = [sequences.len() as i64, width as i64];
        let ids = Tensor::from_slice(&padded.collect::<Vec<i64>>()).view(shape).to_device(device);
        let positions = Tensor::arange(width as i64, (Kind::Int64, device)).expand(shape, true);
        Self { ids, positions, visible: Visibility::Causal }
    }
}

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
    /// Index into [`Masks`]: layers with the same window share a mask.
    window: Option<i64>,
}

#[derive(Debug)]
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    eps: f64,
}

/// Keys and values of every layer for the sequences that are being generated.
pub(crate) trait KeyValues {
    /// Stores the new keys and values `[B, kv_heads, T, head_dim]` of layer `layer` and returns all so far.
    fn extend(&mut self, layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor);
}

/// Without generation there is nothing before the row.
pub(crate) struct NoCache;

impl KeyValues for NoCache {
    fn extend(&mut self, _layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
        (keys, values)
    }
}

/// What a layer's attention hides.
#[derive(Debug)]
pub(crate) enum Mask {
    /// Nothing: one query that sees everything.
    None,
    /// Later columns.
    Causal,
    /// `[B, 1, T, S]` bool, true where a query sees a key.
    Explicit(Tensor),
}

/// One mask for each distinct window of the model's layers.
pub(crate) struct Masks {
    pub(crate) full: Mask,
    pub(crate) sliding: Option<Mask>,
}

impl Decoder {
    /// Takes all parameters of `config` by name; the caller has checked that they are there.
    pub(crate) fn new(config: &ModelConfig, parameters: &[(String, Tensor)], device: Device) -> Self {
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

    /// The widest mask question that the layers ask: their sliding window, if any has one.
    pub(crate) fn window(&self) -> Option<i64> {
        self.layers.iter().find_map(|layer| layer.self_attn.window)
    }

    /// Hidden states `[B, T, hidden]` after the final norm.
    ///
    /// Linear layers see `[B·T, hidden]`: on two-dimensional operands libtorch needs no reshaping of its own, which
    /// counts where a layer takes microseconds.
    pub(crate) fn forward(
        &self,
        ids: &Tensor,
        positions: &Tensor,
        masks: &Masks,
        cache: &mut impl KeyValues,
    ) -> Tensor {
        let shape = ids.size();
        let rotation = self.rotary.at(positions, self.embed_tokens.kind());
        let mut hidden = self.embed_tokens.index_select(0, &ids.reshape(-1));
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(&hidden, &shape, &rotation, masks, &mut |keys, values| {
                cache.extend(index, keys, values)
            });
        }
        self.norm.forward(&hidden).view([shape[0], shape[1], -1])
    }
}

impl Layer {
    fn forward(
        &self,
        hidden: &Tensor,
        shape: &[i64],
        rotation: &Rotation,
        masks: &Masks,
        extend: &mut dyn FnMut(Tensor, Tensor) -> (Tensor, Tensor),
    ) -> Tensor {
        let attended =
            self.self_attn.forward(&self.input_layernorm.forward(hidden), shape, rotation, masks, extend);
        let hidden = hidden + attended;
        let normed = self.post_attention_layernorm.forward(&hidden);
        let gated = self.gate_proj.forward(&normed).silu() * self.up_proj.forward(&normed);
        hidden + self.down_proj.forward(&gated)
    }
}

impl Attention {
    fn forward(
        &self,
        x: &Tensor,
        shape: &[i64],
        rotation: &Rotation,
        masks: &Masks,
        extend: &mut dyn FnMut(Tensor, Tensor) -> (Tensor, Tensor),
    ) -> Tensor {
        let heads = |projected: Tensor| projected.view([shape[0], shape[1], -1, self.head_dim]);
        let (mut q, mut k) = (heads(self.q_proj.forward(x)), heads(self.k_proj.forward(x)));
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q), k_norm.forward(&k));
        }
        let q = rotation.turn(&q).transpose(1, 2);
        let k = rotation.turn(&k).transpose(1, 2);
        let v = heads(self.v_proj.forward(x)).transpose(1, 2);
        let (k, v) = extend(k, v);
        let mask = masks.of(self.window);
        let attended = if shape[1] == 1 { attend_one(&q, &k, &v, mask) } else { attend(&q, &k, &v, mask) };
        self.o_proj.forward(&attended.transpose(1, 2).reshape([shape[0] * shape[1], -1]))
    }
}

/// Attention of whole rows; all operands `[B, heads, T, head_dim]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Tensor {
    let (mask, causal) = match mask {
        Mask::None => (None, false),
        Mask::Causal => (None, true),
        Mask::Explicit(mask) => (Some(mask), false),
    };
    let grouped = q.size()[1] != k.size()[1];
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, grouped)
}

/// Attention of one query `[B, heads, 1, head_dim]` over all keys: two plain products, with the heads of a group as
/// the rows of one. libtorch's fused kernel is made for many queries and takes twice as long here.
fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Tensor {
    let (q_shape, k_shape) = (q.size(), k.size());
    let (heads, head_dim, kv_heads) = (q_shape[1], q_shape[3], k_shape[1]);
    let grouped =
        (q * (head_dim as f64).powf(-0.5)).reshape([q_shape[0], kv_heads, heads / kv_heads, head_dim]);
    let mut scores = grouped.matmul(&k.transpose(2, 3));
    if let Mask::Explicit(seen) = mask {
        scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY);
    }
    scores.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(v).view(q_shape.as_slice())
}

impl Masks {
    fn of(&self, window: Option<i64>) -> &Mask {
        match (window, &self.sliding) {
            (Some(_), Some(mask)) => mask,
            _ => &self.full,
        }
    }

    /// The masks of rows that are computed whole.
    pub(crate) fn of_rows(rows: &Rows, window: Option<i64>) -> Self {
        let (length, device) = (rows.ids.size()[1], rows.ids.device());
        // Columns are at least as far apart as positions, so a row within the window needs no mask of its own.
        let window = window.filter(|&window| length > window);
        if window.is_none() && matches!(rows.visible, Visibility::Causal) {
            return Self { full: Mask::Causal, sliding: None };
        }
        let column = Tensor::arange(length, (Kind::Int64, device));
        let earlier = column.unsqueeze(-1).ge_tensor(&column);
        let (full, base) = match &rows.visible {
            Visibility::Causal => (Mask::Causal, earlier.unsqueeze(0)),
            Visibility::Branches(branches) => {
                let of_key = branches.unsqueeze(1);
                let shared = of_key.eq(0);
                let seen =
                    branches.unsqueeze(-1).eq_tensor(&of_key).logical_or(&shared).logical_and(&earlier);
                (Mask::Explicit(seen.unsqueeze(1)), seen)
            }
        };
        let sliding = window.map(|window| {
            let distance = rows.positions.unsqueeze(-1) - rows.positions.unsqueeze(1);
            Mask::Explicit(distance.lt(window).logical_and(&base).unsqueeze(1))
        });
        Self { full, sliding }
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }
}

impl Norm {
    /// Root-mean-square norm over the last dimension, in fp32 and rounded before the weight as in transformers.
    fn forward(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        if x.kind() == Kind::Float {
            return x.rms_norm(width, Some(&self.weight), self.eps);
        }
        let normed = x.to_kind(Kind::Float).rms_norm(width, None::<&Tensor>, self.eps);
        normed.to_kind(x.kind()) * &self.weight
    }
}
