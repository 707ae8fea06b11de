//! Attention of rows with shared prefixes, for training and scoring on a CPU.

use tch::Tensor;

use crate::check::{check_alike, check_shape, has_kernel, is_whole_vectors};
use crate::fused::output;
use crate::{TorchExtError, ffi};

/// The layout of packed tokens: rows of one prefix and any number of continuations each.
///
/// The mask of a prefix is causal. A token of a continuation sees the whole prefix, and its continuation up to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPrefixRows {
    /// For every row its number of segments, then their lengths.
    lengths: Vec<i64>,
    tokens: i64,
}

impl SharedPrefixRows {
    /// Creates a layout from the lengths of each row's prefix and continuations, in the order of their tokens.
    pub fn new<'a>(rows: impl IntoIterator<Item = (usize, &'a [usize])>) -> Self {
        // No tensor has this many tokens, so that such a layout fits none.
        let length = |tokens: usize| i64::try_from(tokens).unwrap_or(i64::MAX);
        let (mut lengths, mut tokens) = (Vec::new(), 0_i64);
        for (prefix, continuations) in rows {
            lengths.push(1 + length(continuations.len()));
            for segment in std::iter::once(prefix).chain(continuations.iter().copied()).map(length) {
                lengths.push(segment);
                tokens = tokens.saturating_add(segment);
            }
        }
        Self { lengths, tokens }
    }

    /// Returns the number of tokens of all rows.
    pub fn tokens(&self) -> i64 {
        self.tokens
    }

    /// For every row its number of segments, then their lengths.
    pub(crate) fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// The segment lengths of every row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[i64]> {
        let mut rest = self.lengths.as_slice();
        std::iter::from_fn(move || {
            let (&segments, behind) = rest.split_first()?;
            let (row, behind) = behind.split_at(segments as usize);
            rest = behind;
            Some(row)
        })
    }
}

/// Attention of packed rows, `softmax(q · kᵀ / √d) · v` under the mask of `rows`, with a gradient
/// ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), in tiles as in
/// [Dao et al. 2022](https://arxiv.org/abs/2205.14135)).
///
/// Computes scores in fp32, one tile at a time, and recomputes them in the backward pass. A graph keeps the operands, the
/// result, and one number per query and head. Results are rounded once. They do not depend on the number of threads, on other
/// rows, or on the order of two continuations. Gradients have no graph.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use torch_ext::{SharedPrefixRows, shared_prefix_attention};
///
/// // A prefix of one token and two continuations of one: equal keys, so that each token averages the prefix and itself.
/// let ones = Tensor::ones([3, 1, 16], (Kind::Float, Device::Cpu));
/// let values = Tensor::from_slice(&[1f32, 3.0, 7.0]).view([3, 1, 1]) * &ones;
/// let rows = SharedPrefixRows::new([(1, &[1, 1][..])]);
/// let attended = shared_prefix_attention(&ones, &ones, &values, &rows)?.expect("a supported width");
/// assert_eq!(Vec::<f32>::try_from(attended.select(2, 0).view(-1))?, [1.0, 2.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `q` `[N, heads, d]`, `k` and `v` `[N, kv_heads, d]`, `heads` a multiple of `kv_heads`, N the tokens of `rows`. Returns the
/// shape and kind of `q`; `None` unless d is a multiple of 16 and all are Float or `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// As [`rms_norm`](crate::rms_norm).
pub fn shared_prefix_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    rows: &SharedPrefixRows,
) -> Result<Option<Tensor>, TorchExtError> {
    let operands = [("the queries", q), ("the keys", k), ("the values", v)];
    check_alike(&operands)?;
    let dim = check_heads([q, k, v], rows.tokens)?;
    if !is_whole_vectors(dim) || !has_kernel(&operands) {
        return Ok(None);
    }
    output("attend", |out, message| {
        let lengths = rows.lengths();
        // SAFETY: the tensors are live, `out` points to a handle, and the shim checks kinds, shapes, layouts and `lengths` before
        // it reads memory. `lengths` is read during the call only; a graph holds a copy, and counted handles of its own.
        unsafe {
            ffi::torch_ext_shared_prefix_attention(
                q.as_ptr(),
                k.as_ptr(),
                v.as_ptr(),
                lengths.as_ptr(),
                lengths.len(),
                out,
                message,
            )
        }
    })
    .map(Some)
}

/// Checks the shapes of queries, keys and values of so many tokens, and returns the width of a head.
pub(crate) fn check_heads([q, k, v]: [&Tensor; 3], tokens: i64) -> Result<i64, TorchExtError> {
    let (q_shape, k_shape) = (q.size(), k.size());
    let (heads, dim) = match *q_shape.as_slice() {
        [found, heads, dim] if found == tokens => (heads, dim),
        _ => {
            let expected = vec![tokens, -1, -1];
            return Err(TorchExtError::Shape { tensor: "the queries", found: q_shape, expected });
        }
    };
    let fits = matches!(*k_shape.as_slice(), [n, kv_heads, d]
        if n == tokens && d == dim && kv_heads > 0 && heads % kv_heads == 0);
    if !fits {
        let expected = vec![tokens, heads, dim];
        return Err(TorchExtError::Shape { tensor: "the keys", found: k_shape, expected });
    }
    check_shape("the values", v, &k_shape)?;
    Ok(dim)
}
