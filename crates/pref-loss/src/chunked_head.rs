//! Token log-probabilities from the last hidden states, in tiles, and their gradients.

use std::cell::OnceCell;

use tch::{Device, Kind, Tensor};

use crate::HeadError;
use crate::sequence_logps::{
    check_device, check_float, check_kind, check_shape, check_targets, compute_kind,
};

/// An LM head (`logits = hidden · weightᵀ`) that scores tokens without materializing `[tokens, vocab]` logits.
///
/// Preference training needs the gradient of one scalar per sequence, and pref-loss computes its slope in closed
/// form. The head therefore runs in two passes without a graph. [`forward`](Self::forward) computes the tokens'
/// log-probabilities, one tile of the logits at a time, with an online log-sum-exp. The loss maps their sums to a
/// coefficient ∂L/∂logp per sequence. [`ScoredTokens::backward`] recomputes the tiles and accumulates the gradients
/// of the hidden states and of the weight. Log-softmax and sums are in float32 (float64 for float64).
///
/// To pass the gradient on to autograd, call `backward` on `(hidden * gradient).sum()`.
///
/// ```
/// use pref_loss::{Beta, ChunkedHead, PairBatch, PairLogps, PairTokens, PreferenceLoss, LossOutput};
/// use tch::{Device, Kind, Tensor};
///
/// // A "trunk" with one parameter, a head of 5 tokens, and one pair: two chosen tokens and one rejected.
/// let scale = Tensor::from(0.5_f32).set_requires_grad(true);
/// let states = Tensor::arange(9, (Kind::Float, Device::Cpu)).view([3, 3]);
/// let hidden = &scale * states;
/// let weight = Tensor::eye(5, (Kind::Float, Device::Cpu)).narrow(1, 0, 3);
/// let targets = Tensor::from_slice(&[1_i64, 4, 2]);
///
/// let scored = ChunkedHead::new(&weight)?.forward(&hidden, &targets)?;
/// let logps: Vec<f32> = Vec::try_from(scored.logps())?;
/// let (chosen, rejected) = ([logps[0] + logps[1]], [logps[2]]);
/// let batch = PairBatch::new(
///     PairLogps { chosen: &chosen, rejected: &rejected },
///     PairLogps { chosen: &[-3.0], rejected: &[-2.0] },
///     PairTokens { chosen: &[2], rejected: &[1] },
/// )?;
/// let mut out = LossOutput::default();
/// PreferenceLoss::Dpo { beta: Beta::new(0.1)? }.evaluate(&batch, &mut out)?;
/// let (chosen, rejected) = (out.chosen_grads()[0], out.rejected_grads()[0]);
/// let coefficients = Tensor::from_slice(&[chosen, chosen, rejected]); // one per token
///
/// let gradients = scored.backward(&coefficients)?;
/// (hidden * gradients.hidden).sum(Kind::Float).backward(); // on through the trunk
/// assert!(scale.grad().double_value(&[]).abs() > 0.0);
/// assert_eq!(gradients.weight.size(), [5, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ChunkedHead {
    weight: Tensor,
    tiles: Option<HeadTiles>,
}

/// Tiling of the logits: the largest tile, and how many tiles are cached between the two passes.
///
/// ```
/// use pref_loss::{ChunkedHead, HeadTiles};
/// use tch::{Device, Kind, Tensor};
///
/// let weight = Tensor::eye(5, (Kind::Float, Device::Cpu));
/// let hidden = Tensor::zeros([3, 5], (Kind::Float, Device::Cpu));
/// let targets = Tensor::from_slice(&[1_i64, 4, 2]);
/// let small = ChunkedHead::new(&weight)?.with_tiles(HeadTiles::new(2, 4, 0)?);
/// let logp = small.forward(&hidden, &targets)?.logps().double_value(&[0]);
/// assert!((logp + 5.0_f64.ln()).abs() < 1e-6);
/// # Ok::<(), pref_loss::HeadError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadTiles {
    rows: i64,
    columns: i64,
    kept: usize,
}

