//! Which tokens of a forward pass see which: rows of one width, or rows of any length one behind the other.
//!
//! Attention is the only place where tokens meet. The layers hand over queries, keys and values of all tokens; what a
//! row is, a [`Mixing`] knows.

use tch::{Device, Kind, Tensor};
use torch_ext::{TokenTrees, VarlenTrees, tree_attention, varlen_attention};

use crate::on_device::on_device;

/// Token rows of one forward pass, all of one width.
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
        let ids = on_device(&padded.collect::<Vec<i64>>(), device).view(shape);
        let positions = Tensor::arange(width as i64, (Kind::Int64, device)).expand(shape, true);
        Self { ids, positions, visible: Visibility::Causal }
    }
}

/// Token rows of any length, one behind the other: no token of the `N` is padding.
///
/// Linear layers see `[N, hidden]` and attention one row at a time, so that what is computed for a row does not depend
/// on the rows beside it.
#[derive(Debug)]
pub struct PackedRows {
    /// `[N]` i64: token ids, each below the vocabulary's size.
    pub ids: Tensor,
    /// `[N]` i64: position of each token in its own sequence.
    pub positions: Tensor,
    /// The rows, in the order of their tokens.
    pub rows: Vec<PackedRow>,
}

/// How the tokens of one packed row hang together: a trunk, then branches, each of which sees the trunk and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRow {
    /// Tokens that all later ones see: the prompt, or a whole sequence.
    pub trunk: usize,
    /// Tokens of each continuation; none sees another.
    pub branches: Vec<usize>,
}

impl PackedRows {
    /// Sequences that have nothing in common, with positions from 0.
    pub fn causal(sequences: &[&[u32]], device: Device) -> Self {
        let ids: Vec<i64> = sequences.iter().copied().flatten().map(|&id| i64::from(id)).collect();
        let positions: Vec<i64> = sequences.iter().flat_map(|sequence| 0..sequence.len() as i64).collect();
        Self {
            ids: on_device(&ids, device),
            positions: on_device(&positions, device),
            rows: sequences.iter().map(|s| PackedRow { trunk: s.len(), branches: Vec::new() }).collect(),
        }
    }
}

/// Lets the tokens of a forward pass see each other, layer by layer.
pub(crate) trait Mixing {
    /// Attention of layer `layer`: `q [N, heads, head_dim]`, `k` and `v [N, kv_heads, head_dim]`; `window` limits how far
    /// back a query sees. Returns `[N, heads · head_dim]`.
    fn attend(&mut self, layer: usize, window: Option<i64>, q: Tensor, k: Tensor, v: Tensor) -> Tensor;

    /// How the tokens hang together that see each other as in [`tree_attention`], in layers with this `window`, if they do.
    fn trees(&self, _window: Option<i64>) -> Option<&TokenTrees> {
        None
    }

    /// Whether each row has one token more, with what came before it in a cache.
    fn is_decoding(&self) -> bool {
        false
    }
}

/// Rows of one width, `N = rows · width`, with what came before them in a cache.
pub(crate) struct Grid<C> {
    pub(crate) rows: i64,
    pub(crate) masks: Masks,
    pub(crate) cache: C,
}

impl<C: KeyValues> Mixing for Grid<C> {
    fn attend(&mut self, layer: usize, window: Option<i64>, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
        let tokens = q.size()[0];
        let by_row = |x: &Tensor| {
            let shape = x.size();
            x.view([self.rows, -1, shape[1], shape[2]]).transpose(1, 2)
        };
        let (k, v) = self.cache.extend(layer, by_row(&k), by_row(&v));
        let mask = self.masks.of(window);
        if let Mask::From(first) = mask
            && let Ok(attended) = torch_ext::decode_attention(&q, &k, &v, first)
        {
            return attended.view([tokens, -1]);
        }
        // Other devices, kinds and widths are libtorch's.
        let q = by_row(&q);
        let attended =
            if tokens == self.rows { attend_one(&q, &k, &v, mask) } else { attend(&q, &k, &v, mask) };
        attended.transpose(1, 2).reshape([tokens, -1])
    }

