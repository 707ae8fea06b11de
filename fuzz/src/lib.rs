//! The functions of the fuzz targets. `tests/mutations.rs` calls them too, with a stable compiler.

#![forbid(unsafe_code)]

pub mod targets;
#[cfg(feature = "torch")]
pub mod torch_targets;

/// Lets panics unwind, so that readers catch those of their libraries as they do in a program. libFuzzer's hook would end the
/// process at once. A panic that nothing catches still ends it, without a message; the input shows it.
pub fn let_panics_unwind() {
    std::panic::set_hook(Box::new(|_| {}));
}
