//! Attention of rows with shared prefixes on a GPU, by libtorch's kernels for sequences of different lengths.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::attention::{SharedPrefixRows, check_heads};
use crate::check::check_alike;
use crate::fused::output;
use crate::{TorchExtError, ffi};

/// [`SharedPrefixRows`] as sequences of different lengths: each segment with tokens is a sequence of queries, whose keys are those
/// of its row's prefix and its own.
#[derive(Debug)]
pub struct VarlenRows {
    /// `[M]` i64: the tokens that are the keys of all sequences.
    keys: Tensor,
    /// `[sequences + 1]` i32: cumulative numbers of queries.
    query_ends: Tensor,
    /// `[sequences + 1]` i32: cumulative numbers of keys.
    key_ends: Tensor,
    longest_queries: i64,
    longest_keys: i64,
    tokens: i64,
}

impl VarlenRows {
    /// Converts `rows` for tensors on `device`. Returns `None` where the sequences have more keys than the kernels count, 2³¹ − 1.
    pub fn new(rows: &SharedPrefixRows, device: Device) -> Option<Self> {
        let count = rows.rows().map(key_count).fold(0, i64::saturating_add);
        i32::try_from(count).ok()?;
        let (mut keys, mut sequences) = (Vec::new(), Vec::new());
        let mut first = 0;
        for row in rows.rows() {
            let (prefix, continuations) = prefix_and_continuations(row);
            let mut sequence = |before: Range<i64>, own: Range<i64>| {
                // The kernels need no sequence without queries.
                if !own.is_empty() {
                    sequences.push((own.end - own.start, before.end - before.start + own.end - own.start));
                    keys.extend(before.chain(own));
                }
            };
            let prefix = first..first + prefix;
            sequence(0..0, prefix.clone());
            first = prefix.end;
            for &continuation in continuations {
                sequence(prefix.clone(), first..first + continuation);
                first += continuation;
            }
        }
        let ends = |length: fn(&(i64, i64)) -> i64| {
            let ends = sequences.iter().scan(0, |end, sequence| {
                *end += length(sequence);
                Some(*end)
            });
            let ends: Vec<i64> = std::iter::once(0).chain(ends).collect();
            Tensor::from_slice(&ends).to_kind(Kind::Int).to_device(device)
        };
        let longest = |length: fn(&(i64, i64)) -> i64| sequences.iter().map(length).max().unwrap_or(0);
        Some(Self {
            query_ends: ends(|sequence| sequence.0),
            key_ends: ends(|sequence| sequence.1),
            longest_queries: longest(|sequence| sequence.0),
            longest_keys: longest(|sequence| sequence.1),
            keys: Tensor::from_slice(&keys).to_device(device),
            tokens: rows.tokens(),
        })
    }
}

fn prefix_and_continuations(row: &[i64]) -> (i64, &[i64]) {
    row.split_first().map_or((0, row), |(prefix, continuations)| (*prefix, continuations))
}

/// The number of keys of a row's sequences.
fn key_count(row: &[i64]) -> i64 {
    let (prefix, continuations) = prefix_and_continuations(row);
    continuations
        .iter()
        .fold(prefix, |count, &continuation| count.saturating_add(prefix).saturating_add(continuation))
}

/// Computes [`shared_prefix_attention`](crate::shared_prefix_attention) on a GPU in one call: by libtorch's flash attention for
/// `BFloat16`, by its memory-efficient attention for Float.
///
/// Copies the keys of a prefix for each of its continuations. The gradient is libtorch's own, whose sums on a GPU may have
/// another order in each run.
///
/// # Shapes
/// `q` `[N, heads, d]`, `k` and `v` `[N, kv_heads, d]`, `heads` a multiple of `kv_heads`, N the tokens of `rows`, all on the GPU
/// of `rows`. Returns the shape and kind of `q`; `None` unless d is a multiple of 8 up to 256 and all are Float or `BFloat16`, on
/// a GPU.
///
/// # Errors
/// As [`rms_norm`](crate::rms_norm). [`TorchExtError::Torch`] also where the GPU lacks the kernel: flash attention needs compute
/// capability 8.0.
pub fn varlen_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    rows: &VarlenRows,
) -> Result<Option<Tensor>, TorchExtError> {
    check_alike(&[("the queries", q), ("the keys", k), ("the values", v)])?;
    let (found, expected) = (rows.keys.device(), q.device());
    if found != expected {
        return Err(TorchExtError::Device { tensor: "the rows", found, expected });
    }
    let dim = check_heads([q, k, v], rows.tokens)?;
    if !(q.device().is_cuda() && matches!(q.kind(), Kind::Float | Kind::BFloat16) && is_kernel_width(dim)) {
        return Ok(None);
    }
    let (k, v) = (select(k, &rows.keys)?, select(v, &rows.keys)?);
    output("attend", |out, message| {
        // SAFETY: the tensors are live, `out` points to a handle, and kinds, shapes and devices are checked above: `query_ends`
        // ends at the tokens of `q`, `key_ends` at those of `k`, both int32. A graph holds counted handles of its own.
        unsafe {
            ffi::torch_ext_varlen_attention(
                q.as_ptr(),
                k.as_ptr(),
                v.as_ptr(),
                rows.query_ends.as_ptr(),
                rows.key_ends.as_ptr(),
                rows.longest_queries,
                rows.longest_keys,
                out,
                message,
            )
        }
    })
    .map(Some)
}

