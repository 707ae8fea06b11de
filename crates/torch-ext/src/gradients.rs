//! The way back through a graph.

use tch::Tensor;

use crate::TorchExtError;
use crate::check::{check_kind, check_shape};
use crate::ffi;

/// Gradients with respect to `inputs`, where that of `output` is `gradient`; `None` of those that the graph does not reach. The
/// graph is gone afterwards.
///
/// tch begins at a scalar. Where a gradient comes from elsewhere, as in closed form from a loss or from the layer above, it would
/// have to be made one: by a product with the gradient, and its sum.
///
/// ```
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[1f32, 2.0]).set_requires_grad(true);
/// let found = torch_ext::gradients(&x.square(), &Tensor::from_slice(&[10f32, 1.0]), &[&x])?;
/// let of_x = found[0].as_ref().expect("the graph reaches it");
/// assert_eq!(Vec::<f32>::try_from(of_x)?, [20.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Shapes
/// `gradient` has shape and kind of `output`; what is returned has shape and kind of its input.
///
/// # Errors
/// [`TorchExtError::Kind`] and [`TorchExtError::Shape`]; [`TorchExtError::Torch`] where `output` or an input asks for no gradient.
pub fn gradients(
    output: &Tensor,
    gradient: &Tensor,
    inputs: &[&Tensor],
) -> Result<Vec<Option<Tensor>>, TorchExtError> {
    check_kind("the gradient", gradient, output.kind())?;
    check_shape("the gradient", gradient, &output.size())?;
    let handles: Vec<_> = inputs.iter().map(|input| input.as_ptr()).collect();
    let mut made = vec![std::ptr::null_mut(); inputs.len()];
    ffi::call("compute gradients", |message| {
        // SAFETY: the tensors are live, and `handles` and `made` have room for one of each input.
        unsafe {
            let (output, gradient) = (output.as_ptr(), gradient.as_ptr());
            ffi::torch_ext_gradients(
                output,
                gradient,
                handles.as_ptr(),
                handles.len(),
                made.as_mut_ptr(),
                message,
            )
        }
    })?;
    // SAFETY: the call succeeded: what is not null is a tensor that the shim made with `new` for whoever called, as tch's are.
    let taken = made.into_iter().map(|made| (!made.is_null()).then(|| unsafe { Tensor::from_ptr(made) }));
    Ok(taken.collect())
}
