//! `config.json` of the supported families, in old and new spellings.

use std::path::Path;

use serde_json::Value;

use crate::error::PolicyError;
use crate::rope::Rope;

/// A family of decoder-only architectures. All are pre-norm decoders with rotary positions, grouped-query attention
/// and a gated `SiLU` feed-forward; the comments name the differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Llama 1–3 and models of their layout (`SmolLM2`, `TinyLlama`, …).
    Llama,
    /// Mistral 7B: every layer may have a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on the query, key and value projections.
    Qwen2,
    /// Qwen3: RMS norms on each query and key head.
    Qwen3,
}

impl Family {
    /// All families, in the order of error messages.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// Returns its `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Returns the name of its class in transformers.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// Biases of the attention projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// No bias.
    None,
    /// Query, key and value, as in Qwen2.
    Qkv,
    /// Query, key, value and output (`"attention_bias": true`).
    QkvAndOutput,
}

/// The architecture of a policy, read from `config.json`.
///
/// [`Policy::save`](crate::Policy::save) writes unknown keys back. Absent optional keys have the default of the family's class in
/// transformers.
///
/// ```
/// use policy_model::{Family, ModelConfig};
///
/// let config = ModelConfig::from_json(serde_json::json!({
///     "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 176,
///     "num_hidden_layers": 2, "num_attention_heads": 4, "tie_word_embeddings": true,
/// }))?;
/// assert_eq!(config.family, Family::Llama);
/// assert_eq!(config.head_dim, 16);
/// assert_eq!(config.parameter_count(), 133_440);
/// # Ok::<(), policy_model::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelConfig {
    /// The architecture (`model_type`).
    pub family: Family,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers (`num_hidden_layers`).
    pub layers: usize,
    /// Query heads (`num_attention_heads`).
    pub heads: usize,
    /// Key and value heads (`num_key_value_heads`), a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Added to the mean square inside RMS norms.
    pub rms_norm_eps: f64,
    /// Rotary positions: base and scaling.
    pub rope: Rope,
    /// Number of positions that a token sees, itself included, in the layers that have a
    /// [window](ModelConfig::window).
    pub sliding_window: Option<usize>,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Biases of the attention projections.
    pub attention_bias: AttentionBias,
    /// Whether the feed-forward projections have biases.
    pub mlp_bias: bool,
    /// Whether query and key heads are RMS-normed before rotation (Qwen3).
    pub qk_norm: bool,
    /// Standard deviation of initialized matrices.
    pub initializer_range: f64,
    /// Longest sequence of pretraining. Longer ones are not truncated.
    pub max_position_embeddings: usize,
    /// Whether each layer has the sliding window.
    sliding_layers: Vec<bool>,
    raw: serde_json::Map<String, Value>,
}

/// Far beyond any model, and small enough that the product of three sizes fits the i64 that libtorch counts in.
const MAX_SIZE: usize = 1 << 20;
/// Keeps a damaged file from allocating billions of tensor names.
const MAX_LAYERS: usize = 1 << 12;

/// Reads a file of a model folder, which must be there.
pub(crate) fn read_required(folder: &Path, name: &str) -> Result<Vec<u8>, PolicyError> {
    files::read_inside(folder, name).map_err(PolicyError::io("read", &folder.join(name)))
}

impl ModelConfig {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// The file cannot be read or parsed; the errors of [`ModelConfig::from_json`].
    pub fn from_folder(folder: &Path) -> Result<Self, PolicyError> {
        let path = folder.join("config.json");
        let text = read_required(folder, "config.json")?;
        let json = serde_json::from_slice(&text)
            .map_err(|source| PolicyError::Json { path: path.clone(), source })?;
        Self::parse(json, &path)
    }

    /// Reads a parsed configuration.
    ///
    /// # Errors
    /// The family or its rope type is unknown, a required field is absent, or a field has an invalid value.
    pub fn from_json(json: Value) -> Result<Self, PolicyError> {
        Self::parse(json, Path::new("config.json"))
    }

    /// Returns the number of parameters; a tied embedding counts once.
    pub fn parameter_count(&self) -> u64 {
        let sizes =
            self.parameter_shapes().into_iter().map(|(_, shape)| shape.iter().product::<i64>() as u64);
        sizes.fold(0, u64::saturating_add)
    }

