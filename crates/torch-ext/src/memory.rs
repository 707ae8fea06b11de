//! Memory of whole models: how the system hands it out, and how it gets it back.

use tch::{Device, Kind, Tensor};

use crate::TorchExtError;
use crate::ffi;
use crate::fused::made;

/// Zeros whose memory the system hands out only as it is first written, on Linux in large pages where it has them: for buffers of
/// the size of a model, which then cost nothing before they are used, and the threads that write them share the work.
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
/// `[elements]`, Float. Elsewhere than on a CPU they are zeros like any.
///
/// # Errors
/// [`TorchExtError::Torch`] where there is no memory for them, or fewer than none are asked for.
pub fn untouched_zeros(elements: i64, device: Device) -> Result<Tensor, TorchExtError> {
    let what = "zeros";
    if device != Device::Cpu {
        return Tensor::f_zeros([elements], (Kind::Float, device))
            .map_err(|error| TorchExtError::Torch { what, message: error.to_string() });
    }
    // SAFETY: `handle` and `message` are valid for writes; the tensor that is made is the caller's.
    made(what, |handle, message| unsafe { ffi::torch_ext_untouched_zeros(elements, handle, message) })
}

/// Has the C library's allocator keep up to 256 MB that are free at the end of its heap, and serve blocks of up to 32 MB from it.
///
/// By itself it gives back what a step frees once that is more than twice the largest block it has seen freed, 64 MB at most, and the
/// next step has the system hand out and clear the same pages again: of the 135M model some 35,000 a step, which took about a hundredth
/// of its time. The setting is the whole process's and stays. Elsewhere than with glibc it does nothing.
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
        // Zero where a value is refused, which leaves it as it was.
        let _ = mallopt(M_TRIM_THRESHOLD, 256 << 20);
        let _ = mallopt(M_MMAP_THRESHOLD, 32 << 20);
    }
}

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
