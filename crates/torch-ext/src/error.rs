//! What can go wrong at the door to C++.

use tch::{Device, Kind};

/// Why a call was not made, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchExtError {
    /// A tensor of another kind than the operation takes.
    #[error("{tensor} is {found:?}; it must be {expected:?}")]
    Kind {
        /// Which argument.
        tensor: &'static str,
        /// Its kind.
        found: Kind,
        /// What it must be.
        expected: Kind,
    },
    /// A tensor on another device than the first one.
    #[error("{tensor} lies on {found:?}; it must lie on {expected:?} with the others")]
    Device {
        /// Which argument.
        tensor: &'static str,
        /// Where it lies.
        found: Device,
        /// Where the others lie.
        expected: Device,
    },
    /// A tensor of another shape than the first one.
    #[error("{tensor} has shape {found:?}; it must have {expected:?} as the others")]
    Shape {
        /// Which argument.
        tensor: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// The others' shape.
        expected: Vec<i64>,
    },
    /// A tensor whose elements do not lie one behind the other.
    #[error("{tensor} is not contiguous; copy it with `contiguous()` first")]
    NotContiguous {
        /// Which argument.
        tensor: &'static str,
    },
    /// libtorch refused.
    #[error("libtorch cannot {what}: {message}")]
    Torch {
        /// What was asked of it.
        what: &'static str,
        /// Its words.
        message: String,
    },
}
