//! Attention over padded rows, packed rows and a cache.
//!
//! Attention is the only operation that combines tokens. The layers pass the queries, keys and values of all tokens to an
//! [`AttentionBackend`], which knows the rows and masks.

use tch::{Device, Kind, Tensor};
use torch_ext::{SharedPrefixRows, VarlenRows, shared_prefix_attention, varlen_attention};

use crate::dropout::AdapterDropout;
use crate::error::PolicyError;
use crate::on_device::on_device;
use crate::routing::Routing;

/// Padded token rows of one forward pass.
#[derive(Debug)]
pub struct Rows {
    /// `[B, T]` i64: token ids, each below the vocabulary's size.
    pub ids: Tensor,
    /// `[B, T]` i64: position of each token in its own sequence.
    pub positions: Tensor,
    /// The attention mask.
    pub mask: AttentionMask,
    /// The dropout of adapters; `None` outside of training.
    pub dropout: Option<AdapterDropout>,
    /// Records the routers of a mixture of experts; `None` if nothing needs that.
    pub routing: Option<Routing>,
}

/// The attention mask of padded rows. A token always sees itself, and never a later column.
#[derive(Debug)]
pub enum AttentionMask {
    /// Every token sees all earlier columns of its row. Padding is on the right.
    Causal,
    /// `[B, T]` i64: the segment of each token. A token sees the earlier columns of segment 0, the shared prefix, and of its own
    /// segment. Rows `[prompt | chosen | rejected]` with segments 0, 1, 2 and positions that restart after the prompt compute
    /// both sequences exactly, and the prompt once. Padding is at the end of a row, in any segment from 1 on.
    SharedPrefix(Tensor),
}

impl Rows {
    /// Creates causal rows of several sequences, padded with id 0 on the right. Positions start from 0 in each row.
    pub fn causal(sequences: &[&[u32]], device: Device) -> Self {
        let width = sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let padded = sequences.iter().flat_map(|sequence| {
            let ids = sequence.iter().map(|&id| i64::from(id));
            ids.chain(std::iter::repeat_n(0, width - sequence.len()))
        });
        let shape = [sequences.len() as i64, width as i64];
        let ids = on_device(&padded.collect::<Vec<i64>>(), device).view(shape);
        let positions = Tensor::arange(width as i64, (Kind::Int64, device)).expand(shape, true);
        Self { ids, positions, mask: AttentionMask::Causal, dropout: None, routing: None }
    }
}

/// Packed token rows of any length, without padding.
///
/// Linear layers compute `[N, hidden]` and attention one row at a time, so that a row's results do not depend on other rows.
#[derive(Debug)]
pub struct PackedRows {
    /// `[N]` i64: token ids, each below the vocabulary's size.
    pub ids: Tensor,
    /// `[N]` i64: position of each token in its own sequence.
    pub positions: Tensor,
    /// The rows, in the order of their tokens.
    pub rows: Vec<PackedRow>,
    /// The dropout of adapters; `None` outside of training.
    pub dropout: Option<AdapterDropout>,
    /// Records the routers of a mixture of experts; `None` if nothing needs that.
    pub routing: Option<Routing>,
}

/// A packed row: a shared prefix, then continuations, each of which sees the prefix and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRow {
    /// Number of tokens that all later ones see: the prompt, or a whole sequence.
    pub prefix: usize,
    /// Number of tokens of each continuation; none sees another.
    pub continuations: Vec<usize>,
}

impl PackedRows {
    /// Packs sequences without shared prefixes, with positions from 0.
    pub fn causal(sequences: &[&[u32]], device: Device) -> Self {
        let ids: Vec<i64> = sequences.iter().copied().flatten().map(|&id| i64::from(id)).collect();
        let positions: Vec<i64> = sequences.iter().flat_map(|sequence| 0..sequence.len() as i64).collect();
        Self {
            ids: on_device(&ids, device),
            positions: on_device(&positions, device),
            rows: sequences
                .iter()
                .map(|s| PackedRow { prefix: s.len(), continuations: Vec::new() })
                .collect(),
            dropout: None,
            routing: None,
        }
    }
}

