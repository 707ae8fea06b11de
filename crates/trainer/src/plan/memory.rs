//! Peak memory of training, by purpose.

use distributed::Sharding;
use policy_model::{ExpertSizes, ModelConfig};
use pref_data::{Dialogue, Layout, Padding, TokenPair};
use tch::{Device, Kind};

use crate::moments::MomentKind;
use crate::parameters::Trained;
use crate::scoring::{Activations, Head, Scoring};
use crate::span::{Regions, Span};

/// Memory of the training step that needs most, in bytes.
///
/// `P` is the number of trained parameters, and `s` the size of an element of the kind that computes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Master weights in fp32: 4 · P.
    pub master: u64,
    /// The weights that compute: 2 · P in bfloat16, 0 in fp32, where the masters compute. Frozen weights below adapters
    /// count here, once.
    pub compute: u64,
    /// The fp32 gradient, 4 · P, and the gradient of the current micro-batch, s · P. The latter excludes what the
    /// chunked head adds directly to the sum. Under layerwise backward it is one layer's; on a CPU layers also add
    /// directly to the sum.
    pub gradients: u64,
    /// Adam's two moments: 8 · P in fp32, 2.03 · P in eight bits.
    pub moments: u64,
    /// Activations that layers keep for the backward pass, for the micro-batch with the most tokens.
    pub activations: u64,
    /// Memory of the LM head for that micro-batch.
    pub head: u64,
    /// libtorch itself, and the allocator's free memory.
    pub runtime: u64,
}

/// Memory of a run on a CPU outside of tensors, as measured. It is 300 MB of libtorch before the first tensor, and
/// fragmentation of the allocator.
const RUNTIME: u64 = 450_000_000;

/// The maximum memory of the chunked head besides the states of its tokens.
const HEAD_TILES: u64 = 24_000_000;

/// The size of the largest micro-batch of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WidestMicroBatch {
    /// Rows of linear layers: tokens, including padding if any.
    pub tokens: u64,
    /// Keys that attention concatenates for branches: prompt and response of each, if the prompt is shared.
    pub joined: u64,
    /// The number of scored tokens.
    pub scored: u64,
    /// The number of attention scores of one head, which exist only under a soft cap.
    pub scores: u64,
}

impl WidestMicroBatch {
    /// Returns the size of `pairs` in the layout of `scoring`.
    pub(crate) fn of(pairs: &[&TokenPair], scoring: Scoring) -> Self {
        let scored = |pair: &TokenPair| pair.chosen.len() + pair.rejected.len();
        let twice = |pair: &TokenPair| scored(pair) + 2 * pair.prompt.len();
        let shares = scoring.layout == Layout::SharedPrompt;
        let sum = |of: &dyn Fn(&TokenPair) -> usize| pairs.iter().map(|pair| of(pair)).sum::<usize>() as u64;
        let longest = |of: &dyn Fn(&TokenPair) -> usize| pairs.iter().map(|pair| of(pair)).max().unwrap_or(0);
        let (tokens, joined) = match (scoring.padding, shares) {
            (Padding::None, true) => (sum(&TokenPair::unique_tokens), sum(&twice)),
            (Padding::None, false) => (sum(&twice), 0),
            (Padding::Right(_), true) => ((pairs.len() * longest(&TokenPair::unique_tokens)) as u64, 0),
            (Padding::Right(_), false) => {
                let one = longest(&|pair| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len()));
                ((2 * pairs.len() * one) as u64, 0)
            }
        };
        let square = |tokens: usize| tokens * tokens;
        let of_responses =
            |pair: &TokenPair, of: &dyn Fn(usize) -> usize| of(pair.chosen.len()) + of(pair.rejected.len());
        let scores = match (scoring.padding, shares) {
            (Padding::None, true) => sum(&|pair| {
                let prompt = pair.prompt.len();
                square(prompt) + of_responses(pair, &|response| response * (prompt + response))
            }),
            (Padding::None, false) => {
                sum(&|pair| of_responses(pair, &|response| square(pair.prompt.len() + response)))
            }
            (Padding::Right(_), true) => (pairs.len() * square(longest(&TokenPair::unique_tokens))) as u64,
            (Padding::Right(_), false) => tokens.pow(2) / (2 * pairs.len() as u64).max(1),
        };
        Self { tokens, joined, scored: sum(&scored), scores }
    }

    /// Returns the size of `dialogues`, which have no branches.
    pub(crate) fn of_dialogues(dialogues: &[&Dialogue], padding: Padding) -> Self {
        let lengths = dialogues.iter().map(|dialogue| dialogue.ids().len());
        let (tokens, scores) = match padding {
            Padding::None => (lengths.clone().sum(), lengths.map(|length| length * length).sum()),
            Padding::Right(_) => {
                let longest = lengths.max().unwrap_or(0);
                (dialogues.len() * longest, dialogues.len() * longest * longest)
            }
        };
        let scored =
            dialogues.iter().flat_map(|dialogue| dialogue.scored()).filter(|&&scored| scored).count();
        Self { tokens: tokens as u64, joined: 0, scored: scored as u64, scores: scores as u64 }
    }
}

