//! Independent parts of a computation on libtorch's threads.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use crate::TorchExtError;
use crate::ffi;

/// Applies `body` to each of `parts` in parallel, each on one of libtorch's threads, and returns the results in order.
///
/// libtorch splits each operation over its threads. Where operations are so small that synchronization dominates, it is faster to
/// run whole parts in parallel. They may read the same tensors, and must not write to shared ones.
///
/// ```
/// use tch::{Device, Kind, Tensor};
///
/// let parts = vec![Tensor::ones([3], (Kind::Float, Device::Cpu)), Tensor::ones([4], (Kind::Float, Device::Cpu))];
/// let sums = torch_ext::parallel_map(parts, |part| part.sum(Kind::Float).double_value(&[]))?;
/// assert_eq!(sums, [3.0, 4.0]);
/// # Ok::<(), torch_ext::TorchExtError>(())
/// ```
///
/// # Errors
/// [`TorchExtError::Torch`] where libtorch cannot start threads.
///
/// # Panics
/// Where `body` panics, after all parts have ended.
pub fn parallel_map<P: Send, R: Send>(
    parts: Vec<P>,
    body: impl Fn(P) -> R + Sync,
) -> Result<Vec<R>, TorchExtError> {
    // A single part keeps libtorch's threads for its operations.
    if parts.len() < 2 {
        return Ok(parts.into_iter().map(body).collect());
    }
    let count = parts.len() as i64;
    let slots = parts.into_iter().map(|part| Mutex::new(Slot::Pending(part))).collect();
    let work = Work { slots, body };
    ffi::call("compute in parallel", |message| {
        // SAFETY: the function takes work of this type, which is `Sync` and outlives the call, and catches panics.
        unsafe {
            ffi::torch_ext_parallel_map(count, run_part(&work), (&raw const work).cast_mut().cast(), message)
        }
    })?;
    let results =
        work.slots.into_iter().map(|slot| match slot.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Slot::Done(Ok(result)) => result,
            Slot::Done(Err(panic)) => resume_unwind(panic),
            Slot::Pending(_) | Slot::Running => unreachable!("the call returned after every part"),
        });
    Ok(results.collect())
}

struct Work<P, R, F> {
    slots: Vec<Mutex<Slot<P, R>>>,
    body: F,
}

enum Slot<P, R> {
    Pending(P),
    Running,
    Done(Result<R, Box<dyn Any + Send>>),
}

impl<P, R, F: Fn(P) -> R> Work<P, R, F> {
    fn run(&self, part: usize) {
        let mut slot = self.slots[part].lock().unwrap_or_else(PoisonError::into_inner);
        if let Slot::Pending(part) = std::mem::replace(&mut *slot, Slot::Running) {
            *slot = Slot::Done(catch_unwind(AssertUnwindSafe(|| (self.body)(part))));
        }
    }
}

/// Returns the function that runs one part of such work, from any thread.
fn run_part<P, R, F: Fn(P) -> R>(_: &Work<P, R, F>) -> unsafe extern "C" fn(*mut c_void, i64)
where
    Work<P, R, F>: Sync,
{
    unsafe extern "C" fn run<P, R, F: Fn(P) -> R>(work: *mut c_void, part: i64) {
        // SAFETY: the caller passes a pointer to such work that is alive.
        let work: &Work<P, R, F> = unsafe { &*work.cast_const().cast() };
        work.run(part as usize);
    }
    run::<P, R, F>
}