/// The rule of a layer's attention scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoreRule {
    /// The sliding window, if any.
    pub(crate) window: Option<i64>,
    /// Bounds the scores by `cap · tanh(score / cap)`. No kernel does that, so that all scores are in memory.
    pub(crate) soft_cap: Option<f64>,
}

/// Attention of one forward pass, layer by layer.
pub(crate) trait AttentionBackend {
    /// Computes the attention of layer `layer` under this rule: `q [N, heads, head_dim]`, `k` and
    /// `v [N, kv_heads, head_dim]`. Returns `[N, heads · head_dim]`.
    fn attend(
        &mut self,
        layer: usize,
        rule: ScoreRule,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<Tensor, PolicyError>;

    /// Returns the rows if the scores of layers with this rule are those of [`shared_prefix_attention`].
    fn shared_prefix_rows(&self, _rule: ScoreRule) -> Option<&SharedPrefixRows> {
        None
    }

    /// Whether each row has one new token, with earlier ones in a cache.
    fn is_decoding(&self) -> bool {
        false
    }

    /// Returns the dropout of adapters for all tokens.
    fn dropout(&self) -> Option<&AdapterDropout> {
        None
    }

    /// Returns the record of routers.
    fn routing(&self) -> Option<&Routing> {
        None
    }
}

/// Padded rows, `N = rows · width`, with earlier tokens in a cache.
pub(crate) struct Padded<C> {
    pub(crate) rows: i64,
    pub(crate) masks: Masks,
    pub(crate) cache: C,
    pub(crate) dropout: Option<AdapterDropout>,
    pub(crate) routing: Option<Routing>,
}

impl<C: KeyValues> AttentionBackend for Padded<C> {
    fn attend(
        &mut self,
        layer: usize,
        rule: ScoreRule,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<Tensor, PolicyError> {
        let tokens = q.size()[0];
        let by_row = |x: &Tensor| {
            let shape = x.size();
            x.view([self.rows, -1, shape[1], shape[2]]).transpose(1, 2)
        };
        let (k, v) = self.cache.extend(layer, by_row(&k), by_row(&v));
        let mask = self.masks.of(rule.window);
        if let ScoreMask::From(first) = mask
            && rule.soft_cap.is_none()
            && let Some(attended) = torch_ext::decode_attention(&q, &k, &v, first)?
        {
            return Ok(attended.view([tokens, -1]));
        }
        let q = by_row(&q);
        let attended = match tokens == self.rows {
            true => attend_one(&q, &k, &v, mask, rule.soft_cap),
            false => attend(&q, &k, &v, mask, rule.soft_cap),
        };
        Ok(attended.transpose(1, 2).reshape([tokens, -1]))
    }

    fn is_decoding(&self) -> bool {
        matches!(self.masks.full, ScoreMask::From(_))
    }

    fn dropout(&self) -> Option<&AdapterDropout> {
        self.dropout.as_ref()
    }

    fn routing(&self) -> Option<&Routing> {
        self.routing.as_ref()
    }
}

/// Packed rows.
pub(crate) struct Packed {
    rows: Vec<PackedRow>,
    layout: SharedPrefixRows,
    /// The layout for the kernels of a GPU, on a GPU.
    varlen: Option<VarlenRows>,
    /// The sliding window of the layers that have one.
    window: Option<i64>,
    /// Whether some sequence is longer than `window`.
    exceeds_window: bool,
    /// Kind and device of the scores.
    options: (Kind, Device),
    /// Created by the first layer without a kernel.
    segments: Option<Segments>,
    dropout: Option<AdapterDropout>,
    routing: Option<Routing>,
}

impl Packed {
    /// Creates a backend for layers with this sliding window, if any. Computes scores in `kind`.
    pub(crate) fn new(rows: &PackedRows, window: Option<i64>, kind: Kind) -> Self {
        let lengths = rows.rows.iter().map(|row| (row.prefix, row.continuations.as_slice()));
        let layout = SharedPrefixRows::new(lengths.clone());
        let longest =
            lengths.map(|(prefix, continuations)| prefix + continuations.iter().max().unwrap_or(&0)).max();
        let device = rows.ids.device();
        Self {
            varlen: device.is_cuda().then(|| VarlenRows::new(&layout, device)).flatten(),
            layout,
            window,
            exceeds_window: window
                .is_some_and(|window| longest.is_some_and(|longest| longest as i64 > window)),
            rows: rows.rows.clone(),
            options: (kind, device),
            segments: None,
            dropout: rows.dropout.clone(),
            routing: rows.routing.clone(),
        }
    }
}

impl AttentionBackend for Packed {
    fn dropout(&self) -> Option<&AdapterDropout> {
        self.dropout.as_ref()
    }

