//! The families, and the switches that each of them sets.

use serde_json::Value;

use crate::error::PolicyError;
use crate::fields::Fields;
use crate::rope::{Rope, RopeRules};
use crate::switches::{Activation, Biases, Block, FeedForward, Names, NormKind, QkNorm, Switches};

/// A family of decoder-only architectures. All have rotary positions and grouped-query attention; the comments name what differs
/// from Llama: norms before attention and before a feed-forward block that is gated by `SiLU`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Llama 1–3 and models of their layout (`SmolLM2`, `TinyLlama`, …).
    Llama,
    /// Mistral 7B: every layer may have a sliding window.
    Mistral,
    /// Ministral: some layers have a sliding window.
    Ministral,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMS norms on each query and key head.
    Qwen3,
    /// Phi-3, Phi-3.5 and Phi-4: fused projections, `LongRoPE`, partial rotation.
    Phi3,
    /// Phi-1 to Phi-2: layer norms, parallel blocks, biases, partial rotation, no gate.
    Phi,
    /// `OLMo` 2: norms after the blocks, norms of the whole query and key projections.
    Olmo2,
    /// `OLMo` 3: as `OLMo` 2, with sliding windows and positions by the kind of layer.
    Olmo3,
    /// `SmolLM3`: some layers without rotation.
    SmolLm3,
    /// Granite 3: scales of embeddings, attention, residuals and logits.
    Granite,
    /// Gemma: scaled embeddings, norms with weight plus one, GELU.
    Gemma,
    /// Gemma 2: as Gemma, with norms before and after the blocks, soft caps, and alternating windows.
    Gemma2,
    /// Gemma 3 for text: norms of heads instead of soft caps, positions by the kind of layer.
    Gemma3,
    /// Command R: layer norms without biases, parallel blocks, interleaved rotation, scaled logits.
    Cohere,
    /// Command R7B: as Command R, with windows; layers with full attention have no rotation.
    Cohere2,
    /// `StarCoder2`: layer norms, biases, no gate.
    Starcoder2,
    /// `StableLM`: layer norms, partial rotation.
    StableLm,
}

/// A family's names and the defaults of its class in transformers.
struct Row {
    family: Family,
    model_type: &'static str,
    architecture: &'static str,
    /// `tie_word_embeddings`
    tied: bool,
    /// Width of a head if the file has none; `None` divides the width of the model by its heads.
    head_dim: Option<usize>,
    /// Key and value heads if the file has none; `None` is the number of heads.
    kv_heads: Option<usize>,
    /// The key of the norms' epsilon, and its default.
    norm_eps: (&'static str, f64),
    theta: f64,
}

const RMS: (&str, f64) = ("rms_norm_eps", 1e-6);
const RMS_5: (&str, f64) = ("rms_norm_eps", 1e-5);
const LAYER: (&str, f64) = ("layer_norm_eps", 1e-5);

#[rustfmt::skip]
const ROWS: [Row; 18] = {
    const fn row(
        family: Family, model_type: &'static str, architecture: &'static str, norm_eps: (&'static str, f64),
    ) -> Row {
        Row { family, model_type, architecture, tied: false, head_dim: None, kv_heads: None, norm_eps, theta: 10_000.0 }
    }
    [
        row(Family::Llama, "llama", "LlamaForCausalLM", RMS),
        row(Family::Mistral, "mistral", "MistralForCausalLM", RMS),
        Row { kv_heads: Some(8), ..row(Family::Ministral, "ministral", "MinistralForCausalLM", RMS) },
        row(Family::Qwen2, "qwen2", "Qwen2ForCausalLM", RMS),
        Row { head_dim: Some(128), ..row(Family::Qwen3, "qwen3", "Qwen3ForCausalLM", RMS) },
        row(Family::Phi3, "phi3", "Phi3ForCausalLM", RMS_5),
        row(Family::Phi, "phi", "PhiForCausalLM", LAYER),
        row(Family::Olmo2, "olmo2", "Olmo2ForCausalLM", RMS_5),
        Row { theta: 500_000.0, ..row(Family::Olmo3, "olmo3", "Olmo3ForCausalLM", RMS_5) },
        Row { tied: true, kv_heads: Some(4), ..row(Family::SmolLm3, "smollm3", "SmolLM3ForCausalLM", RMS) },
        row(Family::Granite, "granite", "GraniteForCausalLM", RMS),
        Row { tied: true, head_dim: Some(256), kv_heads: Some(16), ..row(Family::Gemma, "gemma", "GemmaForCausalLM", RMS) },
        Row { tied: true, head_dim: Some(256), kv_heads: Some(4), ..row(Family::Gemma2, "gemma2", "Gemma2ForCausalLM", RMS) },
        Row {
            tied: true, head_dim: Some(256), kv_heads: Some(4), theta: 1_000_000.0,
            ..row(Family::Gemma3, "gemma3_text", "Gemma3ForCausalLM", RMS)
        },
        Row { tied: true, theta: 500_000.0, ..row(Family::Cohere, "cohere", "CohereForCausalLM", LAYER) },
        Row { tied: true, ..row(Family::Cohere2, "cohere2", "Cohere2ForCausalLM", LAYER) },
        Row {
            tied: true, kv_heads: Some(2),
            ..row(Family::Starcoder2, "starcoder2", "Starcoder2ForCausalLM", ("norm_epsilon", 1e-5))
        },
        Row { kv_heads: Some(32), ..row(Family::StableLm, "stablelm", "StableLmForCausalLM", LAYER) },
    ]
};

impl Family {
    /// All families, in the order of error messages.
    pub const ALL: [Self; 18] = {
        let mut all = [Self::Llama; 18];
        let mut at = 0;
        while at < all.len() {
            all[at] = ROWS[at].family;
            at += 1;
        }
        all
    };

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.family == self).expect("every family has a row")
    }