    fn is_decoding(&self) -> bool {
        matches!(self.masks.full, Mask::From(_))
    }
}

/// Rows one behind the other.
pub(crate) struct Packed {
    rows: Vec<PackedRow>,
    trees: TokenTrees,
    /// The same for a GPU's kernels, where the tokens lie on one.
    varlen: Option<VarlenTrees>,
    /// The sliding window of the layers that have one.
    window: Option<i64>,
    /// Whether a sequence of some row is longer than `window`.
    hides: bool,
    /// The kind that scores are computed in, and where.
    options: (Kind, Device),
    /// Made when a layer first asks for them.
    parts: Option<Parts>,
}

impl Packed {
    /// `window` is the layers' sliding window, if any has one; scores are computed in `kind`.
    pub(crate) fn new(rows: &PackedRows, window: Option<i64>, kind: Kind) -> Self {
        let trees = TokenTrees::new(rows.rows.iter().map(|row| (row.trunk, row.branches.as_slice())));
        let longest = rows.rows.iter().map(|row| row.trunk + row.branches.iter().max().unwrap_or(&0)).max();
        let device = rows.ids.device();
        Self {
            // What those kernels cannot count is libtorch's other attention's, row by row.
            varlen: device.is_cuda().then(|| VarlenTrees::new(&trees, device).ok()).flatten(),
            trees,
            window,
            hides: window.is_some_and(|window| longest.is_some_and(|longest| longest as i64 > window)),
            rows: rows.rows.clone(),
            options: (kind, device),
            parts: None,
        }
    }
}

impl Mixing for Packed {
    fn trees(&self, window: Option<i64>) -> Option<&TokenTrees> {
        (!self.hides || window.is_none()).then_some(&self.trees)
    }

    fn attend(&mut self, _: usize, window: Option<i64>, q: Tensor, k: Tensor, v: Tensor) -> Tensor {
        let tokens = q.size()[0];
        if self.trees(window).is_some() {
            let attended = match &self.varlen {
                Some(trees) => varlen_attention(&q, &k, &v, trees),
                None => tree_attention(&q, &k, &v, &self.trees),
            };
            if let Ok(attended) = attended {
                return attended.reshape([tokens, -1]);
            }
        }
        // Other devices, kinds and widths are libtorch's, and windows that hide something.
        let parts = self.parts.get_or_insert_with(|| Parts::of(&self.rows, self.window, self.options));
        parts.attend(&self.rows, window, &q, &k, &v).transpose(1, 2).reshape([tokens, -1])
    }
}

/// Trunks and branches as operands of libtorch's attention, one call each.
struct Parts {
    /// Tokens of every trunk and branch, in their order.
    tokens: Vec<i64>,
    /// For every trunk and branch what it does not see of its keys.
    masks: Vec<Masks>,
}

impl Parts {
    fn of(rows: &[PackedRow], window: Option<i64>, options: (Kind, Device)) -> Self {
        let of_row = |row: &PackedRow| {
            let branches: Vec<(usize, usize)> =
                row.branches.iter().map(|&branch| (branch, row.trunk + branch)).collect();
            std::iter::once((row.trunk, row.trunk)).chain(branches)
        };
        let parts = rows.iter().flat_map(of_row);
        let (tokens, masks) = parts
            .map(|(queries, keys)| (queries as i64, Masks::of_part(queries, keys, window, options)))
            .unzip();
        Self { tokens, masks }
    }