    fn routing(&self) -> Option<&Routing> {
        self.routing.as_ref()
    }

    fn shared_prefix_rows(&self, rule: ScoreRule) -> Option<&SharedPrefixRows> {
        let is_whole = !self.exceeds_window || rule.window.is_none();
        (is_whole && rule.soft_cap.is_none()).then_some(&self.layout)
    }

    fn attend(
        &mut self,
        _: usize,
        rule: ScoreRule,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<Tensor, PolicyError> {
        let tokens = q.size()[0];
        if self.shared_prefix_rows(rule).is_some() {
            let attended = match &self.varlen {
                Some(rows) => varlen_attention(&q, &k, &v, rows)?,
                None => shared_prefix_attention(&q, &k, &v, &self.layout)?,
            };
            if let Some(attended) = attended {
                return Ok(attended.reshape([tokens, -1]));
            }
        }
        let segments =
            self.segments.get_or_insert_with(|| Segments::new(&self.rows, self.window, self.options));
        Ok(segments.attend(&self.rows, rule, &q, &k, &v).transpose(1, 2).reshape([tokens, -1]))
    }
}

/// Prefixes and continuations as operands of libtorch's attention, one call each.
struct Segments {
    /// Number of tokens of every segment, in their order.
    tokens: Vec<i64>,
    /// The masks of every segment.
    masks: Vec<Masks>,
}

impl Segments {
    fn new(rows: &[PackedRow], window: Option<i64>, options: (Kind, Device)) -> Self {
        // Queries and keys of each segment.
        let segments = rows.iter().flat_map(|row| {
            let continuations = row.continuations.iter().map(move |&tokens| (tokens, row.prefix + tokens));
            std::iter::once((row.prefix, row.prefix)).chain(continuations)
        });
        let (tokens, masks) = segments
            .map(|(queries, keys)| (queries as i64, Masks::of_segment(queries, keys, window, options)))
            .unzip();
        Self { tokens, masks }
    }

