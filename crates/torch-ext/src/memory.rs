//! Allocation of whole models, and the settings of the C library's allocator.

use tch::{Device, Kind, Tensor};

use crate::TorchExtError;
use crate::ffi;
use crate::fused::output;

/// Returns zeros whose pages the system commits on the first write, as large pages where Linux has them. A buffer of the size of a
/// model then costs nothing until it is used, and the threads that write to it share the page faults.
///
/// ```
/// use tch::{Device, Kind};
///
/// let zeros = torch_ext::untouched_zeros(1000, Device::Cpu)?;
/// assert_eq!((zeros.size(), zeros.kind()), (vec![1000], Kind::Float));
/// assert_eq!(zeros.abs().sum(Kind::Double).double_value(&[]), 0.0);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Shapes
/// `[elements]`, Float. On other devices than a CPU these are libtorch's zeros.
///
/// # Errors
/// [`TorchExtError::Torch`] where memory is exhausted, or `elements` is negative.
pub fn untouched_zeros(elements: i64, device: Device) -> Result<Tensor, TorchExtError> {
    let what = "allocate zeros";
    if device != Device::Cpu {
        return Tensor::f_zeros([elements], (Kind::Float, device))
            .map_err(|error| TorchExtError::Torch { what, message: error.to_string() });
    }
    // SAFETY: `handle` and `message` are valid for writes; the caller owns the tensor.
    output(what, |handle, message| unsafe { ffi::torch_ext_untouched_zeros(elements, handle, message) })
}

/// Sets glibc's allocator to keep up to 256 MB of free memory at the end of its heap, and to serve blocks of up to 32 MB from it.
///
/// By default it returns the memory that a training step frees, beyond twice the largest freed block or 64 MB, and the next step
/// faults the same pages in again: some 35,000 per step of a 135M model, about a hundredth of its time. The setting applies to
/// the whole process, permanently. Without glibc this does nothing.
///
/// ```
/// torch_ext::keep_free_memory();
/// ```
pub fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        const M_TRIM_THRESHOLD: c_int = -1;
        const M_MMAP_THRESHOLD: c_int = -3;
        // SAFETY: the declaration is glibc's own (malloc.h), and the function may be called at any time and from any thread.
        unsafe extern "C" {
            safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        // Returns zero where it rejects a value, which keeps the default.
        let _ = mallopt(M_TRIM_THRESHOLD, 256 << 20);
        let _ = mallopt(M_MMAP_THRESHOLD, 32 << 20);
    }
}

/// Returns freed memory that glibc's allocator still holds to the system.
///
/// libtorch allocates tensors of up to some 32 MB from the heap, where memory freed between two live blocks stays with the
/// process: most of a model's size after the model was loaded and dropped. A call takes about as long as zeroing that memory, so
/// call it between phases, not in a loop. Without glibc this does nothing.
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
        // The result says whether memory was returned, which has no consequence.
        let _ = malloc_trim(0);
    }
}
