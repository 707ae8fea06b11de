//! Declarations of `cpp/distributed.h`, and owners of its objects.

use std::ptr::NonNull;

use torch_sys::C_tensor;

use crate::ffi::Message;

/// Mirrors `TorchExtBytes`; borrowed for one call.
#[repr(C)]
pub(crate) struct Bytes {
    data: *const u8,
    length: usize,
}

impl Bytes {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }
}

/// Mirrors `TorchExtAnswer`; borrowed for one call.
#[repr(C)]
pub(crate) struct Answer {
    pub(crate) data: *mut u8,
    pub(crate) capacity: usize,
    pub(crate) length: *mut usize,
}

/// Mirrors `TorchExtRank`.
#[repr(C)]
pub(crate) struct Rank {
    pub(crate) index: i32,
    pub(crate) world_size: i32,
}

macro_rules! opaque {
    ($($name:ident)*) => {$(
        /// Opaque to Rust.
        #[repr(C)]
        pub(crate) struct $name {
            _opaque: [u8; 0],
        }
    )*};
}

opaque! { CStore CGroup CWork }

unsafe extern "C" {
    pub(crate) fn torch_ext_store_open(
        host: Bytes,
        port: u16,
        listener: i32,
        timeout_ms: i64,
        out: *mut *mut CStore,
        message: Message,
    ) -> i32;
    fn torch_ext_store_free(store: *mut CStore);
    pub(crate) fn torch_ext_store_set(store: *mut CStore, key: Bytes, value: Bytes, message: Message) -> i32;
    pub(crate) fn torch_ext_store_get(
        store: *mut CStore,
        key: Bytes,
        timeout_ms: i64,
        answer: Answer,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_store_compare_set(
        store: *mut CStore,
        key: Bytes,
        expected: Bytes,
        desired: Bytes,
        answer: Answer,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_store_add(
        store: *mut CStore,
        key: Bytes,
        amount: i64,
        sum: *mut i64,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_store_check(
        store: *mut CStore,
        key: Bytes,
        is_there: *mut i32,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_group_gloo(
        store: *mut CStore,
        name: Bytes,
        rank: Rank,
        address: Bytes,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        message: Message,
    ) -> i32;
    #[cfg(feature = "nccl")]
    pub(crate) fn torch_ext_group_nccl(
        store: *mut CStore,
        name: Bytes,
        rank: Rank,
        timeout_ms: i64,
        out: *mut *mut CGroup,
        message: Message,
    ) -> i32;
    fn torch_ext_group_free(group: *mut CGroup);
    pub(crate) fn torch_ext_group_abort(group: *mut CGroup, message: Message) -> i32;
    pub(crate) fn torch_ext_all_reduce(
        group: *mut CGroup,
        tensor: *mut C_tensor,
        operation: u8,
        out: *mut *mut CWork,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_reduce_scatter(
        group: *mut CGroup,
        output: *mut C_tensor,
        input: *mut C_tensor,
        operation: u8,
        out: *mut *mut CWork,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_all_gather(
        group: *mut CGroup,
        output: *mut C_tensor,
        input: *mut C_tensor,
        out: *mut *mut CWork,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_broadcast(
        group: *mut CGroup,
        tensor: *mut C_tensor,
        root: i32,
        out: *mut *mut CWork,
        message: Message,
    ) -> i32;
    pub(crate) fn torch_ext_barrier(group: *mut CGroup, out: *mut *mut CWork, message: Message) -> i32;
    pub(crate) fn torch_ext_work_wait(work: *mut CWork, message: Message) -> i32;
    fn torch_ext_work_free(work: *mut CWork);
}

/// Defines an owner of an object of the shim.
macro_rules! owner {
    ($(#[$doc:meta])* $name:ident, $out:ty, $free:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) struct $name(NonNull<$out>);

        impl $name {
            /// Takes ownership of the result of a successful call.
            pub(crate) fn new(out: *mut $out) -> Self {
                Self(NonNull::new(out).expect("a successful call returns an object"))
            }

            pub(crate) fn as_ptr(&self) -> *mut $out {
                self.0.as_ptr()
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: the pointer comes from the shim, this is its only owner, and it is not used afterwards.
                unsafe { $free(self.0.as_ptr()) }
            }
        }
    };
}

owner!(
    /// A client of a store, on the store's thread.
    StoreHandle, CStore, torch_ext_store_free
);
owner!(
    /// A process group.
    GroupHandle, CGroup, torch_ext_group_free
);
owner!(
    /// A collective.
    WorkHandle, CWork, torch_ext_work_free
);

// SAFETY: the handle is a heap object without ties to its creating thread, and c10d locks a store's clients.
unsafe impl Send for StoreHandle {}

// SAFETY: a process group is a heap object without ties to its creating thread.
unsafe impl Send for GroupHandle {}

// SAFETY: an `AbortHandle` calls only `abort`, which the shim permits at any time. All other calls go through the handle's only
// `ProcessGroup`, which makes them one at a time.
unsafe impl Sync for GroupHandle {}

// SAFETY: a collective is a heap object without ties to its creating thread.
unsafe impl Send for WorkHandle {}
