//! Backward passes that add gradients to sums.

use tch::{Kind, Tensor};

use crate::TorchExtError;
use crate::check::{check_alike, check_contiguous, check_kind, check_shape};
use crate::ffi;

/// Differentiates `output`, whose gradient is `gradient`: adds the gradients of `leaves` to `sums`, and returns that of `input`.
///
/// Returns `None` where the graph does not reach `input`, and adds nothing for leaves that it does not reach. Frees the graph.
///
/// tch differentiates scalars only, so that a gradient in closed form, or of a later layer, would need a product and a sum. It
/// also computes the gradients of all leaves before the first one is added. Here [blocks](crate::attention_block) add theirs as
/// they compute them, in fp32 within the matrix product.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
/// let weight = Tensor::from_slice(&[3f32, 3.0]).set_requires_grad(true);
/// let mut sums = [Tensor::from_slice(&[0.5f32, 0.5])];
/// let (output, gradient) = (&x * &weight, Tensor::from_slice(&[10f32, 1.0]));
/// let grad_x = torch_ext::gather_gradients(&output, &gradient, &x, &[&weight], &mut sums)?;
/// assert_eq!(Vec::<f32>::try_from(grad_x.expect("the graph reaches it"))?, [30.0, 3.0]);
/// assert_eq!(Vec::<f32>::try_from(&sums[0])?, [10.5, 2.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `gradient` has the shape and kind of `output`, and the result those of `input`. Each sum has the shape of its leaf, is Float and
/// contiguous, and is disjoint in memory from other sums and from the tensors of the graph.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`] and [`TorchExtError::NotContiguous`], before anything is added;
/// [`TorchExtError::Torch`] where `output`, `input` or a leaf requires no gradient.
pub fn gather_gradients(
    output: &Tensor,
    gradient: &Tensor,
    input: &Tensor,
    leaves: &[&Tensor],
    sums: &mut [Tensor],
) -> Result<Option<Tensor>, TorchExtError> {
    if leaves.len() != sums.len() {
        let (found, expected) = (vec![sums.len() as i64], vec![leaves.len() as i64]);
        return Err(TorchExtError::Shape { tensor: "the list of sums", found, expected });
    }
    check_alike(&[("the output", output), ("the gradient", gradient)])?;
    for (name, tensor) in
        [("the input", input)].into_iter().chain(leaves.iter().map(|leaf| ("a leaf", *leaf)))
    {
        check_alike(&[(name, tensor)])?;
    }
    check_shape("the gradient", gradient, &output.size())?;
    for (leaf, sum) in leaves.iter().zip(&*sums) {
        check_kind("a sum", sum, Kind::Float)?;
        check_shape("a sum", sum, &leaf.size())?;
        check_contiguous("a sum", sum)?;
    }
    let leaves: Vec<_> = leaves.iter().map(|leaf| leaf.as_ptr()).collect();
    let sums: Vec<_> = sums.iter_mut().map(Tensor::as_mut_ptr).collect();
    let mut grad_input = std::ptr::null_mut();
    ffi::call("compute gradients", |message| {
        // SAFETY: the tensors are live, `leaves` and `sums` are of one length, and `grad_input` has room for a handle. The shim
        // checks tensors before it reads memory, and keeps none of them.
        unsafe {
            let (output, gradient, input) = (output.as_ptr(), gradient.as_ptr(), input.as_ptr());
            let (count, leaves, sums) = (leaves.len(), leaves.as_ptr(), sums.as_ptr());
            ffi::torch_ext_gather_gradients(
                output,
                gradient,
                input,
                leaves,
                sums,
                count,
                &raw mut grad_input,
                message,
            )
        }
    })?;
    // SAFETY: the call succeeded, so a handle that is not null is a tensor that the shim created with `new`, as tch does.
    Ok((!grad_input.is_null()).then(|| unsafe { Tensor::from_ptr(grad_input) }))
}
