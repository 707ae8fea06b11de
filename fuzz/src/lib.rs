//! The functions of the fuzz targets. `tests/mutations.rs` calls them too, with a stable compiler.

#![forbid(unsafe_code)]

pub mod targets;
#[cfg(feature = "torch")]
pub mod torch_targets;
