//! `config.json` of the supported families, in old and new spellings.

use std::path::Path;

use serde_json::Value;

use crate::adapter_folder::base_folder;
use crate::error::PolicyError;
use crate::families::Family;
use crate::fields::Fields;
use crate::rope::Rope;
use crate::switches::{Experts, FeedForward, Switches};

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
    /// Added to the mean square or the variance inside norms.
    pub norm_eps: f64,
    /// Rotary positions: base and scaling.
    pub rope: Rope,
    /// Number of positions that a token sees, itself included, in the layers that have a
    /// [window](ModelConfig::window).
    pub sliding_window: Option<usize>,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Standard deviation of initialized matrices.
    pub initializer_range: f64,
    /// Weight of the loss that balances the experts; 0 without experts.
    pub router_aux_loss_coef: f64,
    /// Longest sequence of pretraining. Longer ones are not truncated.
    pub max_position_embeddings: usize,
    /// The differences from other families.
    pub(crate) switches: Switches,
    raw: serde_json::Map<String, Value>,
}

/// The sizes of a mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpertSizes {
    /// Number of experts in a layer.
    pub count: usize,
    /// Number of experts that a token passes through.
    pub per_token: usize,
    /// Width of an expert.
    pub width: usize,
    /// Number of layers with experts.
    pub layers: usize,
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
    /// Reads `config.json` in `folder`, or that of the base model where `folder` has adapters of peft only.
    ///
    /// # Errors
    /// The file cannot be read or parsed; the errors of [`ModelConfig::from_json`].
    pub fn from_folder(folder: &Path) -> Result<Self, PolicyError> {
        let base = base_folder(folder)?;
        let folder = base.as_deref().unwrap_or(folder);
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

    /// Returns the sliding window of layer `layer` in positions, or `None` for full attention.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.switches.layers.get(layer).is_some_and(|layer| layer.slides))
    }

    /// Whether the log-probabilities follow from the hidden states and [`Policy::lm_head`](crate::Policy::lm_head) alone: the head
    /// has neither a bias nor a soft cap.
    pub fn has_plain_head(&self) -> bool {
        !self.switches.biases.lm_head && self.switches.logit_soft_cap.is_none()
    }

    /// Whether attention holds all scores in memory, as no kernel has soft caps.
    pub fn holds_scores(&self) -> bool {
        self.switches.attention_soft_cap.is_some()
    }

    /// Returns the number of norms of the residual stream's width in each layer.
    pub fn norms_per_layer(&self) -> usize {
        self.switches.layer_norms().iter().flatten().count()
    }

    /// Returns the sizes of the mixture of experts, for a model with one.
    pub fn experts(&self) -> Option<ExpertSizes> {
        let experts = self.switches.experts.as_ref()?;
        let layers = (0..self.layers).filter(|layer| self.switches.experts_of(*layer).is_some()).count();
        let Experts { count, per_token, width, .. } = *experts;
        (layers > 0).then_some(ExpertSizes { count, per_token, width, layers })
    }

    /// Halves the width of the experts, for measurements of a smaller model.
    pub fn halve_experts(&mut self) {
        if let Some(experts) = &mut self.switches.experts {
            experts.width = experts.width.div_ceil(2);
        }
    }

    /// Whether the feed-forward block has a gate.
    pub fn has_gate(&self) -> bool {
        self.switches.feed_forward != FeedForward::Plain
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
        let fields = Fields::new(&raw, path);
        refuse_quantized(&fields)?;
        let family = Family::parse(&fields)?;
        let layers = fields.size("num_hidden_layers", MAX_LAYERS)?;
        let hidden_size = fields.size("hidden_size", MAX_SIZE)?;
        let heads = fields.size("num_attention_heads", MAX_SIZE)?;
        let (kv_heads, head_dim) = family.heads(&fields, hidden_size, heads)?;
        if heads % kv_heads != 0 {
            return Err(
                fields.bad("num_key_value_heads", format!("a divisor of the {heads} attention heads"))
            );
        }
        if head_dim == 0 || head_dim % 2 != 0 || head_dim > MAX_SIZE {
            let expected = format!("even, as rotary positions pair its halves (it came out as {head_dim})");
            return Err(fields.bad("head_dim", expected));
        }
        let max_position_embeddings = fields.positive_or("max_position_embeddings", 2048)?;
        let mut switches = family.switches(&fields, layers, hidden_size)?;
        let (rope, local_rope) = family.rope(&fields, (head_dim, max_position_embeddings))?;
        switches.local_rope = local_rope;
        for key in fields.ignored() {
            tracing::warn!(path = %path.display(), "`{key}` has no effect on a {}, as in transformers", family.model_type());
        }
        Ok(Self {
            family,
            vocab_size: fields.size("vocab_size", MAX_SIZE)?,
            hidden_size,
            intermediate_size: fields.size("intermediate_size", MAX_SIZE)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            norm_eps: family.norm_eps(&fields)?,
            rope,
            sliding_window: family.window(&fields)?,
            tie_word_embeddings: family.tied(&fields)?,
            initializer_range: fields.number_or("initializer_range", 0.02)?,
            router_aux_loss_coef: match switches.experts {
                Some(_) => fields.number_or("router_aux_loss_coef", 0.001)?,
                None => 0.0,
            },
            max_position_embeddings,
            switches,
            raw,
        })
    }
}

/// Refuses weights that are not plain numbers, with what to do instead.
fn refuse_quantized(fields: &Fields<'_>) -> Result<(), PolicyError> {
    let Some(config) = fields.get("quantization_config") else { return Ok(()) };
    let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
    let load = "from transformers import AutoModelForCausalLM as M, FineGrainedFP8Config as C; M.from_pretrained('DIR'";
    let remedy = match method {
        "fp8" => format!(
            "convert them: python -c \"{load}, quantization_config=C(dequantize=True), dtype='bfloat16').save_pretrained('OUT')\""
        ),
        "bitsandbytes" => format!("convert them: python -c \"{load}).dequantize().save_pretrained('OUT')\""),
        _ => "use the model from which they were made".to_owned(),
    };
    Err(PolicyError::Quantized { path: fields.path.to_owned(), method: method.to_owned(), remedy })
}
