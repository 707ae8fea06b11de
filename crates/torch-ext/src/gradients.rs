//! The way back through a graph.

use tch::{Kind, Tensor};

use crate::TorchExtError;
use crate::check::{check_kind, check_shape};
use crate::ffi;

/// Adds the gradients with respect to `leaves` to `sums`, where that of `output` is `gradient`, and returns the one with respect to
/// `input`: `None` where the graph does not reach it, as nothing is added for leaves that it does not reach. The graph is gone
/// afterwards.
///
/// tch begins at a scalar. Where a gradient comes from elsewhere, as in closed form from a loss or from the layer above, it would
/// have to be made one: by a product with the gradient, and its sum. And it gives every leaf a gradient of its own, all of which
/// are there before the first is added; here [blocks](crate::attention_block) add theirs as they compute them, in fp32 within the
/// product itself.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
/// let weight = Tensor::from_slice(&[3f32, 3.0]).set_requires_grad(true);
/// let mut sums = [Tensor::from_slice(&[0.5f32, 0.5])];
/// let (output, gradient) = (&x * &weight, Tensor::from_slice(&[10f32, 1.0]));
/// let of_x = torch_ext::gather_gradients(&output, &gradient, &x, &[&weight], &mut sums)?;
/// assert_eq!(Vec::<f32>::try_from(of_x.expect("the graph reaches it"))?, [30.0, 3.0]);
/// assert_eq!(Vec::<f32>::try_from(&sums[0])?, [10.5, 2.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `gradient` has shape and kind of `output`, what is returned those of `input`; each sum the shape of its leaf, Float and
/// contiguous. No sum shares memory with another or with what the graph holds.
///
/// # Errors
/// [`TorchExtError::Kind`], [`TorchExtError::Shape`] and [`TorchExtError::NotContiguous`], before anything is added;
/// [`TorchExtError::Torch`] where `output`, `input` or a leaf asks for no gradient.
///
/// # Panics
/// If there are not as many sums as leaves.
pub fn gather_gradients(
    output: &Tensor,
    gradient: &Tensor,
    input: &Tensor,
    leaves: &[&Tensor],
    sums: &mut [Tensor],
) -> Result<Option<Tensor>, TorchExtError> {
    assert_eq!(leaves.len(), sums.len(), "every leaf has a sum");
    check_kind("the gradient", gradient, output.kind())?;
    check_shape("the gradient", gradient, &output.size())?;
    for (leaf, sum) in leaves.iter().zip(&*sums) {
        check_kind("a sum", sum, Kind::Float)?;
        check_shape("a sum", sum, &leaf.size())?;
        if !sum.is_contiguous() {
            return Err(TorchExtError::NotContiguous { tensor: "a sum" });
        }
    }
    let leaves: Vec<_> = leaves.iter().map(|leaf| leaf.as_ptr()).collect();
    let sums: Vec<_> = sums.iter_mut().map(Tensor::as_mut_ptr).collect();
    let mut made = std::ptr::null_mut();
    ffi::call("compute gradients", |message| {
        // SAFETY: the tensors are live, `leaves` and `sums` are of one length, `made` has room for a handle, and kinds, shapes and
        // layout are the ones that the shim takes for granted. Of all this nothing is kept.
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
                &raw mut made,
                message,
            )
        }
    })?;
    // SAFETY: the call succeeded: what is not null is a tensor that the shim made with `new` for whoever called, as tch's are.
    Ok((!made.is_null()).then(|| unsafe { Tensor::from_ptr(made) }))
}