    /// Returns its `model_type`.
    pub fn model_type(self) -> &'static str {
        self.row().model_type
    }

    /// Returns the name of its class in transformers.
    pub fn architecture(self) -> &'static str {
        self.row().architecture
    }

    /// Reads `model_type`. A Mistral with `layer_types` is Ministral, as for transformers.
    pub(crate) fn parse(fields: &Fields<'_>) -> Result<Self, PolicyError> {
        let found = fields.get("model_type").ok_or_else(|| fields.missing("model_type"))?;
        let family = ROWS.iter().find(|row| found.as_str() == Some(row.model_type)).map(|row| row.family);
        match family {
            Some(Self::Mistral) if fields.get("layer_types").is_some() => {
                tracing::warn!(path = %fields.path.display(), "a `mistral` with `layer_types` is read as `ministral`");
                Ok(Self::Ministral)
            }
            Some(family) => Ok(family),
            None => {
                let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                let known = Self::ALL.map(Self::model_type).join(", ");
                let hint = unknown_hint(&found);
                Err(PolicyError::UnknownFamily { path: fields.path.to_owned(), found, known, hint })
            }
        }
    }

    /// Reads the sizes whose defaults depend on the family: key and value heads, and the width of a head.
    pub(crate) fn heads(
        self,
        fields: &Fields<'_>,
        hidden: usize,
        heads: usize,
    ) -> Result<(usize, usize), PolicyError> {
        let row = self.row();
        let kv_heads = fields.positive_or("num_key_value_heads", row.kv_heads.unwrap_or(heads))?;
        let head_dim = match self {
            Self::Cohere2 | Self::StableLm => hidden / heads,
            _ => fields.positive_or("head_dim", row.head_dim.unwrap_or(hidden / heads).max(1))?,
        };
        Ok((kv_heads, head_dim))
    }

    pub(crate) fn tied(self, fields: &Fields<'_>) -> Result<bool, PolicyError> {
        fields.flag_or("tie_word_embeddings", self.row().tied)
    }

    pub(crate) fn norm_eps(self, fields: &Fields<'_>) -> Result<f64, PolicyError> {
        let (key, default) = self.row().norm_eps;
        fields.number_or(key, default)
    }

    /// Reads the positions; the second are those of layers with a sliding window, where they differ.
    pub(crate) fn rope(
        self,
        fields: &Fields<'_>,
        (head_dim, max_positions): (usize, usize),
    ) -> Result<(Rope, Option<Rope>), PolicyError> {
        let rules = RopeRules {
            head_dim,
            max_positions,
            theta: self.row().theta,
            partial: match self {
                Self::Phi3 => Some(1.0),
                Self::Phi => Some(0.5),
                Self::StableLm => Some(0.25),
                _ => None,
            },
            interleaved: matches!(self, Self::Cohere | Self::Cohere2),
            is_phi3: self == Self::Phi3,
        };
        let by_kind =
            |local| Rope::parse_by_kind(fields, &rules, local).map(|(rope, local)| (rope, Some(local)));
        match self {
            Self::Gemma3 => by_kind(("rope_local_base_freq", 10_000.0)),
            Self::Olmo3 => by_kind(("rope_theta", 500_000.0)),
            _ => Ok((Rope::parse(fields, &rules)?, None)),
        }
    }

    /// Reads the sliding window in positions: an absent key has the default of the class, an explicit null switches it off.
    pub(crate) fn window(self, fields: &Fields<'_>) -> Result<Option<usize>, PolicyError> {
        let default = match self {
            Self::Qwen2 | Self::Qwen3 | Self::SmolLm3 if !fields.flag("use_sliding_window")? => {
                return Ok(None);
            }
            Self::Mistral | Self::Ministral | Self::Qwen2 | Self::Qwen3 => 4096,
            Self::Olmo3 | Self::Gemma2 | Self::Gemma3 | Self::Cohere2 => 4096,
            Self::Phi3 | Self::Starcoder2 | Self::SmolLm3 => 0,
            _ => return Ok(None),
        };
        match fields.positive_or("sliding_window", default)? {
            _ if default > 0
                && fields.get("sliding_window").is_none()
                && fields.raw.contains_key("sliding_window") =>
            {
                Ok(None)
            }
            0 => Ok(None),
            window => Ok(Some(window)),
        }
    }

    /// Reads the switches of a model of this family with so many layers of this width.
    pub(crate) fn switches(
        self,
        fields: &Fields<'_>,
        layers: usize,
        hidden: usize,
    ) -> Result<Switches, PolicyError> {
        let mut to = Switches::new(layers);
        let bias = fields.flag("attention_bias")?;
        match self {
            Self::Llama => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                to.biases.feed_forward = fields.flag("mlp_bias")?;
            }
            Self::Mistral => to.layers.iter_mut().for_each(|layer| layer.slides = true),
            Self::Ministral => windows(&mut to, fields, |_| true)?,
            Self::Qwen2 => {
                to.biases.qkv = true;
                qwen_windows(&mut to, fields)?;
            }
            Self::Qwen3 => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                to.qk_norm = QkNorm::Head;
                qwen_windows(&mut to, fields)?;
            }
            Self::Phi3 => phi3(&mut to),
            Self::Phi => phi(&mut to, fields)?,
            Self::Olmo2 | Self::Olmo3 => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                (to.norm, to.block) = (NormKind::RmsRoundedLast, Block::PostNorm);
                to.qk_norm = QkNorm::Projection;
                if self == Self::Olmo3 {
                    windows(&mut to, fields, |layer| (layer + 1) % 4 != 0)?;
                }
            }
            Self::SmolLm3 => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                to.biases.feed_forward = fields.flag("mlp_bias")?;
                smollm3(&mut to, fields)?;
            }
            Self::Granite => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                to.biases.feed_forward = fields.flag("mlp_bias")?;
                to.scales.embedding = fields.scale_or("embedding_multiplier", 1.0)?;
                to.scales.residual = fields.scale_or("residual_multiplier", 1.0)?;
                to.scales.attention = Some(fields.scale_or("attention_multiplier", 1.0)?);
                to.scales.logits = fields.scale_or("logits_scaling", 1.0)?.recip();
            }
            Self::Gemma | Self::Gemma2 | Self::Gemma3 => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                self.gemma(&mut to, fields, hidden)?;
            }
            Self::Cohere | Self::Cohere2 => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                (to.norm, to.block) = (NormKind::LayerWithoutBias, Block::Parallel);
                to.scales.logits = fields.scale_or("logit_scale", 0.0625)?;
                if self == Self::Cohere2 {
                    let every = fields.positive_or("sliding_window_pattern", 4)?;
                    windows(&mut to, fields, |layer| !(layer + 1).is_multiple_of(every))?;
                    to.layers.iter_mut().for_each(|layer| layer.rotates = layer.slides);
                } else if fields.flag("use_qk_norm")? {
                    to.qk_norm = QkNorm::EachHead;
                }
            }
            Self::Starcoder2 => {
                let bias = fields.flag_or("use_bias", true)?;
                to.biases = Biases { qkv: bias, output: bias, feed_forward: bias, lm_head: false };
                (to.norm, to.feed_forward) = (NormKind::Layer, FeedForward::Plain);
                to.activation = Activation::GeluTanh;
                to.names = Names { up: "mlp.c_fc", down: "mlp.c_proj", ..to.names };
                to.layers.iter_mut().for_each(|layer| layer.slides = true);
            }
            Self::StableLm => {
                fields.unchanged("qk_layernorm", |value| value == false, "false")?;
                to.norm = NormKind::Layer;
                to.biases.qkv = fields.flag("use_qkv_bias")?;
                if fields.flag("use_parallel_residual")? {
                    to.block = Block::Parallel;
                }
            }
        }
        self.activation(&mut to, fields)?;
        Ok(to)
    }

    fn gemma(self, to: &mut Switches, fields: &Fields<'_>, hidden: usize) -> Result<(), PolicyError> {
        let is_causal = |value: &Value| value == false;
        fields.unchanged("use_bidirectional_attention", is_causal, "false")?;
        (to.norm, to.activation) = (NormKind::RmsOnePlus, Activation::GeluTanh);
        to.scales.embedding = (hidden as f64).sqrt();
        if self == Self::Gemma {
            return Ok(());
        }
        to.block = Block::PreAndPostNorm;
        to.scales.attention = Some(fields.scale_or("query_pre_attn_scalar", 256.0)?.sqrt().recip());
        let caps = if self == Self::Gemma2 { [Some(50.0), Some(30.0)] } else { [None, None] };
        to.attention_soft_cap = fields.soft_cap("attn_logit_softcapping", caps[0])?;
        to.logit_soft_cap = fields.soft_cap("final_logit_softcapping", caps[1])?;
        if self == Self::Gemma2 {
            return windows(to, fields, |layer| layer.is_multiple_of(2));
        }
        to.qk_norm = QkNorm::Head;
        let every = fields.positive_or("sliding_window_pattern", 6)?;
        windows(to, fields, |layer| !(layer + 1).is_multiple_of(every))
    }

    /// Reads the activation, whose default is that of the switches.
    fn activation(self, to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
        let key =
            if matches!(self, Self::Gemma2 | Self::Gemma3) { "hidden_activation" } else { "hidden_act" };
        let Some(found) = fields.get(key) else { return Ok(()) };
        let known = Activation::NAMES.iter().find(|(name, _)| found == name);
        let (_, activation) = known.ok_or_else(|| {
            let names: Vec<String> =
                Activation::NAMES.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            fields.bad(key, format!("one of {}; nothing else is implemented", names.join(", ")))
        })?;
        // Gemma's first files say "gelu" where its approximation is meant, and transformers reads them so.
        let is_legacy = self == Self::Gemma && *activation == Activation::Gelu;
        to.activation = if is_legacy { Activation::GeluTanh } else { *activation };
        Ok(())
    }
}