/// Log-probabilities of scored tokens, with the state of the backward pass.
///
/// It shares memory with `hidden` and `weight`: do not modify either before [`backward`](Self::backward).
#[derive(Debug)]
pub struct ScoredTokens {
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    tiles: HeadTiles,
    logps: Tensor,
    /// Of each token's logits, `[tokens, 1]`, and of `exp(logits − maximum)`.
    maximum: Tensor,
    sum: Tensor,
    kept: Vec<KeptTile>,
}

/// Gradients of `Σ coefficient · logp`.
#[derive(Debug)]
pub struct HeadGradients {
    /// With respect to the hidden states, `[tokens, d]`, in the kind of the log-probabilities.
    pub hidden: Tensor,
    /// With respect to the weight, `[vocab, d]`, in the weight's kind.
    pub weight: Tensor,
}

impl HeadTiles {
    /// Creates tiles of at most `rows` tokens and `columns` vocabulary entries; the first `kept` of them are cached.
    ///
    /// # Errors
    /// [`HeadError::EmptyTile`] if either side is 0.
    pub fn new(rows: usize, columns: usize, kept: usize) -> Result<Self, HeadError> {
        if rows == 0 || columns == 0 {
            return Err(HeadError::EmptyTile { rows, columns });
        }
        let side = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        Ok(Self { rows: side(rows), columns: side(columns), kept })
    }

    /// Returns the fastest tiles within a memory budget that does not depend on `tokens`. The columns do not depend
    /// on `tokens` either, so that a token's sum over the vocabulary is batch-invariant.
    fn fit(tokens: i64, vocab: i64, kind: Kind) -> Self {
        let bytes = compute_kind(kind).elt_size_in_bytes() as i64;
        let columns = even(vocab, TILE_COLUMNS);
        let rows = even(tokens.max(1), (TILE_BYTES / bytes / columns).max(1));
        let tile = bytes * rows * columns;
        Self { rows, columns, kept: ((TOTAL_BYTES - tile) / tile).max(0) as usize }
    }
}

impl ChunkedHead {
    /// Creates a head with the given weight, which may be the tied input embedding: `[vocab, d]`, any float kind, no
    /// bias.
    ///
    /// # Errors
    /// [`HeadError::Shape`] and [`HeadError::Kind`].
    pub fn new(weight: &Tensor) -> Result<Self, HeadError> {
        check_float("the head's weight", weight)?;
        let size = weight.size();
        if size.len() != 2 || size[0] == 0 {
            let expected = "[vocab, d]".to_owned();
            return Err(HeadError::Shape { tensor: "the head's weight", expected, found: size });
        }
        Ok(Self { weight: weight.detach(), tiles: None })
    }

    /// Sets the tile sizes. The default depends on the shapes and is fast.
    #[must_use]
    pub fn with_tiles(self, tiles: HeadTiles) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// Forward pass: computes log π(target | context) of every token, without a graph.
    ///
    /// # Shapes
    /// `hidden` `[tokens, d]`, of the weight's kind: the states that *predict* the targets, one position before them.
    /// `targets` `[tokens]` i64. Zero tokens are valid.
    ///
    /// # Errors
    /// [`HeadError::Shape`], [`HeadError::Kind`], [`HeadError::Device`]; [`HeadError::Target`] if a target is not in
    /// the vocabulary (this check synchronizes with the device). NaN in a hidden state propagates to its
    /// log-probability; NaN in the weight propagates to all.
    pub fn forward(&self, hidden: &Tensor, targets: &Tensor) -> Result<ScoredTokens, HeadError> {
        let weight = &self.weight;
        let tokens = self.check_hidden(hidden)?;
        check_kind("targets", targets, &[Kind::Int64])?;
        check_shape("targets", targets, &[tokens])?;
        check_device("targets", targets, weight.device())?;
        check_targets(targets, weight.size()[0])?;
        Ok(tch::no_grad(|| score(&hidden.detach(), weight, targets, self.tiles(tokens))))
    }

