//! What decoding one token at a time takes: products with few rows, and attention of one query.

use tch::{Device, Kind, Tensor};

use crate::check::{check_kind, check_place, check_stored};
use crate::{TorchExtError, ffi};

/// Up to how many rows [`narrow_linear`] is faster than libtorch's own product, on this processor and in `kind`.
pub fn narrow_rows(kind: Kind) -> i64 {
    // SAFETY: the function takes nothing, and asks processor and system once.
    let has_tiles = kind == Kind::BFloat16 && unsafe { ffi::torch_ext_has_tiles() } != 0;
    if has_tiles { 64 } else { 4 }
}

/// `x · weightᵀ` for an `x` of so few rows that reading the weight is what takes the time, as when a model writes texts.
///
/// libtorch gives a single row to one thread, and arranges the weight anew for every product of several. This one reads the
/// weight once, as it lies, with all of libtorch's threads; in bfloat16 a processor with AMX multiplies tiles of it, where `in`
/// and `out` are multiples of 32. Sums are in fp32 and rounded once, and no row depends on how many there are. The result has no
/// graph.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).view([1, 2]);
/// let weight = Tensor::from_slice(&[3f32, 4.0, 5.0, 6.0, 7.0, 8.0]).view([3, 2]);
/// let product = torch_ext::narrow_linear(&x, &weight)?;
/// assert_eq!(Vec::<f32>::try_from(product.view(-1))?, [11.0, 17.0, 23.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `x` `[rows, in]`, `weight` `[out, in]`, both Float or both `BFloat16`, contiguous, on the CPU; returns `[rows, out]` in
/// their kind. Any number of rows is right, few are fast.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn narrow_linear(x: &Tensor, weight: &Tensor) -> Result<Tensor, TorchExtError> {
    let (shape, columns) = (x.size(), weight.size());
    let kind = weight.kind();
    check_stored("the weight", weight)?;
    check_kind("x", x, kind)?;
    let &[outs, width] = columns.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "the weight", found: columns, expected: vec![-1, -1] });
    };
    let &[rows, given] = shape.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![-1, width] });
    };
    if given != width {
        return Err(TorchExtError::Shape { tensor: "x", found: shape, expected: vec![rows, width] });
    }
    for (tensor, given) in [("x", x), ("the weight", weight)] {
        check_place(tensor, given)?;
        if !given.is_contiguous() {
            return Err(TorchExtError::NotContiguous { tensor });
        }
    }
    let mut out = Tensor::empty([rows, outs], (kind, Device::Cpu));
    ffi::call("multiply", |message| {
        // SAFETY: all three pointers come from live references and are used during the call only; `out` is fresh, so that
        // nothing else has its memory, and kinds, shapes and layout are the ones that the shim takes for granted.
        unsafe { ffi::torch_ext_narrow_linear(out.as_mut_ptr(), x.as_ptr(), weight.as_ptr(), message) }
    })?;
    Ok(out)
}

/// Attention of one query a row over keys and values in a cache: `softmax(q · kᵀ / √d) · v`, computed in fp32 and rounded once.
///
/// Row `b` sees the columns from `first[b]` on; what lies before them, such as padding, is not even read. Heads that share
/// keys are computed together. libtorch's kernels are made for many queries. The result has no graph.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// // One row, one head, sixteen numbers a head; two columns whose keys are alike, of which the second alone is seen.
/// let ones = Tensor::ones([1, 1, 16], (Kind::Float, Device::Cpu));
/// let (keys, values) = (ones.unsqueeze(2).repeat([1, 1, 2, 1]), Tensor::arange(32, (Kind::Float, Device::Cpu)));
/// let second = Tensor::from_slice(&[1_i64]);
/// let seen = torch_ext::decode_attention(&ones, &keys, &values.view([1, 1, 2, 16]), &second)?;
/// assert_eq!(seen.double_value(&[0, 0, 3]), 19.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `q` `[B, heads, d]` contiguous; `k` and `v` `[B, kv_heads, S, d]`, S at least 1, in which the `d` numbers of a place lie in
/// one piece; all three Float or all `BFloat16`. `first` `[B]` i64; a row sees its last column in any case. All on the CPU,
/// `heads` a multiple of `kv_heads` and `d` of 16. Returns `[B, heads, d]`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn decode_attention(q: &Tensor, k: &Tensor, v: &Tensor, first: &Tensor) -> Result<Tensor, TorchExtError> {
    let (of_q, of_k) = (q.size(), k.size());
    let kind = q.kind();
    check_stored("the queries", q)?;
    check_kind("the keys", k, kind)?;
    check_kind("the values", v, kind)?;
    check_kind("the first columns", first, Kind::Int64)?;
    let &[rows, heads, dim] = of_q.as_slice() else {
        return Err(TorchExtError::Shape { tensor: "the queries", found: of_q, expected: vec![-1, -1, -1] });
    };
    let fits = matches!(*of_k.as_slice(), [b, kv_heads, columns, d]
        if b == rows && d == dim && columns > 0 && kv_heads > 0 && heads % kv_heads == 0 && dim % 16 == 0);
    if !fits {
        return Err(TorchExtError::Shape {
            tensor: "the keys",
            found: of_k,
            expected: vec![rows, -1, -1, dim],
        });
    }
    if v.size() != of_k {
        return Err(TorchExtError::Shape { tensor: "the values", found: v.size(), expected: of_k });
    }
    if first.size() != [rows] {
        let found = first.size();
        return Err(TorchExtError::Shape { tensor: "the first columns", found, expected: vec![rows] });
    }
    for (tensor, given) in
        [("the queries", q), ("the keys", k), ("the values", v), ("the first columns", first)]
    {
        check_place(tensor, given)?;
        let lies_in_one = match tensor {
            "the keys" | "the values" => dim == 1 || given.stride().last() == Some(&1),
            _ => given.is_contiguous(),
        };
        if !lies_in_one {
            return Err(TorchExtError::NotContiguous { tensor });
        }
    }
    let mut out = Tensor::empty([rows, heads, dim], (kind, Device::Cpu));
    ffi::call("attend", |message| {
        // SAFETY: all five pointers come from live references and are used during the call only; `out` is fresh, so that
        // nothing else has its memory, and kinds, shapes and layout are the ones that the shim takes for granted. It reads
        // columns from `first` on, and clamps that into the cache.
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
    Ok(out)
}