    /// Returns the checkpoint names and shapes of all parameters, in the order of the forward pass: embedding, then for each
    /// layer input norm, q, k, v, o (each weight before its bias), q and k norm, post-attention norm,
    /// gate, up, down; then the final norm and, where not tied, the head.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<i64>)> {
        let [vocab, hidden, intermediate] =
            [self.vocab_size, self.hidden_size, self.intermediate_size].map(|size| size as i64);
        let [q_width, kv_width] = [self.heads, self.kv_heads].map(|heads| (heads * self.head_dim) as i64);
        let (qkv_bias, o_bias) = match self.attention_bias {
            AttentionBias::None => (false, false),
            AttentionBias::Qkv => (true, false),
            AttentionBias::QkvAndOutput => (true, true),
        };
        let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
        for layer in 0..self.layers {
            let mut norm = |name: &str, width: i64| {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![width]));
            };
            norm("input_layernorm", hidden);
            let mut linear = |name: &str, out: i64, input: i64, bias: bool| {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![out, input]));
                if bias {
                    shapes.push((format!("model.layers.{layer}.{name}.bias"), vec![out]));
                }
            };
            linear("self_attn.q_proj", q_width, hidden, qkv_bias);
            linear("self_attn.k_proj", kv_width, hidden, qkv_bias);
            linear("self_attn.v_proj", kv_width, hidden, qkv_bias);
            linear("self_attn.o_proj", hidden, q_width, o_bias);
            let mut norm = |name: &str, width: i64| {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![width]));
            };
            if self.qk_norm {
                norm("self_attn.q_norm", self.head_dim as i64);
                norm("self_attn.k_norm", self.head_dim as i64);
            }
            norm("post_attention_layernorm", hidden);
            let mut linear = |name: &str, out: i64, input: i64| {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), vec![out, input]));
                if self.mlp_bias {
                    shapes.push((format!("model.layers.{layer}.{name}.bias"), vec![out]));
                }
            };
            linear("mlp.gate_proj", intermediate, hidden);
            linear("mlp.up_proj", intermediate, hidden);
            linear("mlp.down_proj", hidden, intermediate);
        }
        shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
        }
        shapes
    }

    /// Returns the sliding window of layer `layer` in positions, or `None` for full attention.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.sliding_layers.get(layer).copied().unwrap_or(false))
    }

    /// Returns the JSON that this was read from, unknown keys included.
    pub fn raw(&self) -> &serde_json::Map<String, Value> {
        &self.raw
    }

    /// Checks that every id is below the vocabulary size.
    ///
    /// # Errors
    /// [`PolicyError::TokenOutOfRange`] for the first id that is not.
    pub fn check_tokens(&self, ids: &[u32]) -> Result<(), PolicyError> {
        match ids.iter().position(|&id| id as usize >= self.vocab_size) {
            None => Ok(()),
            Some(position) => Err(PolicyError::TokenOutOfRange {
                token: ids[position],
                position,
                vocab_size: self.vocab_size,
            }),
        }
    }

    fn parse(json: Value, path: &Path) -> Result<Self, PolicyError> {
        let Value::Object(raw) = json else {
            return Err(PolicyError::invalid_field(path, "(the whole file)", &json, "an object"));
        };
        let fields = Fields { raw: &raw, path };
        let family = fields.family()?;
        let layers = fields.size("num_hidden_layers", MAX_LAYERS)?;
        let hidden_size = fields.size("hidden_size", MAX_SIZE)?;
        let heads = fields.size("num_attention_heads", MAX_SIZE)?;
        let kv_heads = fields.positive_or("num_key_value_heads", heads)?;
        let head_dim = match (fields.positive_or("head_dim", 0)?, family) {
            (0, Family::Qwen3) => 128,
            (0, _) => hidden_size / heads,
            (head_dim, _) => head_dim,
        };
        if heads % kv_heads != 0 {
            return Err(
                fields.bad("num_key_value_heads", format!("a divisor of the {heads} attention heads"))
            );
        }
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > MAX_SIZE {
            let expected = format!("even, as rotary positions pair its halves (it came out as {head_dim})");
            return Err(fields.bad("head_dim", expected));
        }
        fields.unchanged("hidden_act", |v| v.as_str() == Some("silu"), "\"silu\"")?;
        fields.unchanged("partial_rotary_factor", |v| v.as_f64() == Some(1.0), "1.0")?;
        let max_position_embeddings = fields.positive_or("max_position_embeddings", 2048)?;
        let (sliding_window, sliding_layers) = fields.sliding(family, layers)?;
        Ok(Self {
            family,
            vocab_size: fields.size("vocab_size", MAX_SIZE)?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", MAX_SIZE)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            rms_norm_eps: fields.number_or("rms_norm_eps", 1e-6)?,
            rope: Rope::parse(&raw, max_position_embeddings, path)?,
            sliding_window,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            attention_bias: match (family, fields.flag("attention_bias")?) {
                (Family::Qwen2, _) => AttentionBias::Qkv,
                (Family::Llama | Family::Qwen3, true) => AttentionBias::QkvAndOutput,
                _ => AttentionBias::None,
            },
            mlp_bias: family == Family::Llama && fields.flag("mlp_bias")?,
            qk_norm: family == Family::Qwen3,
            initializer_range: fields.number_or("initializer_range", 0.02)?,
            max_position_embeddings,
            sliding_layers,
            raw,
        })
    }
}