    /// Computes log Σ π² over the vocabulary at every token, `[tokens]` in nats, without a graph: the log-probability
    /// that two samples agree. WPO's weights compare it with the token's log-probability; see
    /// [`WpoTokens`](crate::WpoTokens).
    ///
    /// ```
    /// use pref_loss::ChunkedHead;
    /// use tch::{Device, Kind, Tensor};
    ///
    /// // Five tokens, all equally likely.
    /// let weight = Tensor::eye(5, (Kind::Float, Device::Cpu));
    /// let hidden = Tensor::zeros([1, 5], (Kind::Float, Device::Cpu));
    /// let log_collisions = ChunkedHead::new(&weight)?.log_collisions(&hidden)?;
    /// assert!((log_collisions.double_value(&[0]) + 5.0_f64.ln()).abs() < 1e-6);
    /// # Ok::<(), pref_loss::HeadError>(())
    /// ```
    ///
    /// # Shapes
    /// `hidden` `[tokens, d]`, as in [`forward`](Self::forward).
    ///
    /// # Errors
    /// [`HeadError::Shape`], [`HeadError::Kind`] and [`HeadError::Device`].
    pub fn log_collisions(&self, hidden: &Tensor) -> Result<Tensor, HeadError> {
        let tokens = self.check_hidden(hidden)?;
        Ok(tch::no_grad(|| log_collisions(&hidden.detach(), &self.weight, self.tiles(tokens))))
    }

    /// Checks the hidden states and returns the number of tokens.
    fn check_hidden(&self, hidden: &Tensor) -> Result<i64, HeadError> {
        check_kind("hidden states", hidden, &[self.weight.kind()])?;
        let tokens = hidden.size().first().copied().unwrap_or(0);
        check_shape("hidden states", hidden, &[tokens, self.weight.size()[1]])?;
        check_device("hidden states", hidden, self.weight.device())?;
        Ok(tokens)
    }

    fn tiles(&self, tokens: i64) -> HeadTiles {
        let weight = &self.weight;
        self.tiles.unwrap_or_else(|| HeadTiles::fit(tokens, weight.size()[0], weight.kind()))
    }
}

/// Sums of p and p² over validated input, with a running maximum per token, which cancels in the result.
fn log_collisions(hidden: &Tensor, weight: &Tensor, tiles: HeadTiles) -> Tensor {
    let (tokens, vocab) = (hidden.size()[0], weight.size()[0]);
    let (kind, device) = (compute_kind(weight.kind()), weight.device());
    let buffers = Buffers::new(tiles.within(tokens, vocab), weight);
    let per_token = |value: f64| Tensor::full([tokens, 1], value, (kind, device));
    let (maximum, sum, squares) = (per_token(f64::NEG_INFINITY), per_token(0.0), per_token(0.0));
    for tile in tiles.over(tokens, vocab) {
        let mut x = buffers.tile(&tile);
        buffers.logits(&tile, hidden, weight, &x);
        let [mut maximum, mut sum, mut squares] = [&maximum, &sum, &squares].map(|all| tile.rows_of(all));
        let higher = maximum.maximum(&x.amax(1, true));
        let x = x.subtract_(&higher).exp_();
        let rescale = (&maximum - &higher).exp();
        sum.copy_(&(&sum * &rescale + x.sum_dim_intlist(1, true, kind)));
        squares.copy_(&(&squares * rescale.square() + x.square().sum_dim_intlist(1, true, kind)));
        maximum.copy_(&higher);
    }
    (squares.log() - sum.log() * 2.0).squeeze_dim(1)
}