    /// `q [N, heads, head_dim]`, `k` and `v [N, kv_heads, head_dim]` to `[1, heads, N, head_dim]`.
    fn attend(&self, rows: &[PackedRow], rule: ScoreRule, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        // Transposes, splits and joins once for all segments: per segment it would cost an operation each, and a slice per
        // segment a gradient of full size each.
        let split = |x: &Tensor| x.transpose(0, 1).unsqueeze(0).split_with_sizes(self.tokens.as_slice(), 2);
        let (q, k, v) = (split(q), split(k), split(v));
        let mut attended = Vec::with_capacity(q.len());
        let mut prefix = 0;
        for row in rows {
            let mask = |segment: usize| self.masks[segment].of(rule.window);
            attended.push(attend(&q[prefix], &k[prefix], &v[prefix], mask(prefix), rule.soft_cap));
            // The same operations for every continuation, so that their order changes no bit.
            for segment in prefix + 1..=prefix + row.continuations.len() {
                let joined = |x: &[Tensor]| Tensor::cat(&[&x[prefix], &x[segment]], 2);
                attended.push(attend(&q[segment], &joined(&k), &joined(&v), mask(segment), rule.soft_cap));
            }
            prefix += 1 + row.continuations.len();
        }
        Tensor::cat(&attended, 2)
    }
}

/// A cache of the keys and values of every layer.
pub(crate) trait KeyValues {
    /// Appends the keys and values `[B, kv_heads, T, head_dim]` of layer `layer`, and returns all of them.
    fn extend(&mut self, layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor);
}

impl<C: KeyValues> KeyValues for &mut C {
    fn extend(&mut self, layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
        (**self).extend(layer, keys, values)
    }
}

/// The empty cache of training and scoring.
pub(crate) struct NoCache;

impl KeyValues for NoCache {
    fn extend(&mut self, _layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
        (keys, values)
    }
}

/// The mask of attention scores.
#[derive(Debug)]
pub(crate) enum ScoreMask {
    /// Masks later columns.
    Causal,
    /// `[B, 1, T, S]` bool, true where a query sees a key.
    Explicit(Tensor),
    /// `[B]` i64: the first column that the only query of a row sees.
    From(Tensor),
    /// `[T, S]` in the kind of the scores, added to them: 0 where a query sees a key, −∞ elsewhere. libtorch converts a bool
    /// mask in every call; this one is created once for all layers.
    Added(Tensor),
}

/// The masks of layers with full attention and with a sliding window.
pub(crate) struct Masks {
    pub(crate) full: ScoreMask,
    pub(crate) sliding: Option<ScoreMask>,
}

impl Masks {
    fn of(&self, window: Option<i64>) -> &ScoreMask {
        match (window, &self.sliding) {
            (Some(_), Some(mask)) => mask,
            _ => &self.full,
        }
    }

    /// Returns the masks of the last `queries` of `keys` tokens of one sequence, for scores of this kind and device.
    fn of_segment(queries: usize, keys: usize, window: Option<i64>, options: (Kind, Device)) -> Self {
        let window = window.filter(|&window| keys as i64 > window);
        if queries == keys && window.is_none() {
            return Self { full: ScoreMask::Causal, sliding: None };
        }
        // A plain loop: for short texts, each of several tensor operations would take longer.
        let added = |is_masked: &dyn Fn(i64) -> bool| {
            let distances =
                (keys - queries..keys).flat_map(|query| (0..keys).map(move |key| query as i64 - key as i64));
            let mask = distances.map(|distance| if is_masked(distance) { f32::NEG_INFINITY } else { 0.0 });
            let mask = Tensor::from_slice(&mask.collect::<Vec<f32>>()).view([queries as i64, keys as i64]);
            ScoreMask::Added(mask.to_kind(options.0).to_device(options.1))
        };
        let sliding = window.map(|window| added(&|distance| distance < 0 || distance >= window));
        let full = if queries == keys { ScoreMask::Causal } else { added(&|distance| distance < 0) };
        Self { full, sliding }
    }

