#![doc = include_str!("../README.md")]
//!
//! # Rules
//!
//! - **Aliasing.** A tensor is a handle to counted memory, and handles may share it. Functions write through `&mut Tensor` and read
//!   through `&Tensor`; two arguments of one call must not share memory unless the function permits it. In tch any handle can
//!   write, so that no borrow of one handle excludes writes through another. During a collective, such a write is a data race
//!   that this crate cannot detect.
//! - **Mutation.** A tensor may change between a forward and a backward pass (`set_data`). The C++ side therefore checks kinds,
//!   shapes, strides and pending negations of every tensor right before it accesses memory.
//! - **Borrows of pending work.** libtorch's threads access tensors between the start and the end of a collective. A
//!   [`distributed::Work`] therefore borrows them for its scope, and the end of the scope waits for the work, even if the `Work`
//!   was dropped or forgotten. The C++ side also holds a counted handle of each tensor, so that memory safety does not depend on
//!   a destructor.
//! - **Streams.** Work on a GPU is queued on the current stream of the tensor's device, like every operation of tch. An NCCL
//!   collective runs on its own stream, which waits for the current one. Waiting for the collective makes the current stream
//!   wait, and returns.
//! - **Threads.** Every function may be called from any thread. None keeps a tensor beyond its return, except for work in a scope or
//!   [in flight](distributed::InFlight). c10d counts the calls of a [`distributed::ProcessGroup`] without a lock, so that the
//!   group holds one during each call. The order of calls is the same on all ranks, which is up to the caller.
//! - **Errors.** Preconditions are checked before the call of libtorch, and have an error each. The shim catches all C++ exceptions
//!   and returns [`TorchExtError::Torch`], [`TorchExtError::TimedOut`] or [`TorchExtError::ConnectionLost`].

#![expect(unsafe_code, reason = "this crate calls C++")]

mod attention;
mod blocks;
mod check;
mod decode;
pub mod distributed;
mod error;
mod ffi;
mod fused;
mod gradients;
mod instructions;
mod memory;
mod optimizer;
mod parallel;
mod quantized;
mod varlen;

pub use attention::{SharedPrefixRows, shared_prefix_attention};
pub use blocks::{AttentionBlock, GatedBlock, attention_block, gated_block};
pub use decode::{decode_attention, decode_linear, max_decode_rows};
pub use error::TorchExtError;
pub use fused::{rms_norm, rotate, swiglu};
pub use gradients::gather_gradients;
pub use instructions::InstructionSet;
pub use memory::{keep_free_memory, release_free_memory, untouched_zeros};
pub use optimizer::{AdamWUpdate, accumulate, fused_adamw, squared_norm};
pub use parallel::parallel_map;
pub use quantized::{Moment8bit, Nf4, dequantize_moment, dynamic_blocks, fused_adamw_8bit, quantize_moment};
pub use varlen::{VarlenRows, varlen_attention};