/// Forward pass over validated input, with a running maximum and a running sum of exponentials per token.
fn score(hidden: &Tensor, weight: &Tensor, targets: &Tensor, tiles: HeadTiles) -> ScoredTokens {
    let (tokens, vocab) = (hidden.size()[0], weight.size()[0]);
    let (kind, device) = (compute_kind(weight.kind()), weight.device());
    let buffers = Buffers::new(tiles.within(tokens, vocab), weight);
    let per_token = |value: f64| Tensor::full([tokens, 1], value, (kind, device));
    let (maximum, sum, at_target) = (per_token(f64::NEG_INFINITY), per_token(0.0), per_token(0.0));
    let mut kept = Vec::with_capacity(tiles.kept);
    for (index, tile) in tiles.over(tokens, vocab).enumerate() {
        let keep = index < tiles.kept;
        let mut x =
            if keep { Tensor::empty([tile.rows, tile.columns], (kind, device)) } else { buffers.tile(&tile) };
        buffers.logits(&tile, hidden, weight, &x);
        let (place, hit) = tile.places(targets, vocab);
        let (mut at_target, found) = (tile.rows_of(&at_target), x.gather(1, &place, false));
        at_target.copy_(&match hit {
            None => found,
            Some(hit) => found.where_self(&hit, &at_target),
        });
        let (mut maximum, mut sum) = (tile.rows_of(&maximum), tile.rows_of(&sum));
        let highest = x.amax(1, true);
        // The first tile of these tokens has no running maximum yet.
        let higher = if tile.column == 0 { highest } else { maximum.maximum(&highest) };
        let here = x.subtract_(&higher).exp_().sum_dim_intlist(1, true, kind);
        sum.copy_(&if tile.column == 0 { here } else { &sum * (&maximum - &higher).exp() + here });
        maximum.copy_(&higher);
        if keep {
            let shift = (!tile.is_wide(vocab)).then_some(higher);
            kept.push(KeptTile { exponentials: x, shift });
        }
    }
    ScoredTokens {
        hidden: hidden.shallow_clone(),
        weight: weight.shallow_clone(),
        targets: targets.detach(),
        tiles,
        // This order avoids cancellation for a likely token, whose log-probability is near 0.
        logps: (at_target - &maximum - sum.log()).squeeze_dim(1),
        maximum,
        sum,
        kept,
    }
}

impl ScoredTokens {
    /// Returns the log-probabilities in nats, `[tokens]`: float32, or float64 from float64. Without a graph.
    pub fn logps(&self) -> &Tensor {
        &self.logps
    }

    /// Backward pass: computes the gradients of `Σ coefficient · logp`.
    ///
    /// # Shapes
    /// `coefficients` `[tokens]`, of any float kind: ∂L/∂logp of each token. For a loss of sums it is the coefficient
    /// of the token's sequence.
    ///
    /// # Errors
    /// [`HeadError::Shape`], [`HeadError::Kind`], [`HeadError::Device`].
    pub fn backward(self, coefficients: &Tensor) -> Result<HeadGradients, HeadError> {
        // Without tokens no tile is written.
        let weight = match self.logps.numel() {
            0 => self.weight.zeros_like(),
            _ => self.weight.empty_like(),
        };
        let hidden = self.differentiate(coefficients, Some((&weight, Write::Replace)))?;
        Ok(HeadGradients { hidden, weight })
    }