/// The forms of weights and moments in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// The kind that computes.
    pub kind: Kind,
    /// The form of the moments.
    pub moments: MomentKind,
    /// Whether the weights below adapters are in NF4.
    pub is_quantized: bool,
}

impl From<Kind> for Precision {
    fn from(kind: Kind) -> Self {
        Self { kind, moments: MomentKind::Float, is_quantized: false }
    }
}

/// Bits of a weight in NF4: its code, 8 / 64 for its share of a scale, and 32 / (64 · 256) for that of a scale of scales.
const NF4_BITS: f64 = 4.0 + 8.0 / 64.0 + 32.0 / (64.0 * 256.0);

impl Memory {
    /// Returns the memory of `parameters` trained weights, without activations.
    pub fn of(parameters: u64, precision: impl Into<Precision>) -> Self {
        let Precision { kind, moments, .. } = precision.into();
        let size = kind.elt_size_in_bytes() as u64;
        Self {
            master: 4 * parameters,
            compute: if kind == Kind::Float { 0 } else { size * parameters },
            gradients: (4 + size) * parameters,
            moments: moments.bytes(parameters),
            activations: 0,
            head: 0,
            runtime: RUNTIME,
        }
    }

    /// Estimates the memory of training a model of this shape on `device`, for the largest micro-batch `widest`.
    pub fn of_training(
        config: &ModelConfig,
        trained: &Trained,
        (precision, device): (impl Into<Precision>, Device),
        scoring: Scoring,
        widest: WidestMicroBatch,
    ) -> Self {
        let precision = precision.into();
        let kind = precision.kind;
        let size = kind.elt_size_in_bytes() as u64;
        let embeddings = (config.vocab_size * config.hidden_size) as u64;
        let in_tables = embeddings * if config.tie_word_embeddings { 1 } else { 2 };
        let all = config.parameter_count();
        let (weights, in_layers, head_gradient) = match trained {
            Trained::All => (Self::of(all, precision), all - in_tables, embeddings),
            Trained::Adapters(_) => {
                let adapters = trained.parameter_count(config);
                let weights = Self::of(adapters, precision);
                let frozen = if precision.is_quantized { in_nf4(config, kind) } else { size * all };
                (Self { compute: weights.compute + frozen, ..weights }, adapters, 0)
            }
        };
        let states = size * config.hidden_size as u64 * widest.tokens;
        let layers = config.layers as u64;
        let of_layer = layer_activations(config, trained, (kind, device), scoring.padding, widest);
        let in_one_layer = in_layers / layers.max(1);
        let (activations, micro_batch_gradient) = match scoring.activations {
            Activations::Kept if device == Device::Cpu => (layers * of_layer, in_one_layer),
            Activations::Kept => (layers * of_layer, in_layers),
            Activations::KeptByLayer => (layers * of_layer, in_one_layer),
            Activations::Recomputed => (layers * states + of_layer, in_one_layer),
        };
        let of_scored = widest.scored * config.hidden_size as u64 * (2 * size + 4);
        let (head, head_gradient) = match scoring.head.of(config) {
            Head::Chunked => (HEAD_TILES + of_scored, 0),
            // Logits and their gradient; log-probabilities in fp32 and their gradient.
            Head::Full => {
                (of_scored + widest.scored * config.vocab_size as u64 * (2 * size + 8), head_gradient)
            }
        };
        let trained = weights.master / 4;
        let gradients = 4 * trained + size * (micro_batch_gradient + head_gradient);
        Self { gradients, activations, head, ..weights }
    }

