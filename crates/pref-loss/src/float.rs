//! The two floating-point types of the kernels, and their functions.

/// A floating-point type of the losses: `f32` or `f64`.
///
/// Sealed: no other type can implement it, and its arithmetic is private.
pub trait Float: sealed::Scalar {}

impl Float for f32 {}

impl Float for f64 {}

/// The logistic function at one argument. Each value is accurate to a few ulps over the whole range: nothing
/// overflows, and the tails do not cancel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logistic<F> {
    /// σ(x) = 1/(1 + e⁻ˣ).
    pub p: F,
    /// σ(−x) = 1 − σ(x).
    pub q: F,
    /// −log σ(x) = ln(1 + e⁻ˣ), in nats.
    pub minus_log_p: F,
    /// −log σ(−x) = ln(1 + eˣ), in nats.
    pub minus_log_q: F,
}

/// One implementation for both types. `$exp` and `$ln_1p` get arguments in [−∞, 0] and [0, 1] only.
macro_rules! float {
    ($type:ident, $exp:path, $ln_1p:path) => {
        impl sealed::Scalar for $type {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn of_count(count: u32) -> Self {
                count as Self
            }

            #[inline(always)]
            fn widen(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn logistic(self) -> Logistic<Self> {
                let tail = $exp(-self.abs());
                let log_sum = $ln_1p(tail);
                let near = 1.0 / (1.0 + tail);
                let far = tail * near;
                let is_positive = self >= 0.0;
                let above = if is_positive { self } else { 0.0 };
                let below = if is_positive { 0.0 } else { -self };
                Logistic {
                    p: if is_positive { near } else { far },
                    q: if is_positive { far } else { near },
                    minus_log_p: below + log_sum,
                    minus_log_q: above + log_sum,
                }
            }

            #[inline(always)]
            fn exp(self) -> Self {
                $type::exp(self)
            }

            #[inline(always)]
            fn exp_m1(self) -> Self {
                $type::exp_m1(self)
            }

            #[inline(always)]
            fn ln(self) -> Self {
                $type::ln(self)
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                $type::is_finite(self)
            }
        }
    };
}

float!(f32, exp_below_zero, ln_1p_of_unit);
float!(f64, f64::exp, f64::ln_1p);

/// Computes eˣ for x ≤ 0 to 3 ulps, including subnormal results.
///
/// Branch-free arithmetic that the compiler vectorizes. `f32::exp` is a call per number and dominates the time of a
/// loss. x = n ln 2 + r with |r| ≤ ln 2 / 2; eʳ is a truncated Taylor series with a remainder below 10⁻⁸.
#[inline(always)]
fn exp_below_zero(x: f32) -> f32 {
    /// Below this eˣ rounds to 0.
    const LOWEST: f32 = -104.0;
    /// 1.5 · 2²³: adding it leaves the rounded integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with so few bits that its product with n is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    // A comparison propagates NaN; `max` does not.
    let x = if x < LOWEST { LOWEST } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + coefficient;
    }
    // 2ⁿ in two factors, since 2⁻¹⁵⁰ is no f32 but the product may be one.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    series * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2ⁿ for n from −126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// Computes ln(1 + t) for t in [0, 1] to 3 ulps.
///
/// It is 2 artanh(s) with s = t/(2 + t) ≤ ⅓. The even series artanh(s)/s is a Chebyshev fit on [0, ⅑] with an error
/// of at most 4·10⁻⁹.
#[inline(always)]
fn ln_1p_of_unit(t: f32) -> f32 {
    let s = t / (2.0 + t);
    let u = s * s;
    let mut series = 0.281_746_57;
    for coefficient in [0.279_614_2, 0.400_248_54, 0.666_663_17, 2.0] {
        series = series * u + coefficient;
    }
    s * series
}

mod sealed {
    use std::fmt::Debug;
    use std::ops::{Add, Div, Mul, Neg, Sub};

    use super::Logistic;

    /// The arithmetic of the losses.
    pub trait Scalar:
        Copy
        + Debug
        + PartialOrd
        + Send
        + Sync
        + Add<Output = Self>
        + Sub<Output = Self>
        + Mul<Output = Self>
        + Div<Output = Self>
        + Neg<Output = Self>
        + 'static
    {
        /// Rounds to this type.
        fn of(value: f64) -> Self;

        /// Converts a token count: exact in f64, and up to 2²⁴ in f32.
        fn of_count(count: u32) -> Self;

        /// Widens to `f64`, exactly.
        fn widen(self) -> f64;

        /// Computes σ(x), σ(−x) and their logarithms.
        fn logistic(self) -> Logistic<Self>;

        /// Computes eˣ.
        fn exp(self) -> Self;

        /// Computes eˣ − 1 without cancellation for a small x.
        fn exp_m1(self) -> Self;

        /// Computes the natural logarithm.
        fn ln(self) -> Self;

        /// Returns whether the number is neither infinite nor NaN.
        fn is_finite(self) -> bool;
    }
}

#[cfg(test)]
mod tests {
    use super::sealed::Scalar;
    use super::{exp_below_zero, ln_1p_of_unit};

    /// Tolerance in ulps, relative to the same function in f64.
    const ULPS: f64 = 3.0;

    /// Returns the error of `ours` in ulps of `exact` rounded to f32.
    fn ulps(ours: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        let unit = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
        (f64::from(ours) - exact).abs() / unit
    }

    #[test]
    fn f32_functions_are_accurate_over_their_range() {
        for step in 0..=1_100_000 {
            let x = -(step as f32) * 1e-4;
            let exact = f64::from(x).exp();
            assert!(ulps(exp_below_zero(x), exact) <= ULPS, "exp({x}) gave {}", exp_below_zero(x));
        }
        for step in 0..=1_000_000 {
            let t = step as f32 * 1e-6;
            let exact = f64::from(t).ln_1p();
            assert!(ulps(ln_1p_of_unit(t), exact) <= ULPS, "ln_1p({t}) gave {}", ln_1p_of_unit(t));
        }
        assert_eq!(exp_below_zero(0.0), 1.0);
        assert_eq!(exp_below_zero(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn logistic_is_accurate_in_both_tails() {
        for x in [0.0_f64, 1e-9, 0.5, 3.0, 40.0, 700.0, 1e4] {
            let (at, mirrored) = (x.logistic(), (-x).logistic());
            assert_eq!((at.p, at.q), (mirrored.q, mirrored.p));
            assert_eq!((at.minus_log_p, at.minus_log_q), (mirrored.minus_log_q, mirrored.minus_log_p));
            assert!(at.minus_log_q >= x && at.minus_log_p >= 0.0);
        }
        assert_eq!(40.0_f64.logistic().minus_log_p, (-40.0_f64).exp());
        assert_eq!(0.0_f32.logistic().minus_log_p, std::f32::consts::LN_2);
        assert_eq!(f64::INFINITY.logistic().minus_log_q, f64::INFINITY);
        assert_eq!(f32::INFINITY.logistic().q, 0.0);
        let nan = f32::NAN.logistic();
        assert!([nan.p, nan.q, nan.minus_log_p, nan.minus_log_q].iter().all(|number| number.is_nan()));
    }
}