    /// Adds the weight's gradient to `weight_grad` and returns the hidden states' gradient. Use it for tied
    /// embeddings and for gradient accumulation.
    ///
    /// # Shapes
    /// `weight_grad` `[vocab, d]`, in the weight's kind or in the more precise kind of the log-probabilities.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_into(self, coefficients: &Tensor, weight_grad: &mut Tensor) -> Result<Tensor, HeadError> {
        check_shape("the weight's gradient", weight_grad, &self.weight.size())?;
        check_kind("the weight's gradient", weight_grad, &[self.weight.kind(), self.logps.kind()])?;
        check_device("the weight's gradient", weight_grad, self.weight.device())?;
        self.differentiate(coefficients, Some((weight_grad, Write::Add)))
    }

    /// Computes the hidden states' gradient only, for a frozen weight. This saves one of three matrix products.
    ///
    /// # Errors
    /// As [`backward`](Self::backward).
    pub fn backward_hidden(self, coefficients: &Tensor) -> Result<Tensor, HeadError> {
        self.differentiate(coefficients, None)
    }

    fn differentiate(
        self,
        coefficients: &Tensor,
        weight_grad: Option<(&Tensor, Write)>,
    ) -> Result<Tensor, HeadError> {
        check_float("coefficients", coefficients)?;
        check_shape("coefficients", coefficients, &self.logps.size())?;
        check_device("coefficients", coefficients, self.logps.device())?;
        let weight_grad = weight_grad.map(|(gradient, write)| (gradient.detach(), write));
        Ok(tch::no_grad(|| self.gradients(coefficients, weight_grad)))
    }

    /// `coefficient · (onehot − softmax)` of every tile, times the weight's slice and times the hidden states.
    fn gradients(self, coefficients: &Tensor, weight_grad: Option<(Tensor, Write)>) -> Tensor {
        let Self { hidden, weight, targets, tiles, logps, maximum, sum, kept } = self;
        let (tokens, vocab) = (hidden.size()[0], weight.size()[0]);
        let hidden_grad = Tensor::empty(hidden.size(), (logps.kind(), logps.device()));
        let negated = coefficients.detach().to_kind(logps.kind()).neg().unsqueeze(1);
        let scale = &negated / sum;
        let buffers = Buffers::new(tiles.within(tokens, vocab), &weight);
        let mut kept = kept.into_iter();
        for tile in tiles.over(tokens, vocab) {
            let (maximum, scale) = (tile.rows_of(&maximum), tile.rows_of(&scale));
            let mut x = match kept.next() {
                Some(KeptTile { mut exponentials, shift: None }) => exponentials.multiply_(&scale),
                Some(KeptTile { mut exponentials, shift: Some(shift) }) => {
                    exponentials.multiply_(&((shift - maximum).exp() * scale))
                }
                None => {
                    let mut logits = buffers.tile(&tile);
                    buffers.logits(&tile, &hidden, &weight, &logits);
                    logits.subtract_(&maximum).exp_().multiply_(&scale)
                }
            };
            // Before the products, since 1 − softmax cancels for a likely token.
            let (place, hit) = tile.places(&targets, vocab);
            let negated = tile.rows_of(&negated);
            let of_targets = match hit {
                None => negated.neg(),
                Some(hit) => (negated * hit).neg(),
            };
            let _ = x.scatter_add_(1, &place, &of_targets);
            let x = buffers.to_weight_kind(&tile, x);
            let first_columns = if tile.column == 0 { Write::Replace } else { Write::Add };
            buffers.product(&tile.rows_of(&hidden_grad), &x, &tile.columns_of(&weight), first_columns);
            if let Some((weight_grad, write)) = &weight_grad {
                let first_rows = if tile.row == 0 { *write } else { Write::Add };
                buffers.product(&tile.columns_of(weight_grad), &x.tr(), &tile.rows_of(&hidden), first_rows);
            }
        }
        hidden_grad
    }
}

/// A cached tile of the forward pass: `exp(logits − shift)`. For a tile of the whole vocabulary the shift is the
/// maximum.
#[derive(Debug)]
struct KeptTile {
    exponentials: Tensor,
    shift: Option<Tensor>,
}

/// Whether a product overwrites its output or adds to it.
#[derive(Clone, Copy)]
enum Write {
    Replace,
    Add,
}

/// A block of the logits: a range of tokens and a range of the vocabulary.
struct Tile {
    row: i64,
    rows: i64,
    column: i64,
    columns: i64,
}

impl HeadTiles {
    fn within(self, tokens: i64, vocab: i64) -> Self {
        Self { rows: self.rows.min(tokens.max(1)), columns: self.columns.min(vocab), ..self }
    }

    /// Iterates over all tiles, tokens first, so that a slice of the weight and of its gradient stays in the cache.
    fn over(self, tokens: i64, vocab: i64) -> impl Iterator<Item = Tile> {
        let Self { rows, columns, .. } = self.within(tokens, vocab);
        (0..vocab).step_by(columns as usize).flat_map(move |column| {
            (0..tokens).step_by(rows as usize).map(move |row| Tile {
                row,
                rows: rows.min(tokens - row),
                column,
                columns: columns.min(vocab - column),
            })
        })
    }
}

impl Tile {
    fn rows_of(&self, per_token: &Tensor) -> Tensor {
        per_token.narrow(0, self.row, self.rows)
    }

    fn columns_of(&self, per_entry: &Tensor) -> Tensor {
        per_entry.narrow(0, self.column, self.columns)
    }

    fn view(&self, buffer: &Tensor) -> Tensor {
        buffer.narrow(0, 0, self.rows * self.columns).view([self.rows, self.columns])
    }

    /// Returns whether the tile spans the whole vocabulary.
    fn is_wide(&self, vocab: i64) -> bool {
        self.columns == vocab
    }

