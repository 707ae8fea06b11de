//! The two floating-point types that the kernels take.

use std::fmt::Debug;
use std::ops::{Add, Mul, Neg, Sub};

/// `f32` or `f64`. Sealed: no other type can implement it.
pub trait Float:
    sealed::Sealed
    + Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// Rounds to this type.
    fn of(value: f64) -> Self;

    /// Widens to `f64`, exactly.
    fn widen(self) -> f64;

    /// ln(1 + eˣ), without overflow and without losing the tail.
    ///
    /// For x > 0 it is x + ln(1 + e⁻ˣ), so the exponential never exceeds 1.
    fn softplus(self) -> Self;

    /// 1/(1 + e⁻ˣ), without overflow, small for very negative x rather than 1 minus something.
    fn sigmoid(self) -> Self;
}

macro_rules! float {
    ($type:ty) => {
        impl Float for $type {
            #[inline]
            fn of(value: f64) -> Self {
                value as Self
            }

            #[inline]
            fn widen(self) -> f64 {
                f64::from(self)
            }

            #[inline]
            fn softplus(self) -> Self {
                self.max(0.0) + (-self.abs()).exp().ln_1p()
            }

            #[inline]
            fn sigmoid(self) -> Self {
                let e = (-self.abs()).exp();
                if self >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
            }
        }

        impl sealed::Sealed for $type {}
    };
}

float!(f32);
float!(f64);

mod sealed {
    pub trait Sealed {}
}
