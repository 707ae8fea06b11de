//! Tests of a family of differences.

use serde::Serialize;
use stats::{MeanEstimate, PlannedTest, holm};

use crate::Error;

/// The power of minimum detectable effects and required samples.
pub(crate) const POWER: f64 = 0.8;

/// A difference with its tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The difference.
    pub estimate: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// The p-value of a difference of 0.
    pub p: f64,
    /// The same, by Holm's method over the contrasts of the scorer.
    pub p_holm: f64,
    /// The minimum detectable effect at 80% power, after the correction.
    pub mde: f64,
}

/// The tests of one difference of a family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tested {
    pub(crate) measured: Measured,
    pub(crate) mde_interval: [f64; 2],
}

/// Tests a family of differences.
pub(crate) fn tests(differences: &[MeanEstimate], level: f64) -> Result<Vec<Tested>, Error> {
    let p: Vec<f64> = differences.iter().map(MeanEstimate::p_value).collect();
    let adjusted = holm(&p).map_err(Error::stats("corrected p-values"))?;
    let planned = PlannedTest { level, power: POWER, comparisons: differences.len() };
    let tested = |(difference, (p, p_holm)): (&MeanEstimate, (f64, f64))| {
        let mde = planned
            .minimum_detectable_effect(difference)
            .map_err(Error::stats("the minimum detectable effect"))?;
        let interval = difference.interval(level).map_err(Error::stats("an interval"))?;
        let (estimate, low, high) = (difference.value, interval.low, interval.high);
        let measured = Measured { estimate, low, high, p, p_holm, mde: mde.value };
        Ok(Tested { measured, mde_interval: [mde.interval.low, mde.interval.high] })
    };
    differences.iter().zip(p.iter().copied().zip(adjusted)).map(tested).collect()
}
