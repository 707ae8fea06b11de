//! The two residual blocks of a decoder layer, each as one autograd node.
//!
//! Composed of single operations they are two dozen nodes per layer, whose overhead exceeds the arithmetic of short texts and
//! small models. The forward pass is bitwise identical to the composed kernels. The backward pass sums the gradients of an input
//! before it rounds them. Gradients have no graph.

use tch::Tensor;

use crate::check::{Operand, check_alike, check_shape, has_kernel, is_whole_vectors};
use crate::ffi;
use crate::fused::output;
use crate::{SharedPrefixRows, TorchExtError};

/// The weights of an attention block, named as in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBlock<'a> {
    /// `[hidden]`: the norm before the projections.
    pub input_layernorm: &'a Tensor,
    /// Added to the mean square inside that norm.
    pub eps: f64,
    /// `[heads · d, hidden]`.
    pub q_proj: &'a Tensor,
    /// `[kv_heads · d, hidden]`.
    pub k_proj: &'a Tensor,
    /// `[kv_heads · d, hidden]`.
    pub v_proj: &'a Tensor,
    /// `[hidden, heads · d]`.
    pub o_proj: &'a Tensor,
    /// Biases of the query, key and value projections.
    pub biases: Option<[&'a Tensor; 3]>,
}

/// The weights of a gated feed-forward block, named as in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct GatedBlock<'a> {
    /// `[hidden]`: the norm before the projections.
    pub post_attention_layernorm: &'a Tensor,
    /// Added to the mean square inside that norm.
    pub eps: f64,
    /// `[intermediate, hidden]`.
    pub gate_proj: &'a Tensor,
    /// `[intermediate, hidden]`.
    pub up_proj: &'a Tensor,
    /// `[hidden, intermediate]`.
    pub down_proj: &'a Tensor,
}

/// Computes `x + o_proj(attention(q, k, v))`: projections of [`rms_norm`](crate::rms_norm)`(x)`, with queries and keys
/// [rotated](crate::rotate), under the mask of `rows` ([`shared_prefix_attention`](crate::shared_prefix_attention)).
///
/// # Shapes
/// `x` `[N, hidden]`, N the tokens of `rows`; `cos` and `sin` `[N, 1, d]`, which get no gradient; `heads` a multiple of
/// `kv_heads`. Returns the shape and kind of `x`; `None` unless hidden and d are multiples of 16 and all are Float or
/// `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// As [`rms_norm`](crate::rms_norm).
pub fn attention_block(
    x: &Tensor,
    weights: &AttentionBlock<'_>,
    (cos, sin): (&Tensor, &Tensor),
    rows: &SharedPrefixRows,
) -> Result<Option<Tensor>, TorchExtError> {
    let AttentionBlock { input_layernorm, eps, q_proj, k_proj, v_proj, o_proj, biases } = *weights;
    let (hidden, dim) = (width(x), width(cos));
    // At least one head of keys, and equally many query heads for each.
    let heads = (height(q_proj) / dim.max(1)).max(1);
    let kv_heads = Some(height(k_proj) / dim.max(1)).filter(|&kv| kv > 0 && heads % kv == 0).unwrap_or(heads);
    let (q_width, kv_width) = (heads.saturating_mul(dim), kv_heads.saturating_mul(dim));
    let mut shapes = vec![
        (("x", x), vec![rows.tokens(), hidden]),
        (("the cosines", cos), vec![rows.tokens(), 1, dim]),
        (("the sines", sin), vec![rows.tokens(), 1, dim]),
        (("the norm", input_layernorm), vec![hidden]),
        (("q_proj", q_proj), vec![q_width, hidden]),
        (("k_proj", k_proj), vec![kv_width, hidden]),
        (("v_proj", v_proj), vec![kv_width, hidden]),
        (("o_proj", o_proj), vec![hidden, q_width]),
    ];
    if let Some([q, k, v]) = biases {
        shapes.push((("the bias of q_proj", q), vec![q_width]));
        shapes.push((("the bias of k_proj", k), vec![kv_width]));
        shapes.push((("the bias of v_proj", v), vec![kv_width]));
    }
    if !(check_operands(&shapes)? && is_whole_vectors(hidden) && is_whole_vectors(dim)) {
        return Ok(None);
    }
    let [q_bias, k_bias, v_bias] =
        biases.map_or([std::ptr::null(); 3], |biases| biases.map(|bias| bias.as_ptr()));
    let block = ffi::AttentionBlock {
        norm: input_layernorm.as_ptr(),
        q_proj: q_proj.as_ptr(),
        k_proj: k_proj.as_ptr(),
        v_proj: v_proj.as_ptr(),
        o_proj: o_proj.as_ptr(),
        q_bias,
        k_bias,
        v_bias,
        cos: cos.as_ptr(),
        sin: sin.as_ptr(),
        lengths: rows.lengths().as_ptr(),
        count: rows.lengths().len(),
        eps,
    };
    output("compute an attention block", |out, message| {
        // SAFETY: the tensors are live or null, `out` points to a handle, and the shim checks kinds, shapes, layouts and lengths
        // before it reads memory. All of it is read during the call only; a graph holds counted handles and a copy.
        unsafe { ffi::torch_ext_attention_block(x.as_ptr(), &raw const block, out, message) }
    })
    .map(Some)
}

