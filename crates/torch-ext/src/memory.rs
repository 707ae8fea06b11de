//! What the C library's allocator keeps.

/// Gives memory back to the system that was freed and that the C library's allocator still holds.
///
/// libtorch allocates tensors of up to some 32 MB from the heap, where what is freed between two living blocks stays with the
/// process: after a model was loaded and dropped, most of its size. One call takes about as long as it takes to zero that
/// memory, so it belongs between phases and not into a loop. Elsewhere than with glibc it does nothing.
///
/// ```
/// torch_ext::release_free_memory();
/// ```
pub fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the declaration is glibc's own (malloc.h), and the function may be called at any time and from any thread.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // The result says whether anything was given back, which nobody needs to know.
        let _ = malloc_trim(0);
    }
}