    /// `q [N, heads, head_dim]`, `k` and `v [N, kv_heads, head_dim]` to `[1, heads, N, head_dim]`.
    fn attend(&self, rows: &[PackedRow], window: Option<i64>, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        // Turned heads first, split and joined once: doing any of it for every part would cost an operation each, and
        // slices of their own a gradient of full size each.
        let split = |x: &Tensor| x.transpose(0, 1).unsqueeze(0).split_with_sizes(self.tokens.as_slice(), 2);
        let (q, k, v) = (split(q), split(k), split(v));
        let mut attended = Vec::with_capacity(q.len());
        let mut trunk = 0;
        for row in rows {
            attended.push(attend(&q[trunk], &k[trunk], &v[trunk], self.masks[trunk].of(window)));
            // Every branch goes the same way, so that which one stands first changes no bit.
            for branch in trunk + 1..=trunk + row.branches.len() {
                let joined = |x: &[Tensor]| Tensor::cat(&[&x[trunk], &x[branch]], 2);
                attended.push(attend(&q[branch], &joined(&k), &joined(&v), self.masks[branch].of(window)));
            }
            trunk += 1 + row.branches.len();
        }
        Tensor::cat(&attended, 2)
    }
}

/// Keys and values of every layer for the sequences that are being generated.
pub(crate) trait KeyValues {
    /// Stores the new keys and values `[B, kv_heads, T, head_dim]` of layer `layer` and returns all so far.
    fn extend(&mut self, layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor);
}

impl<C: KeyValues> KeyValues for &mut C {
    fn extend(&mut self, layer: usize, keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
        (**self).extend(layer, keys, values)
    }
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
    /// Later columns.
    Causal,
    /// `[B, 1, T, S]` bool, true where a query sees a key.
    Explicit(Tensor),
    /// `[B]` i64: the first column that a row's only query sees.
    From(Tensor),
    /// `[T, S]` in the kind of the scores, which it is added to: 0 where a query sees a key, −∞ elsewhere. libtorch makes
    /// one of a bool mask at every call; where a mask serves many layers it is made once.
    Added(Tensor),
}

/// One mask for each distinct window of the model's layers.
pub(crate) struct Masks {
    pub(crate) full: Mask,
    pub(crate) sliding: Option<Mask>,
}

impl Masks {
    fn of(&self, window: Option<i64>) -> &Mask {
        match (window, &self.sliding) {
            (Some(_), Some(mask)) => mask,
            _ => &self.full,
        }
    }

    /// The masks of the last `queries` of `keys` tokens of one sequence, for scores in `kind`.
    fn of_part(queries: usize, keys: usize, window: Option<i64>, options: (Kind, Device)) -> Self {
        let window = window.filter(|&window| keys as i64 > window);
        if queries == keys && window.is_none() {
            return Self { full: Mask::Causal, sliding: None };
        }
        // Filled here rather than by a handful of operations, each of which would take longer than this where texts are
        // short.
        let added = |hides: &dyn Fn(i64) -> bool| {
            let distances =
                (keys - queries..keys).flat_map(|query| (0..keys).map(move |key| query as i64 - key as i64));
            let mask = distances.map(|distance| if hides(distance) { f32::NEG_INFINITY } else { 0.0 });
            let mask = Tensor::from_slice(&mask.collect::<Vec<f32>>()).view([queries as i64, keys as i64]);
            Mask::Added(mask.to_kind(options.0).to_device(options.1))
        };
        let sliding = window.map(|window| added(&|distance| distance < 0 || distance >= window));
        let full = if queries == keys { Mask::Causal } else { added(&|distance| distance < 0) };
        Self { full, sliding }
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

/// Attention of whole rows; all operands `[B, heads, T, head_dim]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Tensor {
    let (mask, causal) = match mask {
        Mask::Causal => (None, true),
        Mask::Explicit(mask) | Mask::Added(mask) => (Some(mask), false),
        Mask::From(_) => unreachable!("rows of several queries have a mask for each"),
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
    match mask {
        Mask::Causal => {}
        Mask::Explicit(seen) => scores = scores.masked_fill(&seen.logical_not(), f64::NEG_INFINITY),
        Mask::From(first) => {
            let column = Tensor::arange(k_shape[2], (Kind::Int64, k.device()));
            let hidden = column.lt_tensor(&first.unsqueeze(-1)).unsqueeze(1).unsqueeze(1);
            scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
        }
        Mask::Added(mask) => scores += mask,
    }
    scores.softmax(-1, Kind::Float).to_kind(q.kind()).matmul(v).view(q_shape.as_slice())
}
