//! What libtorch has and tch leaves out, through a small C++ shim: the only crate of the workspace with `unsafe` code.
//!
//! [`fused_adamw`] updates weights in one pass over memory, as [`accumulate`] adds gradients and [`squared_norm`] measures
//! them; [`rms_norm`], [`swiglu`] and [`rotate`] do so with what a decoder layer computes between its products, and have
//! gradients, as has [`tree_attention`] of packed rows; [`attention_block`] and [`gated_block`] are these and the products
//! between them as one node of a graph each, and [`gather_gradients`] begins anywhere in one; [`narrow_linear`] and
//! [`decode_attention`] are what decoding takes, at the pace of memory; [`side_by_side`] computes whole parts at once where
//! operations are too small to share out; [`distributed`] is c10d, PyTorch's own engine for processes that train together.
//!
//! # Rules
//!
//! - **Aliasing.** A tensor is a handle to counted memory, and handles may share it. Functions here write through
//!   `&mut Tensor` and read through `&Tensor`; two arguments of one call must not share memory unless the function says
//!   so, and each checks what it can. tch lets any number of handles write to the same memory, and so no borrow of one can
//!   keep the others still: while a collective runs, using its memory through another handle is a data race that nothing
//!   here can see.
//! - **Borrows of work under way.** libtorch's threads read and write tensors between the start of a collective and its end.
//!   A [`distributed::Work`] therefore borrows them for its whole scope, and the scope's end waits for the work, whether the
//!   `Work` was waited for, dropped or forgotten. Beside that the C++ side holds a counted handle of each tensor, so that
//!   memory is never freed under a collective, and neither borrow nor handle depends on a destructor of ours to run.
//! - **Streams.** Work on a GPU is queued on the current stream of the tensor's device, as every operation of tch. A NCCL
//!   collective runs on a stream of its own, which waits for the current one; waiting for it makes the current stream wait
//!   and returns, so that what tch does afterwards on that stream sees the result.
//! - **Threads.** Every function may be called from any thread. None keeps a tensor beyond its return, but for work in a
//!   scope. A [`distributed::ProcessGroup`] is `Send` and not `Sync`, since its calls have an order that must be that of all
//!   other ranks; c10d counts them without a lock. [`distributed::AbortHandle`] and [`distributed::Store`] are shared freely.
//! - **Errors.** Preconditions are checked before libtorch is asked, and have an error each. C++ exceptions stop in the
//!   shim and come out as [`TorchExtError::Torch`], [`TorchExtError::TimedOut`] or [`TorchExtError::ConnectionLost`]; none
//!   crosses into Rust.

#![expect(unsafe_code, reason = "this crate is the workspace's door to C++")]

mod attention;
mod blocks;
mod check;
pub mod distributed;
mod error;
mod ffi;
mod fused;
mod gradients;
mod memory;
mod narrow;
mod optimizer;
mod side_by_side;
mod varlen;

pub use attention::{TokenTrees, tree_attention};
pub use blocks::{AttentionBlock, GatedBlock, attention_block, gated_block};
pub use error::TorchExtError;
pub use fused::{rms_norm, rotate, swiglu};
pub use gradients::gather_gradients;
pub use memory::{keep_free_memory, release_free_memory, untouched_zeros};
pub use narrow::{decode_attention, narrow_linear, narrow_rows};
pub use optimizer::{AdamWUpdate, accumulate, fused_adamw, squared_norm};
pub use side_by_side::side_by_side;
pub use varlen::{VarlenTrees, varlen_attention};
