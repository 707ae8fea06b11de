//! Kernels for decoding one token at a time: products of few rows, and attention of one query per row.

use tch::{Device, Kind, Tensor};

use crate::check::{check_alike, check_kind, check_shape, has_kernel, is_dense, is_plain, is_whole_vectors};
use crate::{InstructionSet, TorchExtError, ffi};

/// Returns the number of rows up to which [`decode_linear`] is faster than libtorch's product in `kind`, on this processor.
pub fn max_decode_rows(kind: Kind) -> i64 {
    let has_tiles = kind == Kind::BFloat16 && InstructionSet::widest() == InstructionSet::Amx;
    if has_tiles { 64 } else { 4 }
}

/// `x · weightᵀ` for an `x` of few rows, where reading the weight dominates the time, as in text generation.
///
/// libtorch computes a single row on one thread, and repacks the weight for every product of several rows. This kernel reads
/// the weight once, in place, on all threads. In bfloat16 it uses AMX tiles where the processor has them and `in` and `out` are
/// multiples of 32. Sums are in fp32 and rounded once, and no row depends on another. The result has no graph.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).view([1, 2]);
/// let weight = Tensor::from_slice(&[3f32, 4.0, 5.0, 6.0, 7.0, 8.0]).view([3, 2]);
/// let product = torch_ext::decode_linear(&x, &weight)?.expect("a supported kind");
/// assert_eq!(Vec::<f32>::try_from(product.view(-1))?, [11.0, 17.0, 23.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `x` `[rows, in]`, `weight` `[out, in]`; any number of rows is correct, few are fast. Returns `[rows, out]` in their kind;
/// `None` unless both are Float or `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// As [`rms_norm`](crate::rms_norm).
pub fn decode_linear(x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>, TorchExtError> {
    let operands = [("x", x), ("the weight", weight)];
    check_alike(&operands)?;
    let (shape, columns) = (x.size(), weight.size());
    let &[outs, width] = columns.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "the weight", found: columns, expected: vec![-1, -1] });
    };
    let rows = match *shape.as_slice() {
        [rows, found] if found == width => rows,
        _ => return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![-1, width] }),
    };
    if !has_kernel(&operands) {
        return Ok(None);
    }
    let mut out = empty(&[rows, outs], weight.kind())?;
    ffi::call("multiply", |message| {
        // SAFETY: all pointers come from live references and are used during the call only; `out` is fresh, so that no other
        // tensor shares its memory. The shim checks kinds, shapes and layouts before it reads memory.
        unsafe { ffi::torch_ext_decode_linear(out.as_mut_ptr(), x.as_ptr(), weight.as_ptr(), message) }
    })?;
    Ok(Some(out))
}

/// Attention of one query per row over cached keys and values: `softmax(q · kᵀ / √d) · v`, computed in fp32 and rounded once.
///
/// Row `b` sees the columns from `first[b]` on; earlier ones, such as padding, are not read. Heads that share keys are computed
/// together. The result has no graph.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// // One row, one head of sixteen numbers; two columns with equal keys, of which the second one is visible.
/// let ones = Tensor::ones([1, 1, 16], (Kind::Float, Device::Cpu));
/// let (keys, values) = (ones.unsqueeze(2).repeat([1, 1, 2, 1]), Tensor::arange(32, (Kind::Float, Device::Cpu)));
/// let second = Tensor::from_slice(&[1_i64]);
/// let attended = torch_ext::decode_attention(&ones, &keys, &values.view([1, 1, 2, 16]), &second)?;
/// assert_eq!(attended.expect("a supported width").double_value(&[0, 0, 3]), 19.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `q` `[B, heads, d]`, `k` and `v` `[B, kv_heads, S, d]`, `heads` a multiple of `kv_heads`, d and S at least 1; `first` `[B]` i64,
/// where a row sees its last column in any case. Returns `[B, heads, d]`; `None` unless d is a multiple of 16, `q`, `k` and `v`
/// are Float or `BFloat16`, all are on the CPU, `q` and `first` are contiguous, and the columns of `k` and `v` are contiguous and
/// do not overlap.
///
/// # Errors
/// As [`rms_norm`](crate::rms_norm).
pub fn decode_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    first: &Tensor,
) -> Result<Option<Tensor>, TorchExtError> {
    check_alike(&[("the queries", q), ("the keys", k), ("the values", v)])?;
    check_kind("the first columns", first, Kind::Int64)?;
    let (q_shape, k_shape) = (q.size(), k.size());
    let (rows, heads, dim) = match *q_shape.as_slice() {
        [rows, heads, dim] if heads > 0 && dim > 0 => (rows, heads, dim),
        _ => {
            let expected = vec![-1, -1, -1];
            return Err(TorchExtError::Shape { tensor: "the queries", found: q_shape, expected });
        }
    };
    let fits = matches!(*k_shape.as_slice(), [b, kv_heads, columns, d]
        if b == rows && d == dim && columns > 0 && kv_heads > 0 && heads % kv_heads == 0);
    if !fits {
        let expected = vec![rows, -1, -1, dim];
        return Err(TorchExtError::Shape { tensor: "the keys", found: k_shape, expected });
    }
    check_shape("the values", v, &k_shape)?;
    check_shape("the first columns", first, &[rows])?;
    let is_supported = is_whole_vectors(dim)
        && has_kernel(&[("the queries", q)])
        && is_dense(first)
        && has_columns(k)
        && has_columns(v);
    if !is_supported {
        return Ok(None);
    }
    let mut out = empty(&q_shape, q.kind())?;
    ffi::call("attend", |message| {
        // SAFETY: all pointers come from live references and are used during the call only; `out` is fresh, so that no other
        // tensor shares its memory. The shim checks kinds, shapes and strides before it reads memory, and clamps `first`.
        unsafe {
            ffi::torch_ext_decode_attention(
                out.as_mut_ptr(),
                q.as_ptr(),
                k.as_ptr(),
                v.as_ptr(),
                first.as_ptr(),
                message,
            )
        }
    })?;
    Ok(Some(out))
}

/// Whether the columns of a cache `[B, kv_heads, S, d]` are contiguous and do not overlap.
fn has_columns(cache: &Tensor) -> bool {
    is_plain(cache) && {
        let (shape, strides) = (cache.size(), cache.stride());
        strides[3] == 1 && (shape[2] == 1 || strides[2] >= shape[3])
    }
}

fn empty(shape: &[i64], kind: Kind) -> Result<Tensor, TorchExtError> {
    Tensor::f_empty(shape, (kind, Device::Cpu))
        .map_err(|error| TorchExtError::Torch { what: "allocate a result", message: error.to_string() })
}