/// Whether the kernels support heads of this width.
fn is_kernel_width(dim: i64) -> bool {
    dim > 0 && dim % 8 == 0 && dim <= 256
}

fn select(x: &Tensor, tokens: &Tensor) -> Result<Tensor, TorchExtError> {
    x.f_index_select(0, tokens)
        .map_err(|error| TorchExtError::Torch { what: "copy keys", message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_prefix_attention;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn rows() -> SharedPrefixRows {
        SharedPrefixRows::new([(3, &[2, 4][..]), (0, &[2][..]), (5, &[][..]), (1, &[1][..])])
    }

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor.to_kind(Kind::Int64)).unwrap()
    }

    #[test]
    fn sequences_have_the_keys_of_their_prefix_and_their_own() {
        let rows = SharedPrefixRows::new([(2, &[1, 2][..]), (1, &[][..]), (0, &[1][..])]);
        let rows = VarlenRows::new(&rows, Device::Cpu).unwrap();
        assert_eq!(numbers(&rows.keys), [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6]);
        assert_eq!(numbers(&rows.query_ends), [0, 2, 3, 5, 6, 7]);
        assert_eq!(numbers(&rows.key_ends), [0, 2, 5, 9, 10, 11]);
        assert_eq!((rows.longest_queries, rows.longest_keys), (2, 4));
        assert_eq!(rows.key_ends.kind(), Kind::Int);
    }

    /// Computes the arguments of the kernels as their documentation says, on the CPU.
    #[test]
    fn causal_masks_aligned_to_the_last_query_are_shared_prefix_attention() {
        let rows = rows();
        let tokens = rows.tokens();
        let heads = |heads: i64, seed: f64| {
            let numbers = (Tensor::arange(tokens * heads * 16, CPU) * 0.7 + seed).sin();
            numbers.view([tokens, heads, 16])
        };
        let (q, k, v) = (heads(4, 0.0), heads(2, 1.0), heads(2, 2.0));
        let whole = shared_prefix_attention(&q, &k, &v, &rows).unwrap().unwrap();
        let parts = VarlenRows::new(&rows, Device::Cpu).unwrap();
        let wide = |x: &Tensor| x.index_select(0, &parts.keys).repeat_interleave_self_int(2, 1, None);
        let (k, v) = (wide(&k), wide(&v));
        let (query_ends, key_ends) = (numbers(&parts.query_ends), numbers(&parts.key_ends));
        let mut attended = Vec::new();
        for (queries, keys) in query_ends.windows(2).zip(key_ends.windows(2)) {
            let (m, n) = (queries[1] - queries[0], keys[1] - keys[0]);
            let cut = |x: &Tensor, ends: &[i64]| x.narrow(0, ends[0], ends[1] - ends[0]).transpose(0, 1);
            let scores = cut(&q, queries).matmul(&cut(&k, keys).transpose(1, 2)) / 4.0;
            let later = Tensor::ones([m, n], (Kind::Bool, Device::Cpu)).triu(n - m + 1);
            let weights = scores.masked_fill(&later, f64::NEG_INFINITY).softmax(-1, Kind::Float);
            attended.push(weights.matmul(&cut(&v, keys)).transpose(0, 1));
        }
        let difference = (Tensor::cat(&attended, 0) - whole).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn more_keys_than_the_kernels_count_are_unsupported() {
        for (prefix, continuations) in
            [(1 << 30, &[1, 1][..]), (0, &[1 << 31][..]), (usize::MAX, &[usize::MAX][..])]
        {
            let rows = SharedPrefixRows::new([(prefix, continuations)]);
            assert!(VarlenRows::new(&rows, Device::Cpu).is_none());
        }
    }

    #[test]
    fn a_cpu_is_unsupported() {
        let rows = rows();
        let x = Tensor::zeros([rows.tokens(), 2, 16], CPU);
        let out = varlen_attention(&x, &x, &x, &VarlenRows::new(&rows, Device::Cpu).unwrap());
        assert!(matches!(out, Ok(None)), "{out:?}");
    }

    #[test]
    fn widths_of_the_kernels_are_multiples_of_8_up_to_256() {
        assert!([8, 64, 256].into_iter().all(is_kernel_width));
        assert!(![0, 60, 264].into_iter().any(is_kernel_width));
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let heads = |shape: &[i64]| Tensor::zeros(shape, CPU);
        let (q, k) = (heads(&[7, 4, 64]), heads(&[7, 2, 64]));
        assert_eq!(check_heads([&q, &k, &k], 7).unwrap(), 64);
        for [q, k, v] in [
            [&heads(&[6, 4, 64]), &k, &k],
            [&q, &heads(&[7, 3, 64]), &heads(&[7, 3, 64])],
            [&q, &k, &heads(&[7, 1, 64])],
            [&heads(&[7, 64]), &k, &k],
        ] {
            assert!(matches!(check_heads([q, k, v], 7), Err(TorchExtError::Shape { .. })));
        }
    }
}
