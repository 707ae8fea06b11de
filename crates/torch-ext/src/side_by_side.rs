//! Work of several parts that run beside each other.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use crate::TorchExtError;
use crate::ffi;

/// What `body` makes of each of `parts`, in their order: at once, on as many of libtorch's threads as there are, each part on
/// one of them.
///
/// libtorch shares each single operation out over its threads. Where operations are so small that the threads wait for each
/// other longer than they compute, whole parts side by side take less time. They may read the same tensors; what they write
/// must be their own.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let parts = vec![Tensor::ones([3], (Kind::Float, Device::Cpu)), Tensor::ones([4], (Kind::Float, Device::Cpu))];
/// let sums = torch_ext::side_by_side(parts, |part| part.sum(Kind::Float).double_value(&[]))?;
/// assert_eq!(sums, [3.0, 4.0]);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Errors
/// [`TorchExtError::Torch`] where libtorch has no threads to give.
///
/// # Panics
/// Where `body` does, after all parts have ended.
pub fn side_by_side<P: Send, R: Send>(
    parts: Vec<P>,
    body: impl Fn(P) -> R + Sync,
) -> Result<Vec<R>, TorchExtError> {
    // A part alone keeps libtorch's threads to itself.
    if parts.len() < 2 {
        return Ok(parts.into_iter().map(body).collect());
    }
    let count = parts.len() as i64;
    let slots = parts.into_iter().map(|part| Mutex::new(Slot::Given(part))).collect();
    let work = Work { slots, body };
    ffi::call("compute side by side", |message| {
        // SAFETY: what runs a part is for work of this type, which is `Sync` and outlives the call, and lets no panic out.
        unsafe {
            ffi::torch_ext_side_by_side(count, run_part(&work), (&raw const work).cast_mut().cast(), message)
        }
    })?;
    let made =
        work.slots.into_iter().map(|slot| match slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Slot::Made(Ok(made)) => made,
            Slot::Made(Err(panic)) => resume_unwind(panic),
            Slot::Given(_) | Slot::Taken => unreachable!("the call came back from every part"),
        });
    Ok(made.collect())
}

struct Work<P, R, F> {
    slots: Vec<Mutex<Slot<P, R>>>,
    body: F,
}

enum Slot<P, R> {
    Given(P),
    Taken,
    Made(Result<R, Box<dyn Any + Send>>),
}

impl<P, R, F: Fn(P) -> R> Work<P, R, F> {
    fn run(&self, part: usize) {
        let mut slot = self.slots[part].lock().unwrap_or_else(PoisonError::into_inner);
        if let Slot::Given(part) = std::mem::replace(&mut *slot, Slot::Taken) {
            *slot = Slot::Made(catch_unwind(AssertUnwindSafe(|| (self.body)(part))));
        }
    }
}

/// What runs one part of such work, from any thread.
fn run_part<P, R, F: Fn(P) -> R>(_: &Work<P, R, F>) -> unsafe extern "C" fn(*mut c_void, i64)
where
    Work<P, R, F>: Sync,
{
    unsafe extern "C" fn run<P, R, F: Fn(P) -> R>(work: *mut c_void, part: i64) {
        // SAFETY: the caller hands on a pointer to such work that is alive.
        let work: &Work<P, R, F> = unsafe { &*work.cast_const().cast() };
        work.run(part as usize);
    }
    run::<P, R, F>
}
