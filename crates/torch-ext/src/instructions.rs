//! The instruction sets that the kernels are compiled for.

use crate::ffi;

/// A set of instructions of a processor. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every processor of the target has.
    Default,
    /// x86-64-v3: AVX2 and fused multiply-add.
    V3,
    /// x86-64-v4: AVX-512.
    V4,
    /// AVX-512, and AMX tiles for products of bf16 matrices.
    Amx,
}

impl InstructionSet {
    /// All sets, in ascending order.
    pub const ALL: [Self; 4] = [Self::Default, Self::V3, Self::V4, Self::Amx];

    /// Returns the widest set that this processor has and the system permits. The kernels use it.
    pub fn widest() -> Self {
        // SAFETY: the function takes no arguments, and queries the processor once.
        let widest = unsafe { ffi::torch_ext_widest_instructions() };
        Self::ALL.into_iter().find(|&set| set as i32 == widest).unwrap_or(Self::Default)
    }

    /// Runs `body`, in which this thread's kernels use this set; returns `None`, without a call, where the processor lacks it.
    ///
    /// For tests and benchmarks: no other set is faster than the widest one.
    ///
    /// ```
    /// use torch_ext::InstructionSet;
    ///
    /// assert_eq!(InstructionSet::Default.force(|| 1), Some(1));
    /// ```
    pub fn force<R>(self, body: impl FnOnce() -> R) -> Option<R> {
        /// Ends the force where `body` panics, too.
        struct Forced;

        impl Drop for Forced {
            fn drop(&mut self) {
                // SAFETY: as below.
                unsafe { ffi::torch_ext_force_instructions(-1) }
            }
        }

        (self <= Self::widest()).then(|| {
            // SAFETY: the function sets a number of this thread, and accepts any.
            unsafe { ffi::torch_ext_force_instructions(self as i32) };
            let _forced = Forced;
            body()
        })
    }
}