/// The keys of one `config.json`; `null` counts as absent.
struct Fields<'a> {
    raw: &'a serde_json::Map<String, Value>,
    path: &'a Path,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.raw.get(field).filter(|value| !value.is_null())
    }

    fn bad(&self, field: &str, expected: impl Into<String>) -> PolicyError {
        PolicyError::invalid_field(self.path, field, self.raw.get(field).unwrap_or(&Value::Null), expected)
    }

    fn family(&self) -> Result<Family, PolicyError> {
        let found = self.get("model_type").ok_or_else(|| self.missing("model_type"))?;
        let known = || Family::ALL.map(Family::model_type).join(", ");
        Family::ALL.into_iter().find(|family| found.as_str() == Some(family.model_type())).ok_or_else(|| {
            PolicyError::UnknownFamily {
                path: self.path.to_owned(),
                found: found.as_str().map_or_else(|| found.to_string(), str::to_owned),
                known: known(),
            }
        })
    }

    fn missing(&self, field: &'static str) -> PolicyError {
        PolicyError::MissingField { path: self.path.to_owned(), field }
    }

    /// Reads a required field of at most `largest`.
    fn size(&self, field: &'static str, largest: usize) -> Result<usize, PolicyError> {
        match self.positive_or(field, 0)? {
            0 => Err(self.missing(field)),
            value if value <= largest => Ok(value),
            _ => Err(self.bad(field, format!("at most {largest}"))),
        }
    }

    fn positive_or(&self, field: &str, default: usize) -> Result<usize, PolicyError> {
        let usable = |value: &Value| value.as_u64().filter(|v| (1..=1 << 31).contains(v)).map(|v| v as usize);
        match self.get(field) {
            None => Ok(default),
            Some(value) => usable(value).ok_or_else(|| self.bad(field, "a positive integer below 2^31")),
        }
    }

    fn number_or(&self, field: &str, default: f64) -> Result<f64, PolicyError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|v| v.is_finite() && *v >= 0.0)
                .ok_or_else(|| self.bad(field, "a number that is not negative")),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, PolicyError> {
        match self.get(field) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.bad(field, "true or false")),
        }
    }

    /// Checks that a key which changes the mathematics is absent or has its only implemented value.
    fn unchanged(
        &self,
        field: &str,
        same: impl Fn(&Value) -> bool,
        expected: &str,
    ) -> Result<(), PolicyError> {
        match self.get(field) {
            Some(value) if !same(value) => {
                Err(self.bad(field, format!("{expected}; nothing else is implemented")))
            }
            _ => Ok(()),
        }
    }

    /// Reads the sliding window and its layers: all layers of Mistral; for Qwen those of `layer_types` or, in older files with
    /// `use_sliding_window`, those from `max_window_layers` on; none of Llama.
    fn sliding(&self, family: Family, layers: usize) -> Result<(Option<usize>, Vec<bool>), PolicyError> {
        let window = match (family, self.get("sliding_window")) {
            (Family::Llama, _) => None,
            (Family::Qwen2 | Family::Qwen3, _) if !self.flag("use_sliding_window")? => None,
            // An explicit null switches the window off; an absent key means the class's default.
            (_, None) if self.raw.contains_key("sliding_window") => None,
            (_, _) => Some(self.positive_or("sliding_window", 4096)?),
        };
        let sliding = match (family, self.get("layer_types")) {
            (Family::Qwen2 | Family::Qwen3, Some(Value::Array(types))) if types.len() == layers => types
                .iter()
                .map(|kind| match kind.as_str() {
                    Some("sliding_attention") => Ok(true),
                    Some("full_attention") => Ok(false),
                    _ => {
                        Err(self.bad("layer_types", "a list of \"full_attention\" and \"sliding_attention\""))
                    }
                })
                .collect::<Result<_, _>>()?,
            (Family::Qwen2 | Family::Qwen3, Some(_)) => {
                return Err(
                    self.bad("layer_types", format!("a list with an entry for each of the {layers} layers"))
                );
            }
            (Family::Qwen2 | Family::Qwen3, None) => {
                // Zero is a legal first layer here, so this key is not read as a positive number.
                let first = self.get("max_window_layers").and_then(Value::as_u64).unwrap_or(28) as usize;
                (0..layers).map(|layer| layer >= first).collect()
            }
            (Family::Mistral, _) => vec![true; layers],
            (Family::Llama, _) => vec![false; layers],
        };
        Ok((window, sliding))
    }
}
