//! Declarations of the headers in `cpp`, and the function that calls them.

use std::ffi::{CStr, c_char, c_void};

use torch_sys::C_tensor;

use crate::TorchExtError;

/// Mirrors `TorchExtStatus`; any other value is `TORCH_EXT_FAILED`.
const DONE: i32 = 0;
const TIMED_OUT: i32 = 2;
const CONNECTION_LOST: i32 = 3;

/// Mirrors `TorchExtMessage`.
#[repr(C)]
pub(crate) struct Message {
    text: *mut c_char,
    capacity: usize,
}

/// Mirrors `TorchExtAdamW`.
#[repr(C)]
pub(crate) struct AdamW {
    pub(crate) learning_rate: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) weight_decay: f64,
    pub(crate) eps: f64,
    pub(crate) step: f64,
    pub(crate) gradient_divisor: f64,
}

/// Mirrors `TorchExtAttentionBlock`.
#[repr(C)]
pub(crate) struct AttentionBlock {
    pub(crate) norm: *const C_tensor,
    pub(crate) q_proj: *const C_tensor,
    pub(crate) k_proj: *const C_tensor,
    pub(crate) v_proj: *const C_tensor,
    pub(crate) o_proj: *const C_tensor,
    pub(crate) q_bias: *const C_tensor,
    pub(crate) k_bias: *const C_tensor,
    pub(crate) v_bias: *const C_tensor,
    pub(crate) cos: *const C_tensor,
    pub(crate) sin: *const C_tensor,
    pub(crate) lengths: *const i64,
    pub(crate) count: usize,
    pub(crate) eps: f64,
}

/// Mirrors `TorchExtGatedBlock`.
#[repr(C)]
pub(crate) struct GatedBlock {
    pub(crate) norm: *const C_tensor,
    pub(crate) gate_proj: *const C_tensor,
    pub(crate) up_proj: *const C_tensor,
    pub(crate) down_proj: *const C_tensor,
    pub(crate) eps: f64,
}

unsafe extern "C" {
    pub(crate) fn torch_ext_fused_adamw(
        weights: *mut C_tensor,
        gradient: *mut C_tensor,
        exp_avg: *mut C_tensor,
        exp_avg_sq: *mut C_tensor,
        update: *const AdamW,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_adamw(
        weights: *mut C_tensor,
        gradient: *const C_tensor,
        exp_avg: *mut C_tensor,
        exp_avg_sq: *mut C_tensor,
        copy: *mut C_tensor,
        update: *const AdamW,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_dequantize_nf4(
        out: *mut C_tensor,
        codes: *const C_tensor,
        scales: *const C_tensor,
        values: *const f32,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_dynamic_code(is_signed: i32, values: *mut f32, message: Message) -> i32;

    pub(crate) fn torch_ext_adamw_8bit(
        weights: *mut C_tensor,
        gradient: *const C_tensor,
        first: *mut C_tensor,
        second: *mut C_tensor,
        first_scales: *mut C_tensor,
        second_scales: *mut C_tensor,
        copy: *mut C_tensor,
        update: *const AdamW,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_accumulate(sum: *mut C_tensor, addend: *const C_tensor, message: Message) -> i32;

    pub(crate) fn torch_ext_squared_norm(x: *const C_tensor, sum: *mut f64, message: Message) -> i32;

    pub(crate) fn torch_ext_untouched_zeros(count: i64, out: *mut *mut C_tensor, message: Message) -> i32;

    pub(crate) fn torch_ext_decode_attention(
        out: *mut C_tensor,
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        first: *const C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_rms_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        eps: f64,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_swiglu(
        gate: *const C_tensor,
        up: *const C_tensor,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_rotate(
        x: *const C_tensor,
        cos: *const C_tensor,
        sin: *const C_tensor,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_shared_prefix_attention(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        lengths: *const i64,
        count: usize,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_attention_block(
        x: *const C_tensor,
        block: *const AttentionBlock,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_gated_block(
        x: *const C_tensor,
        block: *const GatedBlock,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_is_plain(tensor: *const C_tensor) -> i32;

    pub(crate) fn torch_ext_widest_instructions() -> i32;

    pub(crate) fn torch_ext_force_instructions(set: i32);

    pub(crate) fn torch_ext_varlen_attention(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        ends_q: *const C_tensor,
        ends_k: *const C_tensor,
        longest_q: i64,
        longest_k: i64,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_decode_linear(
        out: *mut C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_gather_gradients(
        output: *const C_tensor,
        gradient: *const C_tensor,
        input: *const C_tensor,
        leaves: *const *const C_tensor,
        sums: *const *mut C_tensor,
        count: usize,
        out: *mut *mut C_tensor,
        message: Message,
    ) -> i32;

    pub(crate) fn torch_ext_parallel_map(
        count: i64,
        body: unsafe extern "C" fn(*mut c_void, i64),
        context: *mut c_void,
        message: Message,
    ) -> i32;
}

/// Calls a function of the shim and converts its status to a result.
pub(crate) fn call(what: &'static str, function: impl FnOnce(Message) -> i32) -> Result<(), TorchExtError> {
    let mut text = [0 as c_char; 1024];
    let status = function(Message { text: text.as_mut_ptr(), capacity: text.len() });
    if status == DONE {
        return Ok(());
    }
    // SAFETY: the shim writes at most `capacity` bytes with a terminating zero; the buffer is zero otherwise.
    let message = unsafe { CStr::from_ptr(text.as_ptr()) };
    let message = message.to_string_lossy().into_owned();
    Err(match status {
        TIMED_OUT => TorchExtError::TimedOut { what, message },
        CONNECTION_LOST => TorchExtError::ConnectionLost { what, message },
        _ => TorchExtError::Torch { what, message },
    })
}