    /// Returns the targets' columns in this tile, `[rows, 1]`, and a mask of those inside it, or `None` if all are.
    /// Columns outside the tile are clamped.
    fn places(&self, targets: &Tensor, vocab: i64) -> (Tensor, Option<Tensor>) {
        let place = self.rows_of(targets).unsqueeze(1);
        if self.is_wide(vocab) {
            return (place, None);
        }
        let place = place - self.column;
        let hit = place.ge(0).logical_and(&place.lt(self.columns));
        (place.clamp(0, self.columns - 1), Some(hit))
    }
}

/// Buffers that all tiles share. The operating system would map a new allocation of this size for every tile.
struct Buffers {
    elements: i64,
    like: (Kind, Device),
    tile: OnceCell<Tensor>,
    low: Option<LowPrecision>,
}

/// Operands and results of products in a low-precision kind.
struct LowPrecision {
    tile: Tensor,
    product: Tensor,
}

impl Buffers {
    fn new(tiles: HeadTiles, weight: &Tensor) -> Self {
        let (kind, device) = (compute_kind(weight.kind()), weight.device());
        let flat = |elements: i64, kind: Kind| Tensor::empty([elements], (kind, device));
        let elements = tiles.rows * tiles.columns;
        let low = (weight.kind() != kind).then(|| LowPrecision {
            tile: flat(elements, weight.kind()),
            product: flat(elements.max(weight.size()[1]), weight.kind()),
        });
        Self { elements, like: (kind, device), tile: OnceCell::new(), low }
    }

    fn tile(&self, tile: &Tile) -> Tensor {
        tile.view(self.tile.get_or_init(|| Tensor::empty([self.elements], self.like)))
    }

    fn logits(&self, tile: &Tile, hidden: &Tensor, weight: &Tensor, out: &Tensor) {
        let (hidden, weight) = (tile.rows_of(hidden), tile.columns_of(weight).tr());
        match &self.low {
            None => drop(hidden.mm_out(out, &weight)),
            Some(low) => out.shallow_clone().copy_(&hidden.mm_out(&tile.view(&low.tile), &weight)),
        }
    }

    fn to_weight_kind(&self, tile: &Tile, x: Tensor) -> Tensor {
        match &self.low {
            None => x,
            Some(low) => {
                let mut rounded = tile.view(&low.tile);
                rounded.copy_(&x);
                rounded
            }
        }
    }

    /// Computes `out = a · b` or `out += a · b`; sums over tiles have the kind of `out`.
    fn product(&self, out: &Tensor, a: &Tensor, b: &Tensor, write: Write) {
        let mut out = out.shallow_clone();
        match (&self.low, write) {
            (Some(low), _) if out.kind() != a.kind() => {
                let width = b.size()[1];
                let most = low.product.numel() as i64 / width.max(1);
                for row in (0..out.size()[0]).step_by(most as usize) {
                    let rows = most.min(out.size()[0] - row);
                    let product = low.product.narrow(0, 0, rows * width).view([rows, width]);
                    let product = a.narrow(0, row, rows).mm_out(&product, b);
                    let mut out = out.narrow(0, row, rows);
                    match write {
                        Write::Replace => out.copy_(&product),
                        Write::Add => drop(out.g_add_(&product)),
                    }
                }
            }
            (_, Write::Replace) => drop(a.mm_out(&out, b)),
            (_, Write::Add) => drop(out.addmm_(a, b)),
        }
    }
}

/// Largest size of a tile. More tokens per tile read the weight and its gradient less often.
const TILE_BYTES: i64 = 16 << 20;
/// Narrow enough to leave the tile enough tokens for matrix products at full speed.
const TILE_COLUMNS: i64 = 4096;
/// Memory budget of a head. Whatever the buffer leaves is used to cache tiles, each of which saves a product in the
/// backward pass.
const TOTAL_BYTES: i64 = 24 << 20;

/// Returns the largest part when `length` is split evenly into parts of at most `most`.
fn even(length: i64, most: i64) -> i64 {
    let parts = (length + most - 1) / most;
    (length + parts - 1) / parts.max(1)
}