    /// Returns the memory of each of `ranks` ranks that divide the state; `self` is that of a rank that holds all of it, with its
    /// share of a batch.
    pub(crate) fn divided(
        self,
        config: &ModelConfig,
        trained: &Trained,
        (kind, device): (Kind, Device),
        (sharding, ranks): (Sharding, u64),
    ) -> Self {
        if ranks == 1 || sharding == Sharding::None {
            return self;
        }
        let size = kind.elt_size_in_bytes() as u64;
        let weights = trained.parameter_count(config);
        let part = |bytes: u64| bytes.div_ceil(ranks);
        let (master, moments) = (part(self.master), part(self.moments));
        // A shard is not what computes, so that fp32 masters have a copy, too.
        let copy = if kind == Kind::Float { 4 * weights } else { 0 };
        // The summed gradient of the shard, and updated weights in transit.
        let updated = if kind == Kind::Float { 0 } else { part(size * weights) };
        let of_micro_batch = self.gradients - 4 * weights;
        let compute = self.compute + copy;
        let regions = RegionSizes::of(config, trained);
        let sum = part(4 * weights);
        let [with_activations, afterwards] = regions.buffers(device).map(|elements| 4 * elements);
        let gradients = match sharding {
            Sharding::None | Sharding::Optimizer => self.gradients + sum + updated,
            _ => {
                let updated = if sharding == Sharding::Gradients { updated } else { 0 };
                // Later buffers take the place of the activations.
                let later = afterwards.max(updated).saturating_sub(self.activations + self.head);
                of_micro_batch + sum + with_activations.max(later)
            }
        };
        let compute = match sharding {
            // The layer that computes, and the next one.
            Sharding::Parameters => size * (regions.first + regions.last + 2 * regions.layer),
            _ => compute,
        };
        Self { master, moments, compute, gradients, ..self }
    }

    /// Returns the memory that is proportional to the weights.
    pub fn of_weights(self) -> u64 {
        self.master + self.compute + self.gradients + self.moments
    }

    /// Returns the total.
    pub fn total(self) -> u64 {
        self.of_weights() + self.activations + self.head + self.runtime
    }
}

/// Returns the memory of frozen weights of which the projections are in NF4: a layer at a time is dequantized.
fn in_nf4(config: &ModelConfig, kind: Kind) -> u64 {
    let size = kind.elt_size_in_bytes() as u64;
    let quantized = config.quantized_parameter_count();
    let codes = (quantized as f64 * NF4_BITS / 8.0).ceil() as u64;
    let layer = RegionSizes::of(config, &Trained::All).layer;
    codes + size * (config.parameter_count() - quantized + layer)
}

/// Trained elements before the layers, of a layer, and after the layers.
struct RegionSizes {
    first: u64,
    layer: u64,
    last: u64,
    /// Whether the head's gradient is that of the embedding.
    is_tied: bool,
}

impl RegionSizes {
    fn of(config: &ModelConfig, trained: &Trained) -> Self {
        let shapes = match trained {
            Trained::All => config.parameter_shapes(),
            Trained::Adapters(lora) => lora.parameter_shapes(config),
        };
        let Regions { lengths, layers } = Regions::of(&Span::of_shapes(shapes));
        let outside =
            |at: Option<usize>| at.filter(|&at| layers[at].is_none()).map_or(0, |at| lengths[at] as u64);
        let of_layers = lengths.iter().zip(&layers).filter(|(_, layer)| layer.is_some());
        Self {
            first: outside(layers.len().checked_sub(1).map(|_| 0)),
            layer: of_layers.map(|(length, _)| *length as u64).max().unwrap_or(0),
            last: outside(layers.len().checked_sub(1).filter(|&last| last > 0)),
            is_tied: config.tie_word_embeddings,
        }
    }

    /// The most elements of gradient buffers at a time, at the begin of the backward pass, while there are activations, and at
    /// its end. There is a buffer of the region that is computed, and one of the region above it, whose sum is on its way.
    /// Gloo receives the contributions of all ranks in a third one.
    fn buffers(&self, device: Device) -> [u64; 2] {
        let Self { first, layer, last, is_tied } = *self;
        let sent = if device == Device::Cpu { 2 } else { 1 };
        let layers = layer + sent * layer;
        // The embedding's gradient begins with the head's.
        let begin = if is_tied { first + layers } else { layers.max(sent * last + layer) };
        [begin, (sent * layer + first).max(sent * first)]
    }
}

