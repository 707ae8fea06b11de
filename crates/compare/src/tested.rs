//! Tests of a family of differences.

use stats::{Interval, MeanEstimate, PlannedTest, holm};

use crate::Error;

/// The power of minimum detectable effects and required samples.
pub(crate) const POWER: f64 = 0.8;

/// The tests of one difference of a family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tested {
    pub(crate) interval: Interval,
    pub(crate) p: f64,
    pub(crate) p_holm: f64,
    pub(crate) mde: f64,
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
        let mde_interval = [mde.interval.low, mde.interval.high];
        Ok(Tested { interval, p, p_holm, mde: mde.value, mde_interval })
    };
    differences.iter().zip(p.iter().copied().zip(adjusted)).map(tested).collect()
}