/// Returns what to do about some architectures that are not implemented.
fn unknown_hint(model_type: &str) -> &'static str {
    match model_type {
        "gemma3" | "mistral3" | "llava" | "qwen2_vl" | "qwen2_5_vl" | "qwen3_vl" | "mllama" => {
            "; it reads images: save its language model alone with transformers, where that is one of these"
        }
        "mixtral" | "qwen2_moe" | "qwen3_moe" | "olmoe" | "granitemoe" | "phimoe" | "gpt_oss" => {
            "; mixtures of experts are not implemented"
        }
        "t5" | "mt5" | "bart" | "pegasus" | "t5gemma" => "; encoder-decoders are not implemented",
        "mamba" | "mamba2" | "rwkv" | "recurrent_gemma" | "jamba" => "; recurrent layers are not implemented",
        _ => "",
    }
}

fn phi3(to: &mut Switches) {
    to.fused_qkv = true;
    to.feed_forward = FeedForward::GatedFused;
    to.layers.iter_mut().for_each(|layer| layer.slides = true);
}

fn phi(to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
    to.biases = Biases { qkv: true, output: true, feed_forward: true, lm_head: true };
    (to.norm, to.block) = (NormKind::Layer, Block::Parallel);
    (to.feed_forward, to.activation) = (FeedForward::Plain, Activation::GeluTanh);
    to.names = Names {
        output: "self_attn.dense",
        up: "mlp.fc1",
        down: "mlp.fc2",
        final_norm: "model.final_layernorm",
    };
    if fields.flag("qk_layernorm")? {
        to.qk_norm = QkNorm::HeadLayerNorm;
    }
    Ok(())
}