    /// Returns the masks of padded rows without a cache.
    pub(crate) fn of_rows(rows: &Rows, window: Option<i64>) -> Self {
        let (length, device) = (rows.ids.size()[1], rows.ids.device());
        // Columns are at least as far apart as positions, so a row within the window needs no sliding mask.
        let window = window.filter(|&window| length > window);
        if window.is_none() && matches!(rows.mask, AttentionMask::Causal) {
            return Self { full: ScoreMask::Causal, sliding: None };
        }
        let column = Tensor::arange(length, (Kind::Int64, device));
        let earlier = column.unsqueeze(-1).ge_tensor(&column);
        let (full, base) = match &rows.mask {
            AttentionMask::Causal => (ScoreMask::Causal, earlier.unsqueeze(0)),
            AttentionMask::SharedPrefix(segments) => {
                let key_segments = segments.unsqueeze(1);
                let in_prefix = key_segments.eq(0);
                let same = segments.unsqueeze(-1).eq_tensor(&key_segments);
                let seen = same.logical_or(&in_prefix).logical_and(&earlier);
                (ScoreMask::Explicit(seen.unsqueeze(1)), seen)
            }
        };
        let sliding = window.map(|window| {
            let distance = rows.positions.unsqueeze(-1) - rows.positions.unsqueeze(1);
            ScoreMask::Explicit(distance.lt(window).logical_and(&base).unsqueeze(1))
        });
        Self { full, sliding }
    }
}

/// Attention by libtorch; all operands `[B, heads, T, head_dim]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &ScoreMask, soft_cap: Option<f64>) -> Tensor {
    if let Some(cap) = soft_cap {
        return attend_capped(q, k, v, mask, cap);
    }
    let (mask, causal) = match mask {
        ScoreMask::Causal => (None, true),
        ScoreMask::Explicit(mask) | ScoreMask::Added(mask) => (Some(mask), false),
        ScoreMask::From(_) => unreachable!("rows of several queries have an explicit mask"),
    };
    let grouped = q.size()[1] != k.size()[1];
    Tensor::scaled_dot_product_attention(q, k, v, mask, 0.0, causal, None, grouped)
}

/// As [`attend`], with bounded scores, all of which are in memory.
fn attend_capped(q: &Tensor, k: &Tensor, v: &Tensor, mask: &ScoreMask, cap: f64) -> Tensor {
    let shape = q.size();
    let &[rows, heads, queries, head_dim] = shape.as_slice() else {
        unreachable!("queries are [B, heads, T, head_dim]")
    };
    let (kv_heads, keys) = (k.size()[1], k.size()[2]);
    let grouped = q.reshape([rows, kv_heads, heads / kv_heads * queries, head_dim]);
    let products = grouped.matmul(&k.transpose(2, 3)).view([rows, heads, queries, keys]);
    let scores = (products * ((head_dim as f64).powf(-0.5) / cap)).tanh() * cap;
    let scores = match mask {
        ScoreMask::Causal => {
            let seen = Tensor::ones([queries, keys], (Kind::Bool, q.device())).tril(0);
            scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY)
        }
        ScoreMask::Explicit(seen) => scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY),
        ScoreMask::Added(mask) => scores + mask,
        ScoreMask::From(_) => unreachable!("rows of several queries have an explicit mask"),
    };
    let weights = scores.softmax(-1, Kind::Float).to_kind(q.kind());
    let weights = weights.view([rows, kv_heads, heads / kv_heads * queries, keys]);
    weights.matmul(v).view(shape.as_slice())
}

/// Attention of one query `[B, heads, 1, head_dim]` over all keys: two products, with the heads of a group as the rows of a
/// matrix. libtorch's fused kernel is optimized for many queries, and takes twice as long here.
fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor, mask: &ScoreMask, soft_cap: Option<f64>) -> Tensor {
    let (q_shape, k_shape) = (q.size(), k.size());
    let (heads, head_dim, kv_heads) = (q_shape[1], q_shape[3], k_shape[1]);
    let grouped =
        (q * (head_dim as f64).powf(-0.5)).reshape([q_shape[0], kv_heads, heads / kv_heads, head_dim]);
    let mut scores = grouped.matmul(&k.transpose(2, 3));
    if let Some(cap) = soft_cap {
        scores = (scores / cap).tanh() * cap;
    }
    match mask {
        ScoreMask::Causal => {}
        ScoreMask::Explicit(seen) => scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY),
        ScoreMask::From(first) => {
            let column = Tensor::arange(k_shape[2], (Kind::Int64, k.device()));
            let hidden = column.lt_tensor(&first.unsqueeze(-1)).unsqueeze(1).unsqueeze(1);
            scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
        }
        ScoreMask::Added(mask) => scores += mask,
    }
    scores.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(v).view(q_shape.as_slice())
}
