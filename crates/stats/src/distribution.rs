//! Distributions of intervals and tests.

use std::f64::consts::SQRT_2;

use statrs::function::{
    beta::beta_reg,
    erf::{erfc, erfc_inv},
    gamma::{gamma_lr, ln_gamma},
};

/// P(Z ≤ z) of a standard normal Z.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / SQRT_2)
}

/// The z with P(Z ≤ z) = p, for p in (0, 1); infinite at its ends.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    -SQRT_2 * erfc_inv(2.0 * p)
}

/// P(|Z| ≥ |z|).
pub(crate) fn two_sided_normal(z: f64) -> f64 {
    erfc(z.abs() / SQRT_2).min(1.0)
}

/// P(T ≤ t) of Student's t with `df` degrees of freedom, which need not be whole.
pub(crate) fn t_cdf(t: f64, df: f64) -> f64 {
    if t.is_infinite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    if df.is_infinite() {
        return normal_cdf(t);
    }
    let tail = 0.5 * beta_reg(df / 2.0, 0.5, df / (df + t * t));
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// P(|T| ≥ |t|).
pub(crate) fn two_sided_t(t: f64, df: f64) -> f64 {
    (2.0 * t_cdf(-t.abs(), df)).min(1.0)
}

/// The t with P(T ≤ t) = p.
pub(crate) fn t_quantile(p: f64, df: f64) -> f64 {
    if df.is_infinite() {
        return normal_quantile(p);
    }
    if p < 0.5 {
        return -t_quantile(1.0 - p, df);
    }
    let mut high = normal_quantile(p).max(1.0);
    while 1.0 - t_cdf(high, df) > 1.0 - p && high < 1e300 {
        high *= 2.0;
    }
    // The upper tail does not cancel where the distribution function is close to 1.
    bisect(0.0, high, |t| t_cdf(-t, df) <= 1.0 - p)
}

/// P(T ≤ t) of the noncentral t distribution: T = (Z + `shift`)/√(χ²/`df`).
///
/// Lenth's sum over incomplete beta functions (Algorithm AS 243, *Applied Statistics* 38, 1989).
pub(crate) fn noncentral_t_cdf(t: f64, df: f64, shift: f64) -> f64 {
    if df.is_infinite() {
        return normal_cdf(t - shift);
    }
    if t < 0.0 {
        return 1.0 - noncentral_t_cdf(-t, df, -shift);
    }
    let half = shift * shift / 2.0;
    let x = t * t / (t * t + df);
    let below_zero = normal_cdf(-shift);
    if x <= 0.0 {
        return below_zero;
    }
    // Poisson weights fall off on both sides of their mode; starting there keeps them from underflowing.
    let term = |j: f64| {
        let p = (-half + j * half.ln() - ln_gamma(j + 1.0)).exp();
        let q = shift.signum() * (-half + (j + 0.5) * half.ln() - ln_gamma(j + 1.5)).exp();
        0.5 * (p * beta_reg(j + 0.5, df / 2.0, x) + q * beta_reg(j + 1.0, df / 2.0, x))
    };
    if half <= 0.0 {
        return t_cdf(t, df);
    }
    let mode = half.floor();
    let mut sum = 0.0;
    for step in [1.0, -1.0] {
        let mut j = if step > 0.0 { mode } else { mode - 1.0 };
        while j >= 0.0 {
            let weight = (-half + j * half.ln() - ln_gamma(j + 1.0)).exp();
            sum += term(j);
            if weight < 1e-18 {
                break;
            }
            j += step;
        }
    }
    (below_zero + sum).clamp(0.0, 1.0)
}

/// The x with P(X ≤ x) = p of a χ² distribution, for p in (0, 1).
pub(crate) fn chi_squared_quantile(p: f64, df: f64) -> f64 {
    let mut high = df.max(1.0);
    while gamma_lr(df / 2.0, high / 2.0) < p {
        high *= 2.0;
    }
    bisect(0.0, high, |x| x > 0.0 && gamma_lr(df / 2.0, x / 2.0) >= p)
}

/// The x with P(X ≤ x) = p of a beta distribution.
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    bisect(0.0, 1.0, |x| beta_reg(a, b, x) >= p)
}

/// Computes ψ′(x), the derivative of the digamma function, for x > 0.
pub(crate) fn trigamma(x: f64) -> f64 {
    /// From here on the asymptotic series is accurate to f64.
    const LARGE: f64 = 15.0;
    let (mut x, mut sum) = (x, 0.0);
    while x < LARGE {
        sum += 1.0 / (x * x);
        x += 1.0;
    }
    let u = 1.0 / (x * x);
    // 1/x + 1/2x² + Σ B₂ₖ/x²ᵏ⁺¹
    let series = 1.0 / 6.0 - u * (1.0 / 30.0 - u * (1.0 / 42.0 - u * (1.0 / 30.0 - u * 5.0 / 66.0)));
    sum + (1.0 + 0.5 / x + u * series) / x
}

/// P(X ≥ x) of a χ² distribution with one degree of freedom.
pub(crate) fn chi_squared_1_tail(x: f64) -> f64 {
    erfc((x / 2.0).sqrt())
}

/// P(X = k) of n tosses with heads of probability ½.
pub(crate) fn fair_probability(n: u64, k: u64) -> f64 {
    let ln_factorial = |m: u64| ln_gamma(to_f64(m) + 1.0);
    (ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k) - to_f64(n) * std::f64::consts::LN_2).exp()
}

#[expect(clippy::cast_precision_loss, reason = "counts lie far below 2^53")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "lengths lie far below 2^53")]
pub(crate) fn length(count: usize) -> f64 {
    count as f64
}

/// Quantiles of `values`, which is not empty and is reordered, interpolated linearly.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a slice: between 0 and its length"
)]
pub(crate) fn quantiles<const N: usize>(values: &mut [f64], levels: [f64; N]) -> [f64; N] {
    levels.map(|q| {
        let position = q.clamp(0.0, 1.0) * length(values.len() - 1);
        let below = position.floor() as usize;
        let (_, &mut low, above) = values.select_nth_unstable_by(below, f64::total_cmp);
        let high = above.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
        low + (high - low) * (position - position.floor())
    })
}

/// Returns the least point of [low, high] at which `reached` is true, to the last bit. `reached` is monotone.
pub(crate) fn bisect(mut low: f64, mut high: f64, reached: impl Fn(f64) -> bool) -> f64 {
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return high;
        }
        if reached(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
}

/// Mean, and the sum of squares around it.
pub(crate) fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / length(values.len());
    (mean, values.iter().map(|value| (value - mean).powi(2)).sum())
}

/// Middle value of `sorted`, which is not empty.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Ranks from 1, tied values sharing the mean of theirs; and the sizes of the groups of ties.
pub(crate) fn midranks(values: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut ties = Vec::new();
    let mut start = 0;
    while start < order.len() {
        // 0 and −0 are the same value.
        let same = |&&index: &&usize| values[index] == values[order[start]];
        let size = order[start..].iter().take_while(same).count();
        let rank = length(start) + (length(size) + 1.0) / 2.0;
        for &index in &order[start..start + size] {
            ranks[index] = rank;
        }
        ties.push(size);
        start += size;
    }
    (ranks, ties)
}
