//! What libtorch has and tch leaves out, through a small C++ shim: the only crate of the workspace with `unsafe` code.
//!
//! # Rules
//!
//! - **Aliasing.** A tensor is a handle to counted memory, and handles may share it. Functions here write through
//!   `&mut Tensor` and read through `&Tensor`; two arguments of one call must not share memory unless the function says
//!   so, and each checks what it can.
//! - **Streams.** Work on a GPU is queued on the current stream of the tensor's device, as every operation of tch.
//! - **Threads.** Every function may be called from any thread. None keeps a tensor beyond its return.
//! - **Errors.** Preconditions are checked before libtorch is asked, and have an error each. C++ exceptions stop in the
//!   shim and come out as [`TorchExtError::Torch`]; none crosses into Rust.

#![expect(unsafe_code, reason = "this crate is the workspace's door to C++")]

mod error;
mod ffi;
mod memory;
mod optimizer;

pub use error::TorchExtError;
pub use memory::release_free_memory;
pub use optimizer::{AdamWUpdate, fused_adamw};