/// Computes `x + down_proj(`[`swiglu`](crate::swiglu)`(gate_proj(n), up_proj(n)))` with `n = `[`rms_norm`](crate::rms_norm)`(x)`.
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use torch_ext::{GatedBlock, gated_block};
///
/// let (x, ones) = (Tensor::full([1, 16], 3.0, (Kind::Float, Device::Cpu)), Tensor::ones([16], (Kind::Float, Device::Cpu)));
/// let identity = Tensor::eye(16, (Kind::Float, Device::Cpu));
/// let weights = GatedBlock {
///     post_attention_layernorm: &ones,
///     eps: 0.0,
///     gate_proj: &identity,
///     up_proj: &identity,
///     down_proj: &identity,
/// };
/// // The norm is 1: 3 + silu(1) · 1.
/// let expected = 3.0 + 1.0 / (1.0 + (-1f64).exp());
/// let out = gated_block(&x, &weights)?.expect("supported widths");
/// assert!((out.double_value(&[0, 5]) - expected).abs() < 1e-6);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `x` `[N, hidden]`. Returns the shape and kind of `x`; `None` unless hidden and intermediate are multiples of 16 and all are
/// Float or `BFloat16`, contiguous, on the CPU.
///
/// # Errors
/// As [`rms_norm`](crate::rms_norm).
pub fn gated_block(x: &Tensor, weights: &GatedBlock<'_>) -> Result<Option<Tensor>, TorchExtError> {
    let GatedBlock { post_attention_layernorm, eps, gate_proj, up_proj, down_proj } = *weights;
    let (tokens, hidden, intermediate) = (height(x), width(x), height(gate_proj));
    let shapes = [
        (("x", x), vec![tokens, hidden]),
        (("the norm", post_attention_layernorm), vec![hidden]),
        (("gate_proj", gate_proj), vec![intermediate, hidden]),
        (("up_proj", up_proj), vec![intermediate, hidden]),
        (("down_proj", down_proj), vec![hidden, intermediate]),
    ];
    if !(check_operands(&shapes)? && is_whole_vectors(hidden) && is_whole_vectors(intermediate)) {
        return Ok(None);
    }
    let block = ffi::GatedBlock {
        norm: post_attention_layernorm.as_ptr(),
        gate_proj: gate_proj.as_ptr(),
        up_proj: up_proj.as_ptr(),
        down_proj: down_proj.as_ptr(),
        eps,
    };
    output("compute a gated block", |out, message| {
        // SAFETY: as in `attention_block`.
        unsafe { ffi::torch_ext_gated_block(x.as_ptr(), &raw const block, out, message) }
    })
    .map(Some)
}

/// Checks that operands fit each other and have these shapes, and returns whether the kernels compute with them.
fn check_operands(shapes: &[(Operand<'_>, Vec<i64>)]) -> Result<bool, TorchExtError> {
    let operands: Vec<Operand<'_>> = shapes.iter().map(|(operand, _)| *operand).collect();
    check_alike(&operands)?;
    for ((name, tensor), shape) in shapes {
        check_shape(name, tensor, shape)?;
    }
    Ok(has_kernel(&operands))
}

fn height(tensor: &Tensor) -> i64 {
    tensor.size().first().copied().unwrap_or(0)
}

fn width(tensor: &Tensor) -> i64 {
    tensor.size().last().copied().unwrap_or(0)
}
