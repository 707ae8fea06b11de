//! The two residual blocks of a decoder layer, each one node of a graph.
//!
//! Composed of their parts they are two dozen nodes a layer, whose making and differentiating takes longer than what they compute
//! where texts are short and models narrow. Forwards, a block has the bits of that composition; backwards, what reaches its
//! input from several sides is summed before it is rounded. Gradients cannot be differentiated again.

use tch::{Kind, Tensor};

use crate::check::{check_dense, check_shape, check_stored, whole_vectors};
use crate::ffi;
use crate::fused::made;
use crate::{TokenTrees, TorchExtError};

/// The weights of an attention block, named as in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBlock<'a> {
    /// `[hidden]`, of the norm before the projections.
    pub input_layernorm: &'a Tensor,
    /// Of that norm.
    pub eps: f64,
    /// `[heads · d, hidden]`.
    pub q_proj: &'a Tensor,
    /// `[kv_heads · d, hidden]`.
    pub k_proj: &'a Tensor,
    /// `[kv_heads · d, hidden]`.
    pub v_proj: &'a Tensor,
    /// `[hidden, heads · d]`.
    pub o_proj: &'a Tensor,
    /// Biases of the projections to queries, keys and values.
    pub biases: Option<[&'a Tensor; 3]>,
}

/// The weights of a gated block, named as in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct GatedBlock<'a> {
    /// `[hidden]`, of the norm before the projections.
    pub post_attention_layernorm: &'a Tensor,
    /// Of that norm.
    pub eps: f64,
    /// `[intermediate, hidden]`.
    pub gate_proj: &'a Tensor,
    /// `[intermediate, hidden]`.
    pub up_proj: &'a Tensor,
    /// `[hidden, intermediate]`.
    pub down_proj: &'a Tensor,
}

/// `x + o_proj(attention(q, k, v))`: projections of [`rms_norm`](crate::rms_norm)`(x)`, queries and keys
/// [turned](crate::rotate), [attention](crate::tree_attention) over the tokens that each sees.
///
/// # Shapes
/// `x` `[N, hidden]`, hidden a multiple of 16; `cos` and `sin` `[N, 1, d]`, d a multiple of 16, which get no gradient; N the
/// tokens of `trees`, `heads` a multiple of `kv_heads`; all Float or all `BFloat16`, contiguous, on the CPU. Returns the shape
/// and kind of `x`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn attention_block(
    x: &Tensor,
    weights: &AttentionBlock<'_>,
    (cos, sin): (&Tensor, &Tensor),
    trees: &TokenTrees,
) -> Result<Tensor, TorchExtError> {
    let AttentionBlock { input_layernorm, eps, q_proj, k_proj, v_proj, o_proj, biases } = *weights;
    let (kind, hidden) = check_input(x, Some(trees.tokens()))?;
    let dim = width(cos);
    for (tensor, given) in [("the cosines", cos), ("the sines", sin)] {
        check_dense(tensor, given, kind)?;
        check_shape(tensor, given, &[trees.tokens(), 1, whole_vectors(dim)])?;
    }
    check("the norm", input_layernorm, kind, &[hidden])?;
    let (of_heads, of_kv_heads) = (rows(q_proj), rows(k_proj));
    let heads = (of_heads / dim).max(1);
    // At least one head of keys, and as many heads of queries for each.
    let kv_heads = Some(of_kv_heads / dim).filter(|&kv| kv > 0 && heads % kv == 0).unwrap_or(heads);
    check("q_proj", q_proj, kind, &[heads * dim, hidden])?;
    check("k_proj", k_proj, kind, &[kv_heads * dim, hidden])?;
    check("v_proj", v_proj, kind, &[kv_heads * dim, hidden])?;
    check("o_proj", o_proj, kind, &[hidden, heads * dim])?;
    let widths =
        [("the bias of q_proj", heads), ("the bias of k_proj", kv_heads), ("the bias of v_proj", kv_heads)];
    for ((tensor, heads), bias) in widths.into_iter().zip(biases.into_iter().flatten()) {
        check(tensor, bias, kind, &[heads * dim])?;
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
        trees: trees.lengths().as_ptr(),
        length: trees.lengths().len(),
        eps,
    };
    made("attend in a block", |made, message| {
        // SAFETY: the tensors are live or null, `made` points at a handle, and kinds, shapes and layout are the ones that the
        // shim takes for granted, as in `tree_attention` what `trees` says. All of it is read during the call only; a graph
        // holds counted handles and a copy of its own.
        unsafe { ffi::torch_ext_attention_block(x.as_ptr(), &raw const block, made, message) }
    })
}

/// `x + down_proj(`[`swiglu`](crate::swiglu)`(gate_proj(n), up_proj(n)))` with `n = `[`rms_norm`](crate::rms_norm)`(x)`.
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
/// assert!((gated_block(&x, &weights)?.double_value(&[0, 5]) - expected).abs() < 1e-6);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `x` `[N, hidden]`, hidden and intermediate multiples of 16; all Float or all `BFloat16`, contiguous, on the CPU. Returns the
/// shape and kind of `x`.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Device`], [`TorchExtError::Shape`], [`TorchExtError::NotContiguous`].
pub fn gated_block(x: &Tensor, weights: &GatedBlock<'_>) -> Result<Tensor, TorchExtError> {
    let GatedBlock { post_attention_layernorm, eps, gate_proj, up_proj, down_proj } = *weights;
    let (kind, hidden) = check_input(x, None)?;
    check("the norm", post_attention_layernorm, kind, &[hidden])?;
    let intermediate = whole_vectors(rows(gate_proj));
    check("gate_proj", gate_proj, kind, &[intermediate, hidden])?;
    check("up_proj", up_proj, kind, &[intermediate, hidden])?;
    check("down_proj", down_proj, kind, &[hidden, intermediate])?;
    let block = ffi::GatedBlock {
        norm: post_attention_layernorm.as_ptr(),
        gate_proj: gate_proj.as_ptr(),
        up_proj: up_proj.as_ptr(),
        down_proj: down_proj.as_ptr(),
        eps,
    };
    made("gate in a block", |made, message| {
        // SAFETY: the tensors are live, `made` points at a handle, and kinds, shapes and layout are the ones that the shim takes
        // for granted. A graph holds counted handles of its own.
        unsafe { ffi::torch_ext_gated_block(x.as_ptr(), &raw const block, made, message) }
    })
}

/// Kind and width of a block's input, of so many rows where that is asked.
fn check_input(x: &Tensor, tokens: Option<i64>) -> Result<(Kind, i64), TorchExtError> {
    check_stored("x", x)?;
    let kind = x.kind();
    let hidden = whole_vectors(width(x));
    check("x", x, kind, &[tokens.unwrap_or_else(|| rows(x)), hidden])?;
    Ok((kind, hidden))
}

fn check(tensor: &'static str, given: &Tensor, kind: Kind, shape: &[i64]) -> Result<(), TorchExtError> {
    check_dense(tensor, given, kind)?;
    check_shape(tensor, given, shape)
}

fn rows(tensor: &Tensor) -> i64 {
    tensor.size().first().copied().unwrap_or(0)
}

fn width(tensor: &Tensor) -> i64 {
    tensor.size().last().copied().unwrap_or(0)
}