/// Reads the layers with rotation and those with windows. Without `layer_types`, layers without rotation have the window.
fn smollm3(to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
    let flag = |value: &Value| value.as_bool().or_else(|| value.as_u64().map(|flag| flag != 0));
    let every = fields.positive_or("no_rope_layer_interval", 4)?;
    let rotates = fields.per_layer("no_rope_layers", to.layers.len(), "0 and 1", flag)?;
    for (index, layer) in to.layers.iter_mut().enumerate() {
        layer.rotates = rotates.as_ref().map_or(!(index + 1).is_multiple_of(every), |rotates| rotates[index]);
    }
    let rotates: Vec<bool> = to.layers.iter().map(|layer| layer.rotates).collect();
    windows(to, fields, |layer| !rotates[layer])
}

/// Reads the layers with windows from `layer_types`, or takes those of `default`.
fn windows(
    to: &mut Switches,
    fields: &Fields<'_>,
    default: impl Fn(usize) -> bool,
) -> Result<(), PolicyError> {
    let kinds = "\"full_attention\" and \"sliding_attention\"";
    let slides = fields.per_layer("layer_types", to.layers.len(), kinds, |kind| match kind.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    })?;
    for (index, layer) in to.layers.iter_mut().enumerate() {
        layer.slides = slides.as_ref().map_or_else(|| default(index), |slides| slides[index]);
    }
    Ok(())
}

/// As [`windows`]; older files with `use_sliding_window` have windows from `max_window_layers` on.
fn qwen_windows(to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
    // Zero is a legal first layer here, so this key is not read as a positive number.
    let first = fields.get("max_window_layers").and_then(Value::as_u64).unwrap_or(28) as usize;
    windows(to, fields, |layer| layer >= first)
}
