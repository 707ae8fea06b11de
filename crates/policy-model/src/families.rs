//! The families, and the switches that each of them sets.

use serde_json::Value;

use crate::error::PolicyError;
use crate::fields::Fields;
use crate::rope::{Rope, RopeRules};
use crate::switches::{
    Activation, Biases, Block, Experts, FeedForward, Names, NormKind, QkNorm, QueryGrowth, Switches,
};

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
    /// Ministral 3: queries grow with the position beyond the context of pretraining.
    Ministral3,
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
    /// Mixtral: as Mistral, with a mixture of experts in each layer.
    Mixtral,
    /// Qwen3 with a mixture of experts in some layers.
    Qwen3Moe,
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
const ROWS: [Row; 21] = {
    const fn row(
        family: Family, model_type: &'static str, architecture: &'static str, norm_eps: (&'static str, f64),
    ) -> Row {
        Row { family, model_type, architecture, tied: false, head_dim: None, kv_heads: None, norm_eps, theta: 10_000.0 }
    }
    [
        row(Family::Llama, "llama", "LlamaForCausalLM", RMS),
        row(Family::Mistral, "mistral", "MistralForCausalLM", RMS),
        Row { kv_heads: Some(8), ..row(Family::Ministral, "ministral", "MinistralForCausalLM", RMS) },
        Row {
            kv_heads: Some(8), head_dim: Some(128), theta: 1_000_000.0,
            ..row(Family::Ministral3, "ministral3", "Ministral3ForCausalLM", RMS_5)
        },
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
        Row { kv_heads: Some(8), theta: 1_000_000.0, ..row(Family::Mixtral, "mixtral", "MixtralForCausalLM", RMS_5) },
        Row { kv_heads: Some(4), ..row(Family::Qwen3Moe, "qwen3_moe", "Qwen3MoeForCausalLM", RMS) },
    ]
};

impl Family {
    /// All families, in the order of error messages.
    pub const ALL: [Self; 21] = {
        let mut all = [Self::Llama; 21];
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
            Self::Qwen2 | Self::Qwen3 | Self::Qwen3Moe | Self::SmolLm3
                if !fields.flag("use_sliding_window")? =>
            {
                return Ok(None);
            }
            Self::Mistral | Self::Ministral | Self::Qwen2 | Self::Qwen3 | Self::Qwen3Moe => 4096,
            Self::Olmo3 | Self::Gemma2 | Self::Gemma3 | Self::Cohere2 => 4096,
            Self::Phi3 | Self::Starcoder2 | Self::SmolLm3 | Self::Mixtral | Self::Ministral3 => 0,
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
            Self::Ministral3 => ministral3(&mut to, fields)?,
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
                if fields.flag("qk_layernorm")? {
                    to.qk_norm = QkNorm::ListOfHeads;
                }
                to.norm = NormKind::Layer;
                to.biases.qkv = fields.flag("use_qkv_bias")?;
                if fields.flag("use_parallel_residual")? {
                    to.block = Block::Parallel;
                }
            }
            Self::Mixtral => mixtral(&mut to, fields)?,
            Self::Qwen3Moe => {
                (to.biases.qkv, to.biases.output) = (bias, bias);
                to.qk_norm = QkNorm::Head;
                qwen3_moe(&mut to, fields)?;
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
        "qwen2_moe" | "olmoe" | "granitemoe" | "phimoe" | "gpt_oss" | "deepseek_v3" | "glm4_moe" => {
            "; of the mixtures of experts, mixtral and qwen3_moe are implemented"
        }
        "t5" | "mt5" | "bart" | "pegasus" | "t5gemma" => "; encoder-decoders are not implemented",
        "mamba" | "mamba2" | "rwkv" | "recurrent_gemma" | "jamba" => "; recurrent layers are not implemented",
        _ => "",
    }
}

/// A bound of experts, which keeps a damaged file from allocating billions of tensor names.
const MAX_EXPERTS: usize = 1 << 10;

/// Reads the number of experts, of those of a token, and the width of each.
fn experts(
    fields: &Fields<'_>,
    keys: &[&'static str],
    defaults: [usize; 2],
    width: usize,
) -> Result<[usize; 3], PolicyError> {
    let key = keys.iter().find(|key| fields.get(key).is_some()).unwrap_or(&keys[0]);
    let count = fields.positive_or(key, defaults[0])?;
    if count > MAX_EXPERTS {
        return Err(fields.bad(key, format!("at most {MAX_EXPERTS}")));
    }
    let per_token = fields.positive_or("num_experts_per_tok", defaults[1])?;
    if per_token > count {
        return Err(fields.bad("num_experts_per_tok", format!("at most the {count} experts")));
    }
    Ok([count, per_token, width])
}

/// Reads the growth of queries, which transformers has among the parameters of positions.
fn ministral3(to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
    const KEY: &str = "llama_4_scaling_beta";
    let parameters = fields.get("rope_parameters").or_else(|| fields.get("rope_scaling"));
    let parameters = parameters.ok_or_else(|| fields.missing("rope_parameters"))?;
    let number =
        |key: &str| parameters.get(key).and_then(Value::as_f64).filter(|x| x.is_finite() && *x > 0.0);
    let context = "original_max_position_embeddings";
    let (Some(beta), Some(context)) = (number(KEY), number(context)) else {
        return Err(fields.bad("rope_parameters", format!("an object with `{KEY}` and `{context}` above 0")));
    };
    to.query_growth = Some(QueryGrowth { beta, context });
    to.layers.iter_mut().for_each(|layer| layer.slides = true);
    Ok(())
}

fn mixtral(to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
    let is_zero = |value: &Value| value.as_f64() == Some(0.0);
    fields.unchanged("router_jitter_noise", is_zero, "0")?;
    let width = fields.positive_or("intermediate_size", 1)?;
    let [count, per_token, width] = experts(fields, &["num_local_experts"], [8, 2], width)?;
    to.experts = Some(Experts {
        count,
        per_token,
        width,
        normalizes: true,
        rounds_weights: false,
        module: "block_sparse_moe",
        projections: ["w1", "w3", "w2"],
    });
    to.layers.iter_mut().for_each(|layer| (layer.slides, layer.has_experts) = (true, true));
    Ok(())
}

/// Layers in `mlp_only_layers`, and all but every `decoder_sparse_step`-th, have no experts.
fn qwen3_moe(to: &mut Switches, fields: &Fields<'_>) -> Result<(), PolicyError> {
    let width = fields.positive_or("moe_intermediate_size", 768)?;
    let [count, per_token, width] = experts(fields, &["num_experts", "num_local_experts"], [128, 8], width)?;
    to.experts = Some(Experts {
        count,
        per_token,
        width,
        normalizes: fields.flag("norm_topk_prob")?,
        rounds_weights: true,
        module: "mlp",
        projections: ["gate_proj", "up_proj", "down_proj"],
    });
    let every = fields.positive_or("decoder_sparse_step", 1)?;
    let dense: Option<Vec<u64>> = match fields.get("mlp_only_layers") {
        None => Some(Vec::new()),
        Some(list) => list.as_array().and_then(|list| list.iter().map(Value::as_u64).collect()),
    };
    let dense = dense.ok_or_else(|| fields.bad("mlp_only_layers", "a list of layers"))?;
    for (index, layer) in to.layers.iter_mut().enumerate() {
        layer.slides = true;
        layer.has_experts = (index + 1).is_multiple_of(every) && !dense.contains(&(index as u64));
    }
    Ok(())
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