/// Returns the activations that autograd keeps for one layer, in bytes: the operands of its operations. A projection
/// without trained weight or adapter keeps no input. The last layer keeps its gated product for scored tokens only, but
/// is counted like the others.
fn layer_activations(
    config: &ModelConfig,
    trained: &Trained,
    (kind, device): (Kind, Device),
    padding: Padding,
    widest: WidestMicroBatch,
) -> u64 {
    let size = kind.elt_size_in_bytes() as u64;
    let [hidden, mlp, heads, kv_heads, head_dim] =
        [config.hidden_size, config.intermediate_size, config.heads, config.kv_heads, config.head_dim]
            .map(|n| n as u64);
    let learns = |projections: &[&str]| match trained {
        Trained::All => 1,
        Trained::Adapters(lora) => u64::from(lora.adapts(config, projections)),
    };
    // A CPU has fused norms and gates, which keep the operands; other devices compose them.
    let is_fused = device == Device::Cpu;
    // A fused norm keeps its operand and a scale in fp32. A composed norm keeps the operand and its normalized value in
    // fp32. Below fp32, it also keeps the normalized value in its own kind, for the gradient of its weight.
    let norm = match (is_fused, trained) {
        (true, _) => size * hidden + 4,
        (false, Trained::All) if size < 4 => (2 * 4 + size) * hidden,
        (false, _) => 2 * 4 * hidden,
    };
    let (q, kv) = (heads * head_dim, 2 * kv_heads * head_dim);
    // Attention keeps queries, keys, values, its output and one sum per head.
    let attention = size * (2 * q + kv) + 4 * heads;
    // Over packed rows, a CPU concatenates no keys and passes the output on without a copy. A sliding window may mask
    // some rows, which libtorch's kernel handles.
    let is_tree = is_fused
        && matches!(padding, Padding::None)
        && head_dim.is_multiple_of(16)
        && config.sliding_window.is_none()
        && !config.holds_scores();
    let (joined, in_order) = if is_tree { (0, 0) } else { (widest.joined * size * kv, q) };
    // Under a soft cap: the tanh, its mask, and the softmax in fp32 and in the kind that computes.
    let bytes_of_score = size + 1 + if size < 4 { 4 + size } else { 4 };
    let scores = if config.holds_scores() { heads * widest.scores * bytes_of_score } else { 0 };
    // A token's experts take the place of the block; their inputs, outputs, and the weighted outputs are rows of their own.
    let routed = config.experts().map_or(0, |experts| {
        let ExpertSizes { count, per_token, width, layers, .. } = experts;
        let of_experts = size * (4 * hidden + 4 * width as u64) * per_token as u64 + 12 * count as u64;
        layers as u64 * of_experts / config.layers as u64
    });
    let mlp = config
        .experts()
        .map_or(mlp, |experts| mlp * (config.layers - experts.layers) as u64 / config.layers as u64);
    // Gate and up projections; if composed, also the gate's activation.
    let gated = match (config.has_gate(), is_fused) {
        (true, true) => 2 * size * mlp,
        (true, false) => 3 * size * mlp,
        (false, _) => 2 * size * mlp,
    };
    // Dropout: the mask and the dropped input of each adapter.
    let dropped = match trained {
        Trained::Adapters(lora) if lora.dropout > 0.0 => {
            2 * size * lora.input_width(config) / config.layers as u64
        }
        _ => 0,
    };
    // Inputs of linear layers: normalized states twice, attention's output in order, and the gated product.
    let inputs = size
        * (hidden * learns(&["q_proj", "k_proj", "v_proj", "qkv_proj"])
            + in_order * learns(&["o_proj", "dense"])
            + hidden * learns(&["gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc"])
            + mlp * learns(&["down_proj", "fc2", "c_proj"]));
    widest.tokens * (config.norms_per_layer() as u64 * norm + attention + gated + inputs + dropped + routed)
        + joined
        + scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_the_documented_bytes_per_parameter() {
        assert_eq!(Memory::of(1, Kind::Float).of_weights(), 4 + 8 + 8);
        assert_eq!(Memory::of(1, Kind::BFloat16).of_weights(), 4 + 2 + 6 + 8);
    }

    #[test]
    fn seven_billion_weights_in_nf4_train_adapters_on_24_gb() {
        let config = ModelConfig::from_json(serde_json::json!({
            "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        }))
        .unwrap();
        let adapters = Trained::Adapters(policy_model::Lora::new(16, 16.0, policy_model::Targets::AllLinear));
        let scoring = Scoring { activations: Activations::Recomputed, ..Scoring::FAST };
        // A pair of 1,024 tokens of prompt and 512 in each response.
        let widest = WidestMicroBatch { tokens: 2048, joined: 3072, scored: 1024, scores: 0 };
        let of = |is_quantized| {
            let precision = Precision { is_quantized, ..Kind::BFloat16.into() };
            Memory::of_training(&config, &adapters, (precision, Device::Cuda(0)), scoring, widest)
        };
        // 6,979,321,856 weights of projections at 4.127 bits; tables, norms and one layer at 16.
        let (quantized, layer) = (6_979_321_856_f64, 218_112_000_f64);
        let others = config.parameter_count() as f64 - quantized;
        let adapters_in_bf16 = 2.0 * adapters.parameter_count(&config) as f64;
        let expected = quantized * 4.126_953_125 / 8.0 + 2.0 * (others + layer) + adapters_in_bf16;
        let memory = of(true);
        assert!((memory.compute as f64 - expected).abs() < 1e4, "{memory:?}");
        assert!(memory.total() < 7_000_000_000, "{} bytes", memory.total());
        assert!(of(false).total() > 16_000_000_000, "{} bytes", of(false).total());
    }

    #[test]
    fn moments_in_eight_bits_take_two_bytes() {
        let precision = Precision { moments: MomentKind::EightBit, ..Kind::BFloat16.into() };
        let memory = Memory::of(256_000, precision);
        assert_eq!(memory.moments, 2 * (256_000 + 4 * 1000));
    }

    #[test]
    fn the_widest_micro_batch_counts_rows_of_the_layers() {
        let pair = |prompt: usize, chosen: usize, rejected: usize| TokenPair {
            id: String::new(),
            prompt: vec![1; prompt],
            chosen: vec![1; chosen],
            rejected: vec![1; rejected],
            flipped: false,
        };
        let (a, b) = (pair(10, 2, 3), pair(4, 5, 1));
        let tokens = |scoring| {
            let WidestMicroBatch { tokens, joined, scored, scores: _ } =
                WidestMicroBatch::of(&[&a, &b], scoring);
            assert_eq!(scored, 11);
            (tokens, joined)
        };
        let separate = Scoring { layout: Layout::Separate, ..Scoring::FAST };
        assert_eq!(tokens(Scoring::FAST), (25, 39));
        assert_eq!(tokens(separate), (39, 0));
        assert_eq!(tokens(Scoring { padding: Padding::Right(0), ..Scoring::FAST }), (30, 0));
        assert_eq!(tokens(Scoring { padding: Padding::Right(0), ..separate }), (52, 0));

        let dialogues = [&a, &b].map(|pair| Dialogue::completion(&pair.prompt, &pair.chosen).unwrap());
        let of = |padding| WidestMicroBatch::of_dialogues(&dialogues.each_ref(), padding);
        assert_eq!(
            of(Padding::None),
            WidestMicroBatch { tokens: 21, joined: 0, scored: 7, scores: 144 + 81 }
        );
        assert_eq!(
            of(Padding::Right(0)),
            WidestMicroBatch { tokens: 24, joined: 0, scored: 7, scores: 2 * 144 }
        );
        let scores = |scoring| WidestMicroBatch::of(&[&a, &b], scoring).scores;
        assert_eq!(scores(Scoring::FAST), 10 * 10 + 2 * 12 + 3 * 13 + 4 * 4 + 5 * 9 + 5);
        assert_eq!(scores(separate), 12 * 12 + 13 * 13 + 9 * 9 + 5 * 5);
        assert_eq!(scores(Scoring { padding: Padding::Right(0), ..Scoring::FAST }), 2 * 15 * 15);
        assert_eq!(scores(Scoring { padding: Padding::Right(0), ..separate }), 4 * 13 * 13);
    }
}
