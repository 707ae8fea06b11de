//! Checks of operands: whether they fit each other, which is an error, and whether the kernels support them, which is a value.

use tch::{Kind, Tensor};

use crate::{TorchExtError, ffi};

/// Numbers per vector of the kernels; widths must be multiples of it.
pub(crate) const LANES: i64 = 16;

/// An operand and its name in error messages.
pub(crate) type Operand<'a> = (&'static str, &'a Tensor);

/// Whether `width` is a positive multiple of [`LANES`].
pub(crate) fn is_whole_vectors(width: i64) -> bool {
    width > 0 && width % LANES == 0
}

/// Whether the memory of `tensor` holds its elements as they are: strided, on the CPU, with nothing pending.
pub(crate) fn is_plain(tensor: &Tensor) -> bool {
    // SAFETY: the pointer comes from a live reference and is used during the call only.
    unsafe { ffi::torch_ext_is_plain(tensor.as_ptr()) != 0 }
}

/// Whether `tensor` is plain and contiguous.
pub(crate) fn is_dense(tensor: &Tensor) -> bool {
    is_plain(tensor) && tensor.is_contiguous()
}

/// Whether the kernels compute with `operands`, which are [alike](check_alike).
pub(crate) fn has_kernel(operands: &[Operand<'_>]) -> bool {
    operands
        .iter()
        .all(|(_, tensor)| matches!(tensor.f_kind(), Ok(Kind::Float | Kind::BFloat16)) && is_dense(tensor))
}

/// Checks that all operands are of the kind and on the device of the first one, which must be defined.
pub(crate) fn check_alike(operands: &[Operand<'_>]) -> Result<(), TorchExtError> {
    let [(name, first), others @ ..] = operands else { return Ok(()) };
    let (expected_kind, expected) = (kind_of(name, first)?, first.device());
    for &(tensor, other) in others {
        check_kind(tensor, other, expected_kind)?;
        let found = other.device();
        if found != expected {
            return Err(TorchExtError::Device { tensor, found, expected });
        }
    }
    Ok(())
}

fn kind_of(tensor: &'static str, given: &Tensor) -> Result<Kind, TorchExtError> {
    if !given.defined() {
        return Err(TorchExtError::Undefined { tensor });
    }
    given.f_kind().map_err(|error| TorchExtError::Torch { what: "read a kind", message: error.to_string() })
}

pub(crate) fn check_kind(tensor: &'static str, given: &Tensor, expected: Kind) -> Result<(), TorchExtError> {
    let found = kind_of(tensor, given)?;
    if found == expected { Ok(()) } else { Err(TorchExtError::Kind { tensor, found, expected }) }
}

pub(crate) fn check_shape(
    tensor: &'static str,
    given: &Tensor,
    expected: &[i64],
) -> Result<(), TorchExtError> {
    let found = given.size();
    if found == expected {
        Ok(())
    } else {
        Err(TorchExtError::Shape { tensor, found, expected: expected.to_vec() })
    }
}

/// Checks that `given` is contiguous and, on a CPU, plain.
pub(crate) fn check_contiguous(tensor: &'static str, given: &Tensor) -> Result<(), TorchExtError> {
    let is_contiguous =
        if given.device() == tch::Device::Cpu { is_dense(given) } else { given.is_contiguous() };
    if is_contiguous { Ok(()) } else { Err(TorchExtError::NotContiguous { tensor }) }
}
