//! Tuned settings: the gain that selection alone gives.

use stats::MeanEstimate;

use super::Error;

/// Steps of the integral over probabilities.
const STEPS: u32 = 200_000;

/// Computes the expected maximum of `settings` independent standard normal scores: ∫₀¹ Φ⁻¹(u^(1/n)) du.
///
/// # Errors
///
/// None; the quantiles are defined.
pub fn expected_best(settings: u32) -> Result<f64, Error> {
    let unit = MeanEstimate { value: 0.0, standard_error: 1.0, degrees_of_freedom: f64::INFINITY };
    let mut sum = 0.0;
    for step in 0..STEPS {
        let u = (f64::from(step) + 0.5) / f64::from(STEPS);
        let p = u.powf(1.0 / f64::from(settings));
        // The interval at level 2p − 1 ends at the quantile of p; below one half, quantiles are mirrored.
        let level = (2.0 * p - 1.0).abs();
        let quantile = if level > 0.0 { unit.interval(level)?.high } else { 0.0 };
        sum += quantile.copysign(p - 0.5);
    }
    Ok(sum / f64::from(STEPS))
}
