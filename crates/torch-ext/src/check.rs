//! What the kernels of this crate take for granted of their tensors.

use tch::{Device, Kind, Tensor};

use crate::TorchExtError;

/// How many numbers the kernels take at once; widths are multiples of it.
pub(crate) const LANES: i64 = 16;

/// The least width from `width` on that the kernels take.
pub(crate) fn whole_vectors(width: i64) -> i64 {
    (width + LANES - 1).max(LANES) / LANES * LANES
}

/// A kind that the kernels read and write.
pub(crate) fn check_stored(tensor: &'static str, given: &Tensor) -> Result<(), TorchExtError> {
    match given.kind() {
        Kind::Float | Kind::BFloat16 => Ok(()),
        found => Err(TorchExtError::Kind { tensor, found, expected: Kind::Float }),
    }
}

pub(crate) fn check_kind(tensor: &'static str, given: &Tensor, expected: Kind) -> Result<(), TorchExtError> {
    let found = given.kind();
    if found == expected { Ok(()) } else { Err(TorchExtError::Kind { tensor, found, expected }) }
}

pub(crate) fn check_place(tensor: &'static str, given: &Tensor) -> Result<(), TorchExtError> {
    let (found, expected) = (given.device(), Device::Cpu);
    if found == expected { Ok(()) } else { Err(TorchExtError::Device { tensor, found, expected }) }
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

/// Elements of one of the kernels' kinds, on the CPU, one behind the other.
pub(crate) fn check_dense(tensor: &'static str, given: &Tensor, kind: Kind) -> Result<(), TorchExtError> {
    check_kind(tensor, given, kind)?;
    check_place(tensor, given)?;
    if given.is_contiguous() { Ok(()) } else { Err(TorchExtError::NotContiguous { tensor }) }
}
